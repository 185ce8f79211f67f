"""``commit``: what a container has changed becomes a layer on its image (CTL-04, EX-40, EX-41)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from builder.cache.store import Store
from builder.containers import document
from builder.containers.changes import changes_of
from builder.containers.lookup import find
from builder.containers.trees import below_tree, own_tree
from builder.containers.types import CommitRequest, Container
from builder.oci.config import ImageConfig, Pairs
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.mutate import Image, documents, with_layer
from builder.oci.reference import Reference
from runtime import container as engine
from runtime.errors import PybuildError


def commit(store: Store, ref: str, request: CommitRequest) -> Digest:
    """Make an image of a container and return its id.

    A running container is frozen meanwhile unless ``pause`` is off. Volumes, and the files that are mounted
    into every container, are not part of it. Raises UsageError for a change that needs a build.
    """
    from builder.images.changes import apply_changes

    name = Reference.parse(request.reference).with_default_tag() if request.reference else None
    container = find(store, ref)
    base = _base(store, container)
    wanted = apply_changes(_config(base.config, container.data["Config"]), request.changes)
    with store.hold(), _frozen(container, pause=request.pause):
        diff_id, layer = _pack(store, container, request.compression)
        created = _now()
        history = _history(container, request, created)
        image = with_layer(replace(base, config=wanted), diff_id, layer, history)
        image = replace(image, config=replace(image.config, author=request.author or wanted.author))
        made = documents(image)
        store.blobs.put_many((made.config, made.manifest))
        if name is not None:
            store.images.tag(str(name), made.manifest_descriptor)
        else:
            store.images.add(made.manifest_descriptor)
    image_id = made.config_descriptor.digest
    attributes = document.event_attributes(container.row, imageID=str(image_id), imageRef=request.reference)
    store.events.add("container", "commit", container.id, attributes)
    return image_id


def _base(store: Store, container: Container) -> Image:
    """The image that the container was made from, by id."""
    from builder.errors import NoSuchImage
    from builder.images.select import platform_manifest

    stored = store.images.resolve(container.row.image_id)
    if stored is None:
        raise NoSuchImage(
            f"the image of container {container.name} is gone from the store", hint="pull or build it again"
        )
    found = platform_manifest(store, stored.manifest, stored.config.platform, container.data["Image"])
    return Image(config=found.config, layers=found.manifest.layers)


def _pack(store: Store, container: Container, compression: str) -> tuple[Any, Descriptor]:
    from builder.cache.differ import root_change
    from builder.cache.pack import pack_changes

    with closing(own_tree(store, container)) as tree:
        found = changes_of(store, container)
        with below_tree(store, container) as below:
            found = [*root_change(below, tree), *found]
        packed = pack_changes(store.blobs, found, tree, compression=compression)
    return packed.diff_id, packed.descriptor


@contextmanager
def _frozen(container: Container, *, pause: bool) -> Iterator[None]:
    """Nothing in the container moves while its tree is read."""
    if not pause or container.state.status != "running":
        yield
        return
    try:
        engine.pause(container.directory)
    except PybuildError as error:
        if error.code not in ("container-not-running", "no-freezer", "container-paused"):
            raise
        yield
        return
    try:
        yield
    finally:
        try:
            engine.unpause(container.directory)
        except PybuildError:
            pass  # it ended, or somebody has thawed it already


def _config(image: ImageConfig, given: dict[str, Any]) -> ImageConfig:
    """The image's config with what the container was started with."""

    def words(key: str) -> tuple[str, ...] | None:
        value = given.get(key)
        return tuple(value) if value is not None else None

    labels: Pairs = tuple((given.get("Labels") or {}).items())
    return replace(
        image,
        user=given["User"],
        env=tuple(given["Env"]),
        cmd=words("Cmd"),
        entrypoint=words("Entrypoint"),
        exposed_ports=tuple(given.get("ExposedPorts") or ()),
        workdir=given["WorkingDir"],
        labels=labels,
        stop_signal=given.get("StopSignal", ""),
    )


def _history(container: Container, request: CommitRequest, created: str) -> Any:
    from builder.oci.config import History

    words = [container.data["Path"], *container.data["Args"]]
    return History(
        created=created, created_by=shlex.join(words), author=request.author, comment=request.message
    )


def _now() -> str:
    from runtime.statefile import timestamp

    return timestamp(time.time_ns())
