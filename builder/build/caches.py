"""Imported and exported caches of one build: opened when needed, shown as steps, written after the outputs.

An import that fails is a warning (SLV-08); an export that fails ends the build once all others are done,
unless it was given ``ignore-error=true`` (RCH-13).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from builder.build.layers import LayerMaker, LayerOptions
from builder.build.phases import phase
from builder.build.request import BuildRequest
from builder.cache.cacheconfig import CacheConfig, CacheMountBlob
from builder.cache.cachegraph import GraphBuilder, KeyIndex
from builder.cache.store import Store
from builder.cache.types import SnapshotInfo
from builder.errors import BlobMissing, Cancelled, PybuildError, UsageError
from builder.exporter import preflight
from builder.exporter.steps import Steps
from builder.exporter.types import BuiltImage, OutputSpec
from builder.llb.definition import Definition
from builder.llb.ops import ExecOp
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest
from builder.registry.hosts import RegistryConfig
from builder.registry.parallel import each
from builder.registry.progress import Stop
from builder.remotecache import backend
from builder.remotecache.backend import CacheExporter, CacheImporter
from builder.remotecache.exporting import Build, collect, merged
from builder.remotecache.fetching import bring
from builder.remotecache.matching import Imported, RemoteCaches, RemoteStack
from builder.remotecache.publishing import Publishing
from builder.remotecache.spec import CacheSpec
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv, Sources
from builder.solver.planning import Nodes
from builder.solver.progress import OnEvent, WarningEvent

_COMPRESSIONS = ("gzip", "zstd", "estargz", "uncompressed")


@dataclass(slots=True, kw_only=True)
class BuildCaches:
    """The caches that one build imports and exports."""

    store: Store
    emit: OnEvent
    cancel: Cancel
    imports: tuple[CacheImporter, ...] = ()
    exports: tuple[tuple[CacheSpec, CacheExporter], ...] = ()
    inline: bool = False
    _plans: list[Nodes] = field(default_factory=list)
    _builds: tuple[Build, ...] = ()
    _remote: RemoteCaches | None = None

    @classmethod
    def of(
        cls,
        request: BuildRequest,
        store: Store,
        *,
        registry: Callable[[], RegistryConfig],
        emit: OnEvent,
        cancel: Cancel,
    ) -> BuildCaches | None:
        """What a request asks for; None when that is nothing. Raises UsageError."""
        inline = wants_inline(request)
        if not (request.cache_from or request.cache_to or inline):
            return None
        access = backend.Access(registry=registry())
        exported = [spec for spec in request.cache_to if spec.type != "inline"]
        for spec in exported:
            _check(spec)
        return cls(
            store=store,
            emit=emit,
            cancel=cancel,
            imports=tuple(backend.importer(spec, access) for spec in request.cache_from),
            exports=tuple((spec, backend.exporter(spec, access)) for spec in exported),
            inline=inline,
        )

    def joined(self, env: SolveEnv, outputs: Sequence[OutputSpec]) -> SolveEnv:
        """A solve that uses the imports and whose results can be exported."""
        told = env.on_planned

        def on_planned(nodes: Nodes) -> None:
            self._plans.append(nodes)
            if told is not None:
                told(nodes)

        need_heads = any(spec.type != "cacheonly" for spec in outputs)
        self._remote = RemoteCaches(self._open) if self.imports else None
        return replace(env, remote=self._remote, need_heads=need_heads, on_planned=on_planned)

    def solved(self, definitions: Sequence[Definition], sources: Sources) -> None:
        """Told once the build has its results."""
        self._builds = tuple(
            Build(definition=definition, nodes=nodes, sources=sources, remote=self._remote)
            for definition in definitions
            for nodes in self._plans
            if definition.head is not None and definition.head.digest in nodes
        )

    def inline_texts(self, images: Sequence[BuiltImage]) -> tuple[str | None, ...]:
        """What goes into the configs of ``images``, in the order of the definitions (RCH-07)."""
        if not self.inline or len(self._builds) != len(images):
            return ()
        from builder.remotecache.inline import inline_cache

        with phase("preparing layers for inline cache", self.emit):
            return tuple(
                inline_cache(build, self.store, image)
                for build, image in zip(self._builds, images, strict=True)
            )

    def export(self, makers: Mapping[LayerOptions, LayerMaker], own: LayerOptions) -> dict[str, object]:
        """Write the caches; what is said about them in the build's metadata. Raises ExportError.

        ``own`` is how the image's layers are made.
        """
        if not self.exports:
            return {}
        found: list[Descriptor | None] = [None] * len(self.exports)
        failures: list[BaseException] = []
        with ExitStack() as stack:
            known = dict(makers)
            for spec, _ in self.exports:
                options = _layer_options(spec, own)
                if options not in known:
                    bases = next((maker.bases for maker in makers.values()), None)
                    maker = LayerMaker(self.store, options, self.cancel.check, bases)
                    known[options] = stack.enter_context(maker)

            def one(number: int) -> None:
                try:
                    found[number] = self._export(number, known[_layer_options(self.exports[number][0], own)])
                except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                    failures.append(error)

            threads = [threading.Thread(target=one, args=(number,)) for number in range(len(found))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        written = [descriptor for descriptor in found if descriptor is not None]
        return {"cache.manifest": written[0].to_json()} if written else {}

    # --- what comes in

    def _open(self) -> list[Imported]:
        """The documents of all imports, read at the same time."""
        found: list[list[Imported]] = [[] for _ in self.imports]

        def one(number: int) -> None:
            found[number] = self._load(self.imports[number])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cancel.check()
        return [item for items in found for item in items]

    def _load(self, importer: CacheImporter) -> list[Imported]:
        found: list[Imported] = []
        step = None
        try:
            with phase(f"importing cache manifest from {importer.label}", self.emit) as step:
                configs = importer.load(lambda text: step.status(text, done=True))
                found = [Imported(importer, KeyIndex(config), step.digest) for config in configs]
                if not found:
                    self._warn(f"there is no cache in {importer.label}", step.digest)
        except (PybuildError, OSError, ValueError, RecursionError) as error:
            text = error.message if isinstance(error, PybuildError) else str(error)
            self._warn(f"cannot import the cache of {importer.label}: {text}", step.digest if step else "")
        return found

    # --- what goes out

    def _export(self, number: int, maker: LayerMaker) -> Descriptor | None:
        spec, exporter = self.exports[number]
        with phase(exporter.name, self.emit, key=str(number)) as step:
            try:
                return self._written(spec, exporter, maker, step.digest)
            except Cancelled:
                raise
            except PybuildError as error:
                if spec.on("ignore-error"):
                    self._warn(f"{exporter.name} failed: {error.message}", step.digest)
                    return None
                raise

    def _written(
        self, spec: CacheSpec, exporter: CacheExporter, maker: LayerMaker, vertex: str
    ) -> Descriptor | None:
        steps = Steps(self.emit, vertex)
        previous = self._previous(spec, exporter)
        with steps.step("preparing build cache for export"):
            mounts = self._mounts(spec, vertex)
            config = merged(partial(self._collect, maker=maker, mode=spec.mode), previous, mounts)
        if config.is_empty:
            steps.done("skipping cache export for empty result")
            return None
        publishing = Publishing(
            exporter=exporter,
            load=partial(self._previous, spec, exporter),
            merge=lambda found: merged(partial(self._collect, maker=maker, mode=spec.mode), found, mounts),
            upload=partial(self._upload, exporter=exporter, steps=steps),
        )
        try:
            self._upload(config.blobs(), exporter, steps)
            with steps.step("sending cache export"):
                return publishing.run(config, previous, steps.done)
        except BlobMissing:
            # Somebody cleaned up, there or where an import is: what is here stands alone.
            config = merged(partial(self._collect, maker=maker, mode=spec.mode, here=True), (), mounts)
            self._upload(config.blobs(), exporter, steps)
        with steps.step("sending cache export"):
            return replace(publishing, load=tuple).run(config, (), steps.done)

    def _previous(self, spec: CacheSpec, exporter: CacheExporter) -> tuple[CacheConfig, ...]:
        if spec.on("reset") or not spec.on("merge", default=True):
            return ()
        try:
            return exporter.load(lambda _: None)
        except Cancelled:
            raise
        except (PybuildError, OSError, ValueError, RecursionError):
            return ()

    def _collect(self, builder: GraphBuilder, *, maker: LayerMaker, mode: str, here: bool = False) -> None:
        def layer_of(info: SnapshotInfo) -> tuple[DiffId, Descriptor]:
            layer = maker.layer(info.id)
            return layer.diff_id, layer.descriptor

        for build in self._builds:
            collect(builder, build, self.store, layer_of, mode=mode, here=here)

    def _upload(self, blobs: Iterable[Descriptor], exporter: CacheExporter, steps: Steps) -> None:
        origins = self._origins()

        def one(blob: Descriptor) -> None:
            self.cancel.check()
            name = f"writing layer {blob.digest}"
            if exporter.has(blob):
                steps.done(name)
                return
            with steps.step(name, blob.size) as moved:
                origin = origins.get(blob.digest)
                if origin is not None:
                    self._bring(origin, blob)
                exporter.put(blob, partial(self.store.blobs.open, blob.digest), moved)

        each(one, tuple(blobs), workers=exporter.workers, stop=Stop())

    def _bring(self, origin: CacheImporter, blob: Descriptor) -> None:
        try:
            bring(self.store, origin, (blob,), check=self.cancel.check)
        except Cancelled:
            raise
        except PybuildError as error:
            raise BlobMissing(f"blob {blob.digest} cannot be had from {origin.label}") from error

    def _origins(self) -> dict[Digest, CacheImporter]:
        """Where the layers are that no step had to have."""
        return {
            layer.digest: result.importer
            for build in self._builds
            for node in build.nodes.values()
            for result in node.remote or ()
            if isinstance(result, RemoteStack)
            for layer in result.stack
        }

    def _mounts(self, spec: CacheSpec, vertex: str) -> tuple[CacheMountBlob, ...]:
        if not spec.on("mounts"):
            return ()
        from builder.remotecache.mounts import pack_mounts

        ops = [
            node.vertex.op
            for build in self._builds
            for node in build.nodes.values()
            if isinstance(node.vertex.op, ExecOp)
        ]
        compression = spec.attr("compression", "gzip")
        return pack_mounts(
            self.store,
            ops,
            compression=compression,
            level=spec.level,
            warn=partial(self._warn, vertex=vertex),
        )

    def _warn(self, text: str, vertex: str) -> None:
        self.emit(WarningEvent(vertex=vertex, short=text))


def wants_inline(request: BuildRequest) -> bool:
    """Whether the image is to carry its cache (ARG-12)."""
    text = dict(request.build_args).get("BUILDKIT_INLINE_CACHE", "")
    if text and text.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise UsageError(f"invalid boolean value for BUILDKIT_INLINE_CACHE: {text[:80]}")
    return text.lower() in ("1", "t", "true") or any(spec.type == "inline" for spec in request.cache_to)


def check_places(request: BuildRequest) -> None:
    """What is wrong with imports and exports whatever the build does. Raises UsageError, ExportError."""
    access = backend.Access(registry=RegistryConfig())
    wants_inline(request)
    for spec in request.cache_from:
        backend.importer(spec, access)
    for spec in request.cache_to:
        if spec.type == "inline":
            continue
        _check(spec)
        backend.exporter(spec, access)
        if spec.type == "local" and not spec.on("ignore-error"):
            preflight.directory(spec.needed("dest"))


def _check(spec: CacheSpec) -> None:
    """Attributes that every place for exports has."""
    _ = spec.mode
    for name in ("ignore-error", "merge", "mounts", "reset", "force-compression"):
        spec.on(name)
    compression = spec.attr("compression", "gzip")
    if compression not in _COMPRESSIONS:
        raise UsageError(f"unsupported layer compression type {compression!r}", hint=", ".join(_COMPRESSIONS))
    limit = {"gzip": 9, "estargz": 9, "zstd": 22}.get(compression)
    if limit is not None and (spec.level or 0) > limit:
        raise UsageError(f"compression level of {compression} must be from 0 to {limit}")
    if compression in ("zstd", "estargz") and not spec.on("oci-mediatypes", default=True):
        raise UsageError(f'cache option "compression={compression}" conflicts with "oci-mediatypes=false"')


def _layer_options(spec: CacheSpec, own: LayerOptions) -> LayerOptions:
    """As the image's own layers where nothing else is asked for, so that they are made once."""
    return LayerOptions(
        compression=spec.attr("compression", "gzip"),
        level=spec.level,
        force=spec.on("force-compression"),
        clamp_s=own.clamp_s,
        buildkit=own.buildkit,
    )
