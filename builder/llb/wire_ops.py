"""``Op`` messages as the values of ``llb.ops``, checked (OPM-01…12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

from builder.errors import GraphError
from builder.llb import wire_schema as schema
from builder.llb.definition import check_op
from builder.llb.ops import (
    EMPTY,
    REQUIRED,
    Action,
    BuildOp,
    ChownOpt,
    Copy,
    DiffOp,
    ExecMeta,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    MkDir,
    MkFile,
    Mount,
    Op,
    PassthroughOp,
    Rm,
    SecretEnv,
    SourceOp,
    Symlink,
    Ulimit,
    UserOpt,
)
from builder.llb.wire_encode import PROXIES

_ULIMITS = frozenset(
    {
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
        *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    }
)


def read_op(message: Any) -> Op:
    """The operation of an ``Op`` message. Raises GraphError."""
    kind = message.WhichOneof("op")
    if kind is None:
        raise GraphError("invalid op of a kind that is not known", hint="it was made for a newer builder")
    part = getattr(message, kind)
    if kind in ("source", "merge", "build") and not part.ByteSize():
        raise GraphError(f"invalid nil {kind} op")
    op: Op = _READERS[kind](part)
    check_op(op, len(message.inputs))
    _check_outputs(op)
    return op


def _check_outputs(op: Op) -> None:
    """Results are numbered from 0 without a gap, and no two are the same or in the same place."""
    match op:
        case ExecOp():
            kept = [mount for mount in op.mounts if mount.output != EMPTY]
            found = [mount.output for mount in kept]
            if len({mount.dest for mount in kept}) != len(kept):
                raise GraphError("invalid exec op with two results at one destination")
        case FileOp():
            found = [item.output for item in op.actions if item.output != EMPTY]
        case _:
            return
    for place, number in enumerate(sorted(found)):
        if place != number:
            raise GraphError(f"invalid output {number}: results are numbered from 0, each once")


def _text(value: str) -> str:
    if "\0" in value:
        raise GraphError(f"invalid text with a NUL character: {value[:100]!a}")
    return value


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _pairs(values: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((_text(key), _text(value)) for key, value in values.items()))


def _choice(names: tuple[str, ...], number: int, what: str) -> Any:
    if not 0 <= number < len(names):
        raise GraphError(f"invalid {what} {number}", hint="it was made for a newer builder")
    return names[number]


def _source(source: Any) -> Op:
    if "://" not in source.identifier:
        raise GraphError(f"failed to parse source {_text(source.identifier)[:200]!r}: no scheme")
    return SourceOp(identifier=_text(source.identifier), attrs=_pairs(source.attrs))


# --- commands


def _exec(message: Any) -> Op:
    if not message.HasField("meta"):
        raise GraphError("invalid exec op with no meta")
    return ExecOp(
        meta=_meta(message.meta),
        mounts=tuple(map(_mount, message.mounts)),
        network=_choice(schema.NETWORKS, message.network, "network mode"),
        security=_choice(schema.SECURITY, message.security, "security mode"),
        secret_env=tuple(
            SecretEnv(id=_text(item.ID), name=_env_name(item.name), optional=item.optional)
            for item in message.secretenv
        ),
        devices=tuple(_text(item.name) + ("" if item.optional else REQUIRED) for item in message.cdiDevices),
    )


def _env_name(name: str) -> str:
    if not name or "=" in name:
        raise GraphError(f"invalid name of an environment variable: {name[:100]!r}")
    return _text(name)


def _meta(meta: Any) -> ExecMeta:
    proxies = [(name, _text(getattr(meta.proxy_env, name))) for name in PROXIES]
    return ExecMeta(
        args=_texts(meta.args),
        env=_texts(meta.env),
        cwd=_text(meta.cwd),
        user=_text(meta.user),
        proxy_env=tuple(pair for key, text in proxies if text for pair in ((key.upper(), text), (key, text))),
        extra_hosts=tuple((_text(item.Host), _text(item.IP)) for item in meta.extraHosts),
        hostname=_text(meta.hostname),
        ulimits=tuple(
            Ulimit(name=_ulimit(item.Name), soft=item.Soft, hard=item.Hard) for item in meta.ulimit
        ),
        cgroup_parent=_group(meta.cgroupParent),
        valid_exit_codes=tuple(meta.validExitCodes) or (0,),
        remove_mount_stubs_recursive=meta.removeMountStubsRecursive,
    )


def _ulimit(name: str) -> str:
    if name not in _ULIMITS:
        raise GraphError(f"invalid ulimit type: {name[:100]!a}")
    return name


def _group(path: str) -> str:
    if any(part in (".", "..") for part in path.split("/")):
        raise GraphError(f"invalid parent of a cgroup: {path[:100]!a}")
    return _text(path)


def _mount(mount: Any) -> Mount:
    kind = cast(
        "Literal['bind', 'cache', 'tmpfs', 'secret', 'ssh']",
        _choice(schema.MOUNT_TYPES, mount.mountType, "mount type"),
    )
    if not mount.dest:
        raise GraphError("invalid mount with no destination")
    option = {"secret": mount.secretOpt, "ssh": mount.SSHOpt}.get(kind)
    name = option.ID if option is not None else mount.cacheOpt.ID if kind == "cache" else ""
    size = mount.TmpfsOpt.size if kind == "tmpfs" else 0
    if size < 0:
        raise GraphError(f"invalid tmpfs size {size}")
    return Mount(
        dest=_text(mount.dest),
        type=kind,
        input=mount.input,
        selector=_text(mount.selector),
        output=mount.output,
        readonly=mount.readonly,
        id=_text(name),
        sharing=_choice(schema.SHARING, mount.cacheOpt.sharing if kind == "cache" else 0, "cache sharing"),
        size_bytes=size,
        uid=option.uid if option is not None else 0,
        gid=option.gid if option is not None else 0,
        mode=option.mode if option is not None else 0,
        optional=option.optional if option is not None else False,
        result_id=_text(mount.resultID),
        content_cache=_choice(schema.CONTENT_CACHE, mount.contentCache, "mount cache content"),
    )


# --- files


def _file(message: Any) -> Op:
    return FileOp(actions=tuple(map(_action, message.actions)))


def _action(message: Any) -> FileAction:
    kind = message.WhichOneof("action")
    if kind is None:
        raise GraphError("invalid file action of a kind that is not known")
    return FileAction(
        action=_ACTIONS[kind](getattr(message, kind)),
        input=message.input,
        secondary=message.secondaryInput,
        output=message.output,
    )


def _copy(copy: Any) -> Action:
    return Copy(
        src=_text(copy.src),
        dest=_text(copy.dest),
        owner=_owner(copy),
        mode=copy.mode,
        mode_str=_text(copy.modeStr),
        follow_symlink=copy.followSymlink,
        dir_contents=copy.dirCopyContents,
        attempt_unpack=copy.attemptUnpackDockerCompatibility,
        create_dest_path=copy.createDestPath,
        allow_wildcard=copy.allowWildcard,
        allow_empty_wildcard=copy.allowEmptyWildcard,
        timestamp_ns=copy.timestamp,
        include_patterns=_texts(copy.include_patterns),
        exclude_patterns=_texts(copy.exclude_patterns),
        always_replace=copy.alwaysReplaceExistingDestPaths,
        required_paths=_texts(copy.required_paths),
    )


def _mkfile(item: Any) -> Action:
    return MkFile(
        path=_text(item.path),
        data=item.data,
        mode=item.mode,
        owner=_owner(item),
        timestamp_ns=item.timestamp,
    )


def _mkdir(item: Any) -> Action:
    return MkDir(
        path=_text(item.path),
        mode=item.mode,
        make_parents=item.makeParents,
        owner=_owner(item),
        timestamp_ns=item.timestamp,
    )


def _rm(item: Any) -> Action:
    return Rm(path=_text(item.path), allow_not_found=item.allowNotFound, allow_wildcard=item.allowWildcard)


def _symlink(item: Any) -> Action:
    return Symlink(
        old_path=_text(item.oldpath),
        new_path=_text(item.newpath),
        owner=_owner(item),
        timestamp_ns=item.timestamp,
    )


def _owner(item: Any) -> ChownOpt | None:
    if not item.HasField("owner"):
        return None
    return ChownOpt(user=_user(item.owner, "user"), group=_user(item.owner, "group"))


def _user(owner: Any, field: str) -> UserOpt | None:
    who = getattr(owner, field)
    match who.WhichOneof("user"):
        case "byName":
            if not who.byName.name:
                raise GraphError(f"invalid owner: a {field} with an empty name")
            return UserOpt(name=_text(who.byName.name), input=who.byName.input)
        case "byID":
            return UserOpt(id=who.byID)
        case _:
            return None


# --- trees


def _merge(message: Any) -> Op:
    return MergeOp(inputs=tuple(item.input for item in message.inputs))


def _diff(message: Any) -> Op:
    if not message.HasField("lower") or not message.HasField("upper"):
        raise GraphError("invalid diff op with nil lower or upper input")
    return DiffOp(lower=message.lower.input, upper=message.upper.input)


def _build(message: Any) -> Op:
    nested = getattr(message, "def")
    return BuildOp(
        builder=message.builder,
        inputs=tuple(sorted((_text(name), item.input) for name, item in message.inputs.items())),
        definition=nested.SerializeToString(deterministic=True),
        attrs=_pairs(message.attrs),
    )


def _passthrough(message: Any) -> Op:
    return PassthroughOp(id=_text(message.id), outputs=tuple(message.outputs))


_READERS: dict[str, Any] = {
    "exec": _exec,
    "source": _source,
    "file": _file,
    "build": _build,
    "merge": _merge,
    "diff": _diff,
    "passthrough": _passthrough,
}
_ACTIONS: dict[str, Any] = {
    "copy": _copy,
    "mkfile": _mkfile,
    "mkdir": _mkdir,
    "rm": _rm,
    "symlink": _symlink,
}
