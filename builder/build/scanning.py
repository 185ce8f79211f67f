"""Runs a scanner's image over what a build made, and reads the documents that it writes (ATT-10, ATT-11).

The scanner is a container like that of any step: it sees the trees read-only below ``/run/src`` and writes
below ``/run/out``. What it leaves there is not trusted: plain files only, bounded, opened within the result's
tree.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from builder.attest.request import SbomOptions
from builder.attest.spdx import SUFFIX, read_scan
from builder.attest.types import MAX_BYTES, Attestation
from builder.cache import keys
from builder.cache.store import Store
from builder.cache.tree import SourceTree, View
from builder.errors import SolveError
from builder.frontend.convert import ResolvedImage
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import EMPTY, Copy, ExecMeta, ExecOp, FileAction, FileOp, MkDir, Mount, SourceOp
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv, Sources
from builder.solver.reporter import Reporter
from builder.solver.solver import solve

OUT = "/run/out"
CORE = "/run/src/core/sbom"
EXTRAS = "/run/src/extras/"
_RESULT = "result://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A scanner's image, resolved for this machine."""

    name: str
    image: ResolvedImage
    options: SbomOptions
    network: bool = True
    anew: bool = False

    def __post_init__(self) -> None:
        if not self.image.config.cmd:
            raise SolveError(
                f"scanner {self.name} does not have cmd",
                code="scanner-without-cmd",
                hint="a scanner's image says with CMD what to run",
            )


def scan(
    scanner: Scanner,
    platform: Platform,
    core: str | None,
    extras: Sequence[tuple[str, str | None]],
    env: SolveEnv,
    finder: LayerFinder,
) -> tuple[Attestation, ...]:
    """The documents about the tree of snapshot ``core`` and those of ``extras``. Raises SolveError."""
    definition = _definition(scanner, platform, core, extras)
    result = solve(
        definition,
        replace(
            env,
            sources=_ScanSources(env.sources),
            remote=None,
            on_planned=None,
            on_snapshot=None,
            direct=None,
        ),
    )
    return read_scan(_written(env.store, result.snapshot, scanner.name), finder.find)


def _definition(
    scanner: Scanner, platform: Platform, core: str | None, extras: Sequence[tuple[str, str | None]]
) -> Definition:
    image, config = scanner.image, scanner.image.config
    own = image.platform
    pinned = f"{image.ref.partition('@')[0]}@{image.digest}"
    base = Vertex(op=SourceOp(identifier=f"docker-image://{pinned}"), platform=own)
    place = MkDir(path=OUT, mode=0o777, make_parents=True, timestamp_ns=0)
    prepared = Vertex(
        op=FileOp(actions=(FileAction(action=place, input=0, output=0),)),
        inputs=(Edge(base.digest),),
        platform=own,
        meta=VertexMeta(name=f"[internal] prepare scanner {scanner.name}"),
    )
    vertices = [base, prepared]
    inputs = [Edge(prepared.digest)]
    mounts = [Mount(dest="/", input=0, output=0), Mount(dest="/tmp", type="tmpfs")]
    trees = [(CORE, core), *((f"{EXTRAS}sbom-{name}", snapshot) for name, snapshot in extras)]
    for dest, snapshot in trees:
        position = EMPTY
        if snapshot is not None:
            source = Vertex(
                op=SourceOp(identifier=_RESULT + snapshot),
                platform=platform,
                meta=VertexMeta(name=f"[internal] load {posixpath.basename(dest)} for scanner"),
            )
            if Edge(source.digest) not in inputs:
                vertices.append(source)
                inputs.append(Edge(source.digest))
            position = inputs.index(Edge(source.digest))
        mounts.append(Mount(dest=dest, input=position, readonly=True))
    variables = [f"BUILDKIT_SCAN_{key}={value}" for key, value in scanner.options.params]
    variables += [f"BUILDKIT_SCAN_DESTINATION={OUT}", f"BUILDKIT_SCAN_SOURCE={CORE}"]
    variables += [f"BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"] if extras else []
    op = ExecOp(
        meta=ExecMeta(
            args=(*(config.entrypoint or ()), *(config.cmd or ())),
            env=(*config.env, *variables),
            cwd=config.workdir or "/",
            user=config.user,
        ),
        mounts=tuple(mounts),
        network="sandbox" if scanner.network else "none",
    )
    name = f"[{platform}] generating sbom using {scanner.name}"
    run = Vertex(
        op=op,
        inputs=tuple(inputs),
        platform=own,
        meta=VertexMeta(name=name, ignore_cache=scanner.anew),
    )
    return Definition(vertices=(*vertices, run), head=Edge(run.digest))


