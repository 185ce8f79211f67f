"""Cache keys: the names of results across builds, and the parts they are made of.

A key is the digest of a step's own operation (``op_digest``) and of what its inputs are: the key of the step
that made them or, where only content counts (a build context), the digest of the content that the step
selects.
Nothing else enters: no time, host path, inode or machine. ``KEY_VERSION`` is part of every key; raise it when
the
meaning of any part changes. The rows are CKY-01…15; pure, and the only maker of key bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from builder.cache.names import KEY_VERSION as KEY_VERSION
from builder.llb.definition import encode_op
from builder.llb.ops import EMPTY, Copy, ExecOp, FileOp, Mount, Op
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.oci.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPart:
    """What one input contributes to a key.

    ``key`` is the input's own cache key, empty when ``content`` stands in for it. ``selector`` says which
    part of the input counts, as text.
    """

    key: str = ""
    content: str = ""
    selector: str = ""

    def to_json(self) -> dict[str, str]:
        """The hashed form."""
        return {
            name: value
            for name, value in (("key", self.key), ("content", self.content), ("selector", self.selector))
            if value
        }


def op_digest(op: Op, platform: Platform | None) -> tuple[str, dict[str, Any]]:
    """The digest of an operation without its inputs, and the data that it covers (kept to explain misses)."""
    match op:
        case ExecOp():
            body = _exec_body(op)
        case FileOp():
            body = _file_body(op)
        case _:
            body = encode_op(op)
    parts: dict[str, Any] = {"version": KEY_VERSION, "op": body}
    if platform is not None and isinstance(op, ExecOp):
        parts["platform"] = str(platform)
    return str(Digest.of(canonical_json(parts))), parts


def step_key(op: str, inputs: tuple[InputPart, ...], output: int = 0) -> str:
    """The key of one result of a step."""
    parts = [part.to_json() for part in inputs]
    body = {"version": KEY_VERSION, "step": op, "inputs": parts, "output": output}
    return str(Digest.of(canonical_json(body)))


def source_key(kind: str, identity: str) -> str:
    """The key of a source that something immutable names: a chain id, a commit, a content digest."""
    return str(Digest.of(canonical_json({"version": KEY_VERSION, "source": kind, "identity": identity})))


def _exec_body(op: ExecOp) -> dict[str, Any]:
    """Leaves out what must not decide: proxy values, extra-host addresses, limits, selectors."""
    meta = replace(
        op.meta,
        proxy_env=(),
        extra_hosts=tuple((host, "") for host, _ in op.meta.extra_hosts),
        cgroup_parent="",
    )
    mounts = tuple(_keyed_mount(mount) for mount in op.mounts)
    return encode_op(replace(op, meta=meta, mounts=mounts))


def _keyed_mount(mount: Mount) -> Mount:
    if mount.type == "cache":
        plain = mount.sharing == "shared" and mount.id.rstrip("/").endswith(mount.dest.rstrip("/"))
        if plain:
            return replace(mount, selector="", id="", sharing="shared")
        return replace(mount, selector="")
    return replace(mount, selector="")


def _file_body(op: FileOp) -> dict[str, Any]:
    """Copies name their source by its last element: moving it to another parent is not a miss (CKY-06)."""
    actions = []
    for item in op.actions:
        action = item.action
        if isinstance(action, Copy) and item.secondary != EMPTY and not action.required_paths:
            stripped = action.src.rstrip("/")
            action = replace(action, src=stripped.rpartition("/")[2])
        actions.append(replace(item, action=action))
    return encode_op(FileOp(actions=tuple(actions)))
