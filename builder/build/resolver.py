"""Answers the frontend's questions about the world: base images and named contexts of one build."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from builder import images as image_cases
from builder.build.phases import Phase, phase
from builder.build.remote import RemoteOptions, made_s, remote_source
from builder.build.request import BuildRequest
from builder.build.sources import BaseImage, RemoteSource, chain_id_of, image_key
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.errors import PybuildError, SourceUnavailable
from builder.frontend.convert import NamedContext, ResolvedImage
from builder.frontend.convert.epoch import MAIN_CONTEXT
from builder.frontend.redact import redact
from builder.images.resolve import ResolvedBase
from builder.llb.ops import SourceOp
from builder.oci.digest import ChainId
from builder.oci.platform import Platform
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent
from builder.solver.reporter import Reporter
from builder.sources.contexts import PreparedContext
from builder.sources.named import NamedSource, normal_name


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
        self.images: dict[str, BaseImage] = {}
        self.registry: RegistryConfig = request.registry() if request.registry else RegistryConfig()
        self._remote_options = RemoteOptions(
            secrets={s.id: s.data.decode("utf-8", "replace").strip() for s in request.secrets},
            proxy_env=tuple((k, v) for k, v in request.build_args if k.lower().endswith("_proxy")),
            ssh_socket=next((agent.socket for agent in request.ssh if agent.id == "default"), ""),
        )

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:
        """The image called ``ref``; asked for once per build. Raises SourceUnavailable."""
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
            case "git" | "http":
                return NamedContext(source.name, source.kind, source.identifier)

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:
        """Resolve several images at once; failures are kept for whoever asks for the image."""
        mode = "pull" if self._request.pull else "default"
        wanted = [(ref, platform) for ref, platform in refs if (ref, platform, mode) not in self._bases]
        if len(wanted) < 2:
            return

        def resolve(ref: str, platform: Platform) -> None:
            try:
                self.image(ref, platform, mode=mode)
            except PybuildError:
                return

        threads = [threading.Thread(target=resolve, args=item, name="resolve") for item in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def source_epoch(self, source: SourceOp) -> int | None:
        """When a remote source was made; None when that is not known (EPO-02)."""
        if source.identifier == MAIN_CONTEXT:
            return self._prepared.made_s()
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
        except PybuildError as error:
            raise SourceUnavailable(
                f"{ref}: {error.message}",
                context=error.context,
                hint=error.hint,
                code="base-image-unavailable",
            ) from error

    def _answer(self, ref: str, base: ResolvedBase, platform: Platform) -> ResolvedImage:
        self._file(f"docker-image://{ref}@{base.digest}", platform, base)
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

    def _file(self, identifier: str, platform: Platform, base: ResolvedBase) -> None:
        image = _StoredBase(self._store, self._hold, base, self.registry)
        self.images[image_key(identifier, platform)] = image
        self.images[image_key(identifier, base.platform)] = image
        self.images[image_key(identifier, None)] = image


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

    def unpack(self, reporter: Reporter, cancel: Cancel) -> str | None:
        cancel.check()
        forward = partial(_forward, reporter)
        image_cases.ensure_layers(self._store, self._base, forward)
        cancel.check()
        return image_cases.unpack(self._store, self._base.manifest, self._hold, forward)


def _forward(reporter: Reporter, event: object) -> None:
    from builder.solver.progress import StatusEvent

    if isinstance(event, StatusEvent):
        reporter.status(event.id, event.current, event.total, done=event.completed_ns is not None)
