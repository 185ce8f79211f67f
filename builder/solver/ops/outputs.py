"""Mounts of a RUN step that are results of their own, and a root that is none (OPM-04, EXE-33, EXE-34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from builder.cache.store import Store
from builder.cache.types import Active
from builder.errors import GraphError
from builder.llb.ops import ExecOp
from builder.llb.ops import Mount as LlbMount
from builder.solver.ops.attribution import attribute
from runtime.spec import BindMount, ContainerSpec, Mount, OverlayMount


class ExtraOutputs:
    """The writable trees of the mounts below the root that have an output.

    Call ``prepare``, then ``commit`` or ``discard``; ``discard`` may follow a failed ``commit``.
    """

    def __init__(self, op: ExecOp, inputs: Mapping[int, str | None], store: Store, description: str) -> None:
        self._op = op
        self._inputs = inputs
        self._store = store
        self._description = description
        self._actives: dict[str, tuple[LlbMount, Active]] = {}

    def prepare(self) -> None:
        """Make the trees. Raises GraphError, StoreError."""
        for mount in self._op.mounts:
            if mount.dest == "/":
                if mount.selector.strip("/"):
                    raise GraphError(
                        "a part of an input cannot be the root of an exec op", code="unsupported-op"
                    )
            elif mount.output >= 0 and mount.type == "bind":
                parent = self._inputs.get(mount.input)
                active = self._store.snapshots.prepare(parent, description=self._description)
                self._actives[mount.dest] = (mount, active)

    def mounted(self, spec: ContainerSpec) -> ContainerSpec:
        """The container with these trees, and with a root that cannot be written if the op says so."""
        if any(mount.dest == "/" and mount.readonly for mount in self._op.mounts):
            spec = replace(spec, readonly_root=True)
        if not self._actives:
            return spec
        mounts = (
            _mount(*self._actives[mount.target]) if mount.target in self._actives else mount
            for mount in spec.mounts
        )
        return replace(spec, mounts=tuple(mounts))

    def commit(self, root: Active, root_mount: LlbMount) -> tuple[str | None, ...]:
        """The snapshot of every output by number. A root without output is dropped."""
        made: list[str | None] = [None] * self._op.outputs
        if root_mount.output >= 0:
            made[root_mount.output] = self._commit(root)
        else:
            self._store.snapshots.discard(root)
        while self._actives:
            dest, (mount, active) = next(iter(self._actives.items()))
            attribute(self._store, active, self._op.meta.user)
            made[mount.output] = self._commit(active)
            del self._actives[dest]
        return tuple(made)

    def discard(self) -> None:
        """Drop what was not committed."""
        for _, active in self._actives.values():
            self._store.snapshots.discard(active)
        self._actives.clear()

    def _commit(self, active: Active) -> str:
        return self._store.snapshots.commit(active, description=self._description).id


def _mount(mount: LlbMount, active: Active) -> Mount:
    subpath = mount.selector.strip("/")
    if active.driver == "overlay" and active.lowers:
        return OverlayMount(
            target=mount.dest,
            lowers=tuple(map(str, active.lowers)),
            upper=str(active.upper),
            work=str(active.work),
            subpath=subpath,
            userxattr=active.userxattr,
        )
    return BindMount(target=mount.dest, source=str(active.upper), subpath=subpath)
