"""The JSON that BuildKit makes the base digests of operations from (CKY-02, CKY-03, CKY-06): members in the
order of its messages, zero values left out, bytes in base64, enumerations as numbers. Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from builder.llb.ops import (
    EMPTY,
    REQUIRED,
    ChownOpt,
    Copy,
    ExecOp,
    FileAction,
    FileOp,
    MkDir,
    MkFile,
    Mount,
    Rm,
    SecretEnv,
    Symlink,
    UserOpt,
)
from builder.oci.platform import Platform, host_platform

_MOUNT_TYPES = {"bind": 0, "secret": 1, "ssh": 2, "cache": 3, "tmpfs": 4}
_SHARING = {"shared": 0, "private": 1, "locked": 2}
_NETWORKS = {"sandbox": 0, "host": 1, "none": 2}
_CONTENT_CACHE = {"default": 0, "on": 1, "off": 2}
Json = dict[str, Any]


# --- exec


def exec_json(op: ExecOp, platform: Platform | None) -> Json:
    """A command without what must not decide: addresses of hosts, proxies, selectors, names of caches."""
    mounts = [] if _is_plain(op.mounts) else [_mount_json(mount) for mount in op.mounts]
    body = _present(
        meta=_meta_json(op),
        mounts=mounts,
        network=_NETWORKS[op.network],
        security=1 if op.security == "insecure" else 0,
        secretenv=[_secret_env_json(item) for item in op.secret_env],
        cdiDevices=[
            _present(name=name.removesuffix(REQUIRED), optional=not name.endswith(REQUIRED))
            for name in op.devices
        ],
    )
    return {"Type": "buildkit.exec.v0", "Exec": body, **platform_json(platform)}


def platform_json(platform: Platform | None) -> Json:
    """The platform's members; None is this machine's."""
    found = platform or host_platform()
    more = _present(Variant=found.variant, OSVersion=found.os_version, OSFeatures=list(found.os_features))
    return {"OS": found.os, "Arch": found.architecture, **more}


def _meta_json(op: ExecOp) -> Json:
    meta = op.meta
    codes = list(meta.valid_exit_codes)
    return _present(
        args=list(meta.args),
        env=list(meta.env),
        cwd=meta.cwd,
        user=meta.user,
        extraHosts=[{"Host": host} for host, _ in meta.extra_hosts],
        hostname=meta.hostname,
        ulimit=[_present(Name=item.name, Soft=item.soft, Hard=item.hard) for item in meta.ulimits],
        cgroupParent=meta.cgroup_parent,
        removeMountStubsRecursive=meta.remove_mount_stubs_recursive,
        validExitCodes=[] if codes == [0] else codes,
    )


def _is_plain(mounts: Sequence[Mount]) -> bool:
    """A single read-write root counts as no mounts at all (CKY-03)."""
    if len(mounts) != 1:
        return False
    (root,) = mounts
    return root.dest == "/" and root.type == "bind" and not root.readonly and not root.result_id


def _mount_json(mount: Mount) -> Json:
    body = _present(
        input=mount.input,
        dest=mount.dest,
        output=mount.output,
        readonly=mount.readonly,
        mountType=_MOUNT_TYPES[mount.type],
    )
    match mount.type:
        case "tmpfs":
            body["TmpfsOpt"] = _present(size=mount.size_bytes)
        case "cache":
            body["cacheOpt"] = _cache_json(mount)
        case "secret":
            body["secretOpt"] = _secret_json(mount)
        case "ssh":
            body["SSHOpt"] = _secret_json(mount)
        case "bind":
            pass
    return {**body, **_present(resultID=mount.result_id, contentCache=_CONTENT_CACHE[mount.content_cache])}


def _cache_json(mount: Mount) -> Json:
    """An id that is just the target (below a namespace or not) stays, any other is left out (CKY-02)."""
    name = mount.id or mount.dest
    default = mount.dest in (name, name.partition("/")[2]) and mount.sharing == "shared"
    return _present(ID=name, sharing=_SHARING[mount.sharing]) if default else {}


def _secret_json(mount: Mount) -> Json:
    return _present(ID=mount.id, uid=mount.uid, gid=mount.gid, mode=mount.mode, optional=mount.optional)


def _secret_env_json(item: SecretEnv) -> Json:
    return _present(ID=item.id, name=item.name, optional=item.optional)


# --- file


def file_json(op: FileOp, inputs: int) -> Json:
    """File actions; a copy from an input names its source by the last element."""
    full = _kept_sources(op, inputs)
    actions = [
        base64.b64encode(go_json(_action_json(item, whole_source=number in full))).decode("ascii")
        for number, item in enumerate(op.actions)
    ]
    indexes = [[item.input, item.secondary, item.output] for item in op.actions]
    body: Json = {"Type": "buildkit.file.v0", "Actions": actions}
    return body if _is_default_chain(indexes) else {**body, "indexes": indexes}


def _is_default_chain(indexes: Sequence[Sequence[int]]) -> bool:
    """Each action continues the one before, starting from input 0; the last one is the result (CKY-06)."""
    count = len(indexes)
    return count > 0 and all(
        first == (0 if number == 0 else count + number - 1)
        and second in (EMPTY, 1)
        and output == (0 if number == count - 1 else EMPTY)
        for number, (first, second, output) in enumerate(indexes)
    )


def _kept_sources(op: FileOp, inputs: int) -> set[int]:
    """The actions whose source keeps its whole path: one from inside the operation, one with a pivot, and
    those that could not be told apart by their last elements and sorted selectors.
    """
    kept: set[int] = set()
    sources: dict[str, str] = {}
    clashing: set[str] = set()
    for number, item in enumerate(op.actions):
        if not isinstance(item.action, Copy):
            continue
        if not 0 <= item.secondary < inputs or item.action.required_paths:
            kept.add(number)
        name = _last_element(item.action.src)
        if sources.setdefault(name, item.action.src) != item.action.src:
            clashing.add(name)
    for number, item in enumerate(op.actions):
        if isinstance(item.action, Copy) and _last_element(item.action.src) in clashing:
            kept.add(number)
    return kept


def _action_json(item: FileAction, *, whole_source: bool) -> Json:
    match item.action:
        case Copy() as copy:
            return _copy_json(copy, copy.src if whole_source else _last_element(copy.src))
        case MkFile() as file:
            data = base64.b64encode(file.data).decode("ascii")
            return _present(
                path=file.path,
                mode=file.mode,
                data=data,
                owner=_owner_json(file.owner),
                timestamp=file.timestamp_ns,
            )
        case MkDir() as directory:
            return _present(
                path=directory.path,
                mode=directory.mode,
                makeParents=directory.make_parents,
                owner=_owner_json(directory.owner),
                timestamp=directory.timestamp_ns,
            )
        case Rm() as rm:
            return _present(path=rm.path, allowNotFound=rm.allow_not_found, allowWildcard=rm.allow_wildcard)
        case Symlink() as link:
            return _present(
                oldpath=link.old_path,
                newpath=link.new_path,
                owner=_owner_json(link.owner),
                timestamp=link.timestamp_ns,
            )


def _copy_json(copy: Copy, src: str) -> Json:
    return _present(
        src=src,
        dest=copy.dest,
        owner=_owner_json(copy.owner),
        mode=copy.mode,
        followSymlink=copy.follow_symlink,
        dirCopyContents=copy.dir_contents,
        attemptUnpackDockerCompatibility=copy.attempt_unpack,
        createDestPath=copy.create_dest_path,
        allowWildcard=copy.allow_wildcard,
        allowEmptyWildcard=copy.allow_empty_wildcard,
        timestamp=copy.timestamp_ns,
        include_patterns=list(copy.include_patterns),
        exclude_patterns=list(copy.exclude_patterns),
        alwaysReplaceExistingDestPaths=copy.always_replace,
        modeStr=copy.mode_str,
        required_paths=list(copy.required_paths),
    )


def _owner_json(owner: ChownOpt | None) -> Json | None:
    if owner is None:
        return None
    found: Json = {}
    for name, value in (("user", owner.user), ("group", owner.group)):
        if value is not None:
            found[name] = {"User": _user_json(value)}
    return found


def _user_json(user: UserOpt) -> Json:
    if user.name:
        return {"byName": _present(name=user.name, input=user.input)}
    return _present(byId=user.id)


def _last_element(path: str) -> str:
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


# --- JSON as the reference writes it


def _present(**members: Any) -> Json:
    """The members that are not zero, in the order given."""
    return {name: value for name, value in members.items() if value not in (None, "", 0, False, [])}


def go_json(value: Json) -> bytes:
    """Compact, in the order given, with ``<``, ``>``, ``&``, two line separators and stray bytes escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "backslashreplace")
