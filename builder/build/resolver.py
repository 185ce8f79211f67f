"""Answers the frontend's questions about the world: base images and named contexts of one build."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from builder import images as image_cases
from builder.build.phases import Phase, phase
from builder.build.policy import SourceGate
from builder.build.remote import RemoteOptions, made_s, remote_source
from builder.build.replaced import Replacer, attributes
from builder.build.request import BuildInput, BuildRequest, find_input
from builder.build.sources import BaseImage, RemoteSource, chain_id_of, image_key
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.cancelling import carried
from builder.errors import Cancelled, InvalidValue, PybuildError, RegistryError, SourceUnavailable
from builder.frontend.convert import Conversion, NamedContext, ResolvedImage
from builder.frontend.convert.epoch import MAIN_CONTEXT
from builder.frontend.parser import Dockerfile
from builder.frontend.redact import redact
from builder.images.resolve import ResolvedBase, fetch_layers, stored_image
from builder.llb.ops import SourceOp
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, DiffId
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference
from builder.registry.client import client_for
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent
from builder.solver.reporter import Reporter
from builder.sources.contexts import PreparedContext
from builder.sources.named import NamedSource, normal_name
from builder.sources.policy import MAX_ROUNDS


class BuildResolver:
    """The frontend's ``Resolver`` for one build; every image is resolved once (SIM-03)."""

    def __init__(
        self, store: Store, hold: Hold, emit: OnEvent, prepared: PreparedContext, request: BuildRequest
    ) -> None:
        self._store = store
        self._hold = hold
        self._emit = emit
        self._prepared = prepared
        self._named = prepared.named
        self._request = request
        self._lock = threading.Lock()
        self._bases: dict[tuple[str, Platform, str], ResolvedBase] = {}
        self._replacing: dict[str, str] = {}
        self.gate = SourceGate.of(request)
        layouts = {source.name: source.path for source in self._named.values() if source.path is not None}
        self._replacer = Replacer(
            gate=self.gate,
            input_digest=lambda source: find_input(request.inputs, source.identifier, source.name).digest,
            layouts=layouts,
            locals={*prepared.locals, *(("context",) if prepared.main is not None else ())},
        )
        self.images: dict[str, BaseImage] = {}
        self.registry: RegistryConfig = request.registry() if request.registry else RegistryConfig()
        self._remote_options = RemoteOptions(
            secrets={s.id: s.data.decode("utf-8", "replace").strip() for s in request.secrets},
            proxy_env=tuple((k, v) for k, v in request.build_args if k.lower().endswith("_proxy")),
            ssh_socket=next((agent.socket for agent in request.ssh if agent.id == "default"), ""),
            registry=self.registry,
            layouts=layouts,
        )

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:
        """The image called ``ref``, or what the policy puts in its place; asked for once per build.

        Raises SourceUnavailable, SourceDenied.
        """
        if self.gate.open:
            return self._image(ref, platform, mode)
        attrs = () if mode == "default" else (("image.resolvemode", mode),)
        for _ in range(MAX_ROUNDS):
            name = self._passed_image(f"docker-image://{ref}", attrs)
            found = self._image(name, platform, mode)
            pinned = f"docker-image://{name.partition('@')[0]}@{found.digest}"
            ref = self._passed_image(pinned, attrs)
            if ref in (pinned.removeprefix("docker-image://"), name):
                return found  # a rule that matches with and without the digest takes it off again
        raise InvalidValue(f"{ref}: converted by policy more than {MAX_ROUNDS} times", code="policy-loop")

    def frontend(self, dockerfile: Dockerfile) -> str:
        """The frontend in the place of the one that the file asks for, "" = none. Raises SourceDenied."""
        if self.gate.open or self._request.llb is not None:
            return ""
        from builder.build.judging import judged_frontend

        return judged_frontend(self.gate, dockerfile, dict(self._request.build_args))

    def gated(self, conversion: Conversion) -> Conversion:
        """The conversion with its sources as the policy wants them. Raises SourceDenied."""
        if self.gate.open:
            return conversion
        scans = tuple((name, self.gate.definition(item, self._pin)) for name, item in conversion.scans)
        definition = self.gate.definition(conversion.definition, self._pin)
        return replace(conversion, definition=definition, scans=scans)

    def _pin(self, op: SourceOp, platform: Platform | None) -> SourceOp:
        """A source that a policy put in the place of another, ready to be used."""
        if not op.identifier.startswith("docker-image://"):
            return op
        if image_key(op.identifier, platform) in self.images:
            return op
        wanted = platform or host_platform()
        found = self._image(op.identifier.removeprefix("docker-image://"), wanted, self._mode)
        return SourceOp(
            identifier=f"docker-image://{found.ref.partition('@')[0]}@{found.digest}", attrs=op.attrs
        )

    def _passed_image(self, identifier: str, attrs: tuple[tuple[str, str], ...]) -> str:
        found = self.gate.passed(identifier, attrs)[0]
        if not found.startswith("docker-image://"):
            raise InvalidValue(
                f"policy converts the image {identifier} to {found}, which is no image",
                hint="want docker-image://…",
            )
        if found == identifier:
            return found.removeprefix("docker-image://")
        return str(Reference.parse(found.removeprefix("docker-image://")).with_default_tag())

    @property
    def _mode(self) -> str:
        return "pull" if self._request.pull else self._request.resolve_mode or "default"

    def _image(self, ref: str, platform: Platform, mode: str) -> ResolvedImage:
        key = (ref, platform, mode)
        with self._lock:
            base = self._bases.get(key)
        if base is None:
            place = f"context {self._replacing[ref]}" if ref in self._replacing else "internal"
            with phase(f"[{place}] load metadata for {ref}", self._emit) as step:
                base = self._resolve(ref, platform, mode, step)
            with self._lock:
                self._bases[key] = base
        return self._answer(ref, base, platform)

    def bases(self) -> tuple[tuple[str, str], ...]:
        """Every image asked for: its name and the digest that it stood for."""
        return tuple(sorted({(ref, str(base.digest)) for (ref, _, _), base in self._bases.items()}))

    def context(self, name: str, platform: Platform) -> NamedContext | None:
        """What ``--build-context`` says for a name: first for the platform, then for any (CTX-07)."""
        known = normal_name(name)
        source = self._named.get(f"{known}::{platform}") or self._named.get(known)
        if source is None:
            return None
        source, wanted = self._replacer.source(source)
        match source.kind:
            case "local":
                return NamedContext(source.name, "local", f"local://{source.identifier}")
            case "image":
                if source.identifier == "scratch":
                    return NamedContext(source.name, "scratch")
                self._replacing[source.identifier] = source.name
                return NamedContext(source.name, "image", f"docker-image://{source.identifier}")
            case "oci":
                return self._layout(source, platform)
            case "input":
                return self._input(source, platform)
            case "blob":
                return NamedContext(source.name, "http", *attributes(source, wanted))
            case "git" | "http":
                return NamedContext(source.name, source.kind, *attributes(source, wanted))

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:
        """Resolve several images at once; failures are kept for whoever asks for the image."""
        mode = self._mode
        wanted = [(ref, platform) for ref, platform in refs if (ref, platform, mode) not in self._bases]
        if len(wanted) < 2:
            return

        def resolve(ref: str, platform: Platform) -> None:
            try:
                self.image(ref, platform, mode=mode)
            except PybuildError:
                return

        task = carried(resolve)
        threads = [threading.Thread(target=task, args=item, name="resolve") for item in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def source_epoch(self, source: SourceOp) -> int | None:
        """When a remote source was made; None when that is not known (EPO-02)."""
        if source.identifier == MAIN_CONTEXT:
            return self._prepared.made_s()
        identifier, attrs = self.gate.passed(source.identifier, source.attrs)
        source = SourceOp(identifier=identifier, attrs=attrs)
        with phase(f"[internal] load time of {redact(source.identifier)}", self._emit) as step:
            return made_s(self._store, source, self._remote_options, step)

    def remote(self, op: SourceOp) -> RemoteSource:
        """The git or http source of ``op``."""
        return remote_source(self._store, op, self._remote_options)

    def _resolve(self, ref: str, platform: Platform, mode: str, step: Phase) -> ResolvedBase:
        try:
            return image_cases.resolve_image(
                self._store, ref, platform, cast("Any", mode), self.registry, self._emit, vertex=step.digest
            )
        except Cancelled:
            raise
        except PybuildError as error:
            raise SourceUnavailable(
                f"{ref}: {error.message}",
                context=error.context,
                hint=self._way_out(error, ref, platform, mode),
                code="base-image-unavailable",
            ) from error

    def _way_out(self, error: PybuildError, ref: str, platform: Platform, mode: str) -> str | None:
        """What to do about a base that could not be had: a registry is not the only place for one."""
        if not isinstance(error, RegistryError) or error.status in (404, 429):
            return error.hint
        if mode == "pull" and stored_image(self._store, ref, platform) is not None:
            other = "Without --pull the image that is here is taken"
        else:
            wanted = Reference.parse(ref)
            made = f", pybuild import FILE {wanted.familiar}, or a build with -t {wanted.familiar}"
            other = "An image that is here needs no registry: pybuild load -i FILE"
            other += "" if wanted.digest else made
        return f"{error.hint}{'' if error.hint.endswith('?') else '.'} {other}" if error.hint else other

    def _answer(self, ref: str, base: ResolvedBase, platform: Platform) -> ResolvedImage:
        self._file(f"docker-image://{ref.partition('@')[0]}@{base.digest}", platform, base)
        return ResolvedImage(base.digest, base.config, base.platform, ref)

    def _layout(self, source: NamedSource, platform: Platform) -> NamedContext:
        assert source.path is not None
        with phase(f"[context {source.name}] load metadata for {source.identifier}", self._emit):
            base = image_cases.import_layout(self._store, source.path, str(source.digest), platform=platform)
        identifier = f"oci-layout://{source.name}@{base.digest}"
        self._file(identifier, platform, base)
        return NamedContext(
            source.name,
            "oci",
            identifier,
            image=ResolvedImage(base.digest, base.config, base.platform, source.name),
        )

    def _input(self, source: NamedSource, platform: Platform) -> NamedContext:
        """The image that another build made, with its config (CTX-08, CTX-09)."""
        found = find_input(self._request.inputs, source.identifier, source.name)
        base = stored_image(self._store, found.digest, platform)
        if base is None:
            raise SourceUnavailable(
                f"input {found.key}: the store has no image {found.digest} for {platform}",
                hint="a build that is the input of another needs an output of type image",
            )
        config = base.config
        if found.config is not None:
            given = _config(found)
            config = replace(given, diff_ids=config.diff_ids, history=config.history)
        identifier = f"oci-layout://{source.name}@{base.digest}"
        self._file(identifier, platform, base)
        image = ResolvedImage(base.digest, config, base.platform, source.name)
        return NamedContext(source.name, "oci", identifier, image=image)

    def _file(self, identifier: str, platform: Platform, base: ResolvedBase) -> None:
        self._hold.blob(base.manifest.digest)
        image = _StoredBase(self._store, self._hold, base, self.registry)
        self.images[image_key(identifier, platform)] = image
        self.images[image_key(identifier, base.platform)] = image
        self.images[image_key(identifier, None)] = image


def _config(found: BuildInput) -> ImageConfig:
    """The config that was given with an input; raises InvalidValue."""
    try:
        return ImageConfig.from_json(json.loads(found.config or b""))
    except ValueError as error:
        raise InvalidValue(f"failed to parse image config for {found.key}: {error}") from error


class _StoredBase:
    """A resolved base image whose layers are fetched when a step needs its tree."""

    def __init__(self, store: Store, hold: Hold, base: ResolvedBase, registry: RegistryConfig) -> None:
        self._store = store
        self._hold = hold
        self._base = base
        self._registry = registry

    @property
    def chain_id(self) -> ChainId | None:
        return chain_id_of(self._base.config.diff_ids)

    @property
    def layers(self) -> tuple[tuple[Descriptor, ...], tuple[DiffId, ...]]:
        return self._base.layers, self._base.config.diff_ids

    def unpack(self, reporter: Reporter, cancel: Cancel, *, lazy: bool = False) -> str | None:
        from builder.images.unpacking import promise_layers, unpack_layers

        cancel.check()
        forward = partial(_forward, reporter)
        image_cases.ensure_layers(self._store, self._base, forward)
        cancel.check()
        if lazy:
            return promise_layers(self._store, *self.layers, self._hold)
        return unpack_layers(self._store, *self.layers, self._hold, forward)

    def missing_from(self) -> Reference | None:
        if self._base.path is not None or not self._base.ref:
            return None
        missing = any(not self._store.blobs.has(layer.digest) for layer in self._base.layers)
        return Reference.parse(self._base.ref) if missing else None

    def fetch_layer(self, layer: Descriptor, on_bytes: Callable[[int], None]) -> None:
        fetch_layers(
            self._store,
            client_for(self._registry),
            Reference.parse(self._base.ref),
            [layer],
            lambda transfer: on_bytes(transfer.current),
        )

    def narrowed(self, op: SourceOp) -> BaseImage:
        base, wanted, limit = self._base, op.attr("image.checksum"), op.attr("image.layerlimit")
        if wanted and wanted != str(base.digest):
            raise SourceUnavailable(
                f"image digest {base.digest} for {base.ref or op.identifier} does not match expected "
                f"checksum {wanted}",
                code="checksum-mismatch",
            )
        if not limit:
            return self
        if not limit.isdigit() or int(limit) > len(base.layers):
            raise SourceUnavailable(
                f"layer limit {limit} is greater than the number of layers in the image {len(base.layers)}",
                context=(op.identifier,),
            )
        count = int(limit)
        config = replace(base.config, diff_ids=base.config.diff_ids[:count])
        kept = replace(base, layers=base.layers[:count], config=config)
        return _StoredBase(self._store, self._hold, kept, self._registry)


def _forward(reporter: Reporter, event: object) -> None:
    from builder.solver.progress import StatusEvent

    if isinstance(event, StatusEvent):
        done = event.completed_ns is not None
        reporter.status(event.id, event.current, event.total, done=done, note=event.name)