@dataclass(slots=True)
class _ScanSources:
    """The sources of a build, and its results as sources."""

    under: Sources

    def tree(self, op: SourceOp) -> SourceTree | None:
        return None if op.identifier.startswith(_RESULT) else self.under.tree(op)

    def select(
        self, op: SourceOp, copies: tuple[Copy, ...], on_read: Callable[[int], None] | None = None
    ) -> str:
        return self.under.select(op, copies, on_read)

    def changed(self, op: SourceOp) -> tuple[str, ...]:
        return self.under.changed(op)

    def key(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> str:
        if op.identifier.startswith(_RESULT):
            return keys.source_key("result", op.identifier.removeprefix(_RESULT))  # ids are never used again
        return self.under.key(op, platform, reporter)

    def pin(self, op: SourceOp) -> str:
        return "" if op.identifier.startswith(_RESULT) else self.under.pin(op)

    def base_digests(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> tuple[str, ...]:
        return () if op.identifier.startswith(_RESULT) else self.under.base_digests(op, platform, reporter)

    def fetch(
        self,
        op: SourceOp,
        platform: Platform | None,
        reporter: Reporter,
        cancel: Cancel,
        *,
        lazy: bool = False,
    ) -> str | None:
        if op.identifier.startswith(_RESULT):
            return op.identifier.removeprefix(_RESULT)
        return self.under.fetch(op, platform, reporter, cancel, lazy=lazy)


def _written(store: Store, snapshot: str | None, name: str) -> list[tuple[str, bytes]]:
    """The documents in a scanner's result, sorted by name."""
    found: list[tuple[str, bytes]] = []
    left = MAX_BYTES
    with View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr) as view:
        place = view.resolve(OUT.lstrip("/"))
        for entry, st in view.scandir(place):
            if not entry.endswith(SUFFIX):
                continue
            path = f"{place}/{entry}"
            if not stat.S_ISREG(st.st_mode):
                raise SolveError(f"scanner {name}: {entry} is not a regular file", code="scanner-output")
            if st.st_size > left:
                raise SolveError(
                    f"scanner {name}: its documents are larger than the limit of {MAX_BYTES} bytes",
                    code="scanner-output",
                )
            data = view.read(path, left)
            left -= len(data)
            found.append((entry, data))
    if not found:
        raise SolveError(
            f"scanner {name} wrote no *{SUFFIX}",
            code="scanner-output",
            hint="it has to write to the directory that BUILDKIT_SCAN_DESTINATION names",
        )
    return found


class LayerFinder:
    """Finds the layer of an image that brought a file (ATT-11)."""

    def __init__(self, store: Store, snapshot: str | None) -> None:
        self._store = store
        self._snapshot = snapshot

    def find(self, path: str, layers: Sequence[Descriptor]) -> Digest | None:
        """The topmost of ``layers`` (lowest first) that has ``path`` as its own; None = none."""
        if self._snapshot is None:
            return None
        snapshots = self._store.snapshots
        infos = tuple(reversed(snapshots.chain(self._snapshot)))
        if len(infos) != len(layers):
            return None
        path = posixpath.normpath(f"/{path}").lstrip("/")
        for info, layer in zip(reversed(infos), reversed(layers), strict=True):
            own, lowers = snapshots.diff_dir(info.id)
            with View((own,), userxattr=snapshots.userxattr) as view:
                after = view.lstat(path)
            if after is None:
                continue
            if info.driver == "overlay":
                return layer.digest
            with View(lowers) as below:  # every snapshot holds the whole tree
                before = below.lstat(path)
            if before is None or (before.st_size, before.st_mtime_ns, before.st_mode) != (
                after.st_size, after.st_mtime_ns, after.st_mode,
            ):  # fmt: skip
                return layer.digest
        return None
