"""Operations back from the JSON-ready data that ``definition.encode_op`` makes of them."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from builder.errors import GraphError
from builder.llb import ops

_OPS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        ops.SourceOp,
        ops.ExecOp,
        ops.FileOp,
        ops.MergeOp,
        ops.DiffOp,
        ops.BuildOp,
        ops.PassthroughOp,
    )
}
_ACTIONS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ops.Copy, ops.MkFile, ops.MkDir, ops.Rm, ops.Symlink)
}
_NESTED: dict[tuple[str, str], type[Any]] = {
    ("ExecOp", "meta"): ops.ExecMeta,
    ("ExecOp", "mounts"): ops.Mount,
    ("ExecOp", "secret_env"): ops.SecretEnv,
    ("ExecMeta", "ulimits"): ops.Ulimit,
    ("FileOp", "actions"): ops.FileAction,
    ("ChownOpt", "user"): ops.UserOpt,
    ("ChownOpt", "group"): ops.UserOpt,
    **{(action, "owner"): ops.ChownOpt for action in ("Copy", "MkFile", "MkDir", "Symlink")},
}


def decode_op(value: dict[str, Any]) -> ops.Op:
    """The operation that ``encode_op`` made ``value`` from. Raises GraphError."""
    try:
        ((kind, body),) = value.items()
        op: ops.Op = _build(_OPS[kind], body)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GraphError(f"not an operation in JSON form: {error}") from error
    return op


def _build(kind: type[Any], value: dict[str, Any]) -> Any:
    known = {field.name: field for field in fields(kind)}
    arguments = {name: _decode(kind.__name__, name, item) for name, item in value.items() if name in known}
    lacking = [
        name
        for name, field in known.items()
        if name not in arguments and field.default is MISSING and field.default_factory is MISSING
    ]
    if lacking or len(arguments) != len(value):
        raise GraphError(f"{kind.__name__}: missing {lacking} or unknown fields in {sorted(value)}")
    return kind(**arguments)


def _decode(owner: str, name: str, item: Any) -> Any:
    if name == "action":
        ((kind, value),) = item.items()
        return _build(_ACTIONS[kind], value)
    nested = _NESTED.get((owner, name))
    if nested is not None and is_dataclass(nested):
        return (
            tuple(_build(nested, part) for part in item) if isinstance(item, list) else _build(nested, item)
        )
    if isinstance(item, dict) and set(item) == {"hex"}:
        return bytes.fromhex(item["hex"])
    if isinstance(item, list):
        return tuple(tuple(part) if isinstance(part, list) else part for part in item)
    return item
