"""``pull`` and ``push`` (REG-PULL, REG-PUSH)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import InvalidValue, NoSuchImage, UsageError
from builder.exporter.sources import mount_sources, record_source
from builder.exporter.steps import Steps
from builder.images.progress import transfers
from builder.images.resolve import ensure_layers, resolve_image
from builder.images.select import find, portable_root
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import DEFAULT_REGISTRY, Reference
from builder.registry.client import client_for
from builder.registry.hosts import RegistryConfig
from builder.solver.progress import OnEvent

_NO_REGISTRIES = RegistryConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """A pulled image: ``digest`` is what the name stands for, ``changed`` whether the store had it
    otherwise."""

    image: StoredImage
    ref: Reference
    digest: Digest
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """A pushed name and the digest that it has in the registry."""

    ref: Reference
    digest: Digest
    size: int


def pull(
    store: Store,
    ref: str,
    platform: Platform | None = None,
    on_event: OnEvent | None = None,
    registry: RegistryConfig = _NO_REGISTRIES,
) -> StoredImage:
    """Pull one image; see ``pull_image``."""
    return pull_image(store, ref, platform, on_event, registry).image


def pull_image(
    store: Store,
    ref: str,
    platform: Platform | None = None,
    on_event: OnEvent | None = None,
    registry: RegistryConfig = _NO_REGISTRIES,
    *,
    vertex: str = "",
) -> PullResult:
    """Bring the image that ``ref`` names (``latest`` without tag) for one platform into the store, and name
    it.

    Only layers that are missing are fetched. Raises RegistryError, NoSuchImage, DigestMismatch, InvalidValue.
    """
    reference = Reference.parse(ref).with_default_tag()
    before = store.images.resolve(str(reference))
    steps = Steps(on_event, vertex)
    with store.hold():
        resolved = resolve_image(store, ref, platform, "pull", registry, on_event, vertex=vertex)
        for layer in resolved.layers:
            if store.blobs.has(layer.digest):
                steps.done(f"{layer.digest} already exists")
        ensure_layers(store, resolved, on_event, vertex=vertex)
    image = find(store, str(reference))
    changed = before is None or before.manifest.digest != image.manifest.digest
    store.events.add("image", "pull", reference.familiar, {"name": reference.familiar_name})
    return PullResult(image=image, ref=reference, digest=resolved.digest, changed=changed)


def pull_all_tags(
    store: Store,
    name: str,
    platform: Platform | None = None,
    on_event: OnEvent | None = None,
    registry: RegistryConfig = _NO_REGISTRIES,
    *,
    on_result: Callable[[PullResult], None] | None = None,
) -> tuple[PullResult, ...]:
    """Pull every tag of a repository. Raises UsageError when ``name`` has a tag (REG-PULL-1)."""
    reference = Reference.parse(name)
    if reference.tag is not None or reference.digest is not None:
        raise UsageError("tag can't be used with --all-tags/-a")
    results: list[PullResult] = []
    for tag in client_for(registry).tags(reference):
        result = pull_image(store, str(replace(reference, tag=tag)), platform, on_event, registry)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return tuple(results)


def push(
    store: Store,
    ref: str,
    on_event: OnEvent | None = None,
    registry: RegistryConfig = _NO_REGISTRIES,
    *,
    platform: Platform | None = None,
    all_tags: bool = False,
    vertex: str = "",
) -> tuple[PushResult, ...]:
    """Push the image called ``ref`` (``latest`` without tag), or every tag of its repository.

    Blobs that the registry has are skipped, others mounted from where they came from or uploaded. Raises
    NoSuchImage, UsageError, RegistryError, BlobMissing.
    """
    asked = Reference.parse(ref)
    if asked.digest is not None:
        raise InvalidValue(f"cannot push {ref}: a digest cannot be chosen", hint="push a tag")
    if asked.registry == DEFAULT_REGISTRY and asked.repository.startswith("library/"):
        name = asked.familiar_name
        raise UsageError(
            f"cannot push {name}: it has no user name for the default registry",
            hint=f"rename it first: pybuild tag {name} <user>/{name}",
        )
    steps = Steps(on_event, vertex)
    return tuple(
        _push_one(store, name, steps, registry, platform) for name in _names(store, asked, all_tags=all_tags)
    )


def _names(store: Store, asked: Reference, *, all_tags: bool) -> tuple[Reference, ...]:
    if not all_tags:
        return (asked.with_default_tag(),)
    if asked.tag is not None:
        raise UsageError("tag can't be used with --all-tags/-a")
    found = [
        name
        for image in store.images.list()
        for name in map(Reference.parse, image.names)
        if name.name == asked.name
    ]
    if not found:
        raise NoSuchImage(f"An image does not exist locally with the tag: {asked.familiar_name}")
    return tuple(sorted(found, key=str))


def _push_one(
    store: Store, name: Reference, steps: Steps, registry: RegistryConfig, platform: Platform | None
) -> PushResult:
    from builder.registry.push import plan
    from builder.registry.push import push as push_to_registry

    image = store.images.resolve(str(name))
    if image is None or str(name) not in image.names:
        raise NoSuchImage(f"An image does not exist locally with the tag: {name.familiar}")
    with store.hold() as hold:
        root: Descriptor = portable_root(store, image, platform, str(name))
        hold.blob(root.digest)
        with steps.step("pushing layers"):
            push_to_registry(
                client_for(registry),
                name,
                root,
                store.blobs,
                mount_from=lambda digest: mount_sources(store, digest),
                on_transfer=transfers(steps),
            )
        steps.done(f"pushing manifest for {name}@{root.digest}")
        for blob in plan(root, store.blobs).blobs:
            record_source(store, blob.digest, name)
    store.events.add("image", "push", name.familiar, {"name": name.familiar_name})
    return PushResult(ref=name, digest=root.digest, size=root.size)
