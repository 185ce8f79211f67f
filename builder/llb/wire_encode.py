"""A definition as BuildKit's protobuf ``Definition``: equal graphs have equal bytes (DIG-01…07)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from builder.errors import GraphError
from builder.llb import wire_caps
from builder.llb import wire_schema as schema
from builder.llb.definition import Definition, Edge, Vertex
from builder.llb.ops import (
    REQUIRED,
    Action,
    BuildOp,
    ChownOpt,
    Copy,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    MkDir,
    MkFile,
    Mount,
    PassthroughOp,
    Rm,
    SourceOp,
    Symlink,
    UserOpt,
)
from builder.oci.digest import Digest
from builder.oci.platform import Platform

NAME_KEY = "llb.customname"
COMMAND_KEY = "com.docker.dockerfile.v1.command"
LANGUAGE = "Dockerfile"

Digests = dict[Digest, str]
"""By a vertex's own digest: its digest in wire form."""

_PLATFORMLESS = (FileOp, MergeOp, DiffOp, PassthroughOp)
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def encode(definition: Definition, files: Mapping[str, bytes] | None = None) -> bytes:
    """The definition's wire form, empty for the empty tree; ``files`` are the texts that vertices come from.

    Raises GraphError for text that is not UTF-8, which the wire form cannot hold.
    """
    out = schema.messages()["Definition"]()
    if definition.head is None:
        return b""
    digests: Digests = {}
    for vertex in definition.vertices:
        digest = _add_op(out, op_message(vertex, digests))
        digests[vertex.digest] = digest
        with _texts(vertex):
            _add_metadata(out.metadata[digest], vertex)
    head = schema.messages()["Op"]()
    _add_edge(head, definition.head, digests)
    digest = _add_op(out, head)
    for name in wire_caps.SENTINEL:
        out.metadata[digest].caps[name] = True
    _add_sources(out.Source, definition, digests, files or {})
    return _bytes(out)


def wire_digests(definition: Definition) -> Digests:
    """The digest that every vertex has in wire form (DIG-02)."""
    digests: Digests = {}
    for vertex in definition.vertices:
        digests[vertex.digest] = str(Digest.of(_bytes(op_message(vertex, digests))))
    return digests


def op_message(vertex: Vertex, digests: Digests) -> Any:
    """A vertex as an ``Op``; ``digests`` must have its inputs. Raises GraphError."""
    out = schema.messages()["Op"]()
    with _texts(vertex):
        for edge in vertex.inputs:
            _add_edge(out, edge, digests)
        _fill_op(out, vertex)
        if vertex.platform is not None and not isinstance(vertex.op, _PLATFORMLESS):
            _fill_platform(out.platform, vertex.platform)
        if vertex.constraints:
            out.constraints.filter.extend(vertex.constraints)
    return out


def metadata_message(vertex: Vertex) -> Any:
    """What is said of a vertex as an ``OpMetadata``. Raises GraphError."""
    out = schema.messages()["OpMetadata"]()
    with _texts(vertex):
        _add_metadata(out, vertex)
    return out


class _texts:  # noqa: N801 - reads as a statement
    """What protobuf refuses inside is a fault of the definition's texts or numbers."""

    def __init__(self, vertex: Vertex) -> None:
        self._vertex = vertex

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UnicodeError):
            raise GraphError(
                f"{self._vertex.name[:200]!a}: text that is not UTF-8 cannot be written to an LLB definition"
            ) from error
        if isinstance(error, ValueError):
            raise GraphError(f"{self._vertex.name[:200]!a}: {error}") from error


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _add_op(out: Any, op: Any) -> str:
    data = _bytes(op)
    getattr(out, "def").append(data)
    return str(Digest.of(data))


def _add_edge(op: Any, edge: Edge, digests: Digests) -> None:
    op.inputs.add(digest=digests[edge.digest], index=edge.index)


def _fill_platform(out: Any, platform: Platform) -> None:
    out.Architecture = platform.architecture
    out.OS = platform.os
    out.Variant = platform.variant
    out.OSVersion = platform.os_version
    out.OSFeatures.extend(platform.os_features)


# --- operations


def _fill_op(out: Any, vertex: Vertex) -> None:
    op = vertex.op
    match op:
        case SourceOp():
            out.source.identifier = op.identifier
            for key, value in op.attrs:
                out.source.attrs[key] = value
        case ExecOp():
            _fill_exec(out.exec, op)
        case FileOp():
            for item in op.actions:
                _fill_action(out.file.actions.add(), item)
        case MergeOp():
            out.merge.SetInParent()
            for position in op.inputs:
                out.merge.inputs.add(input=position)
        case DiffOp():
            out.diff.lower.input = op.lower
            out.diff.upper.input = op.upper
            out.diff.lower.SetInParent()
            out.diff.upper.SetInParent()
        case BuildOp():
            out.build.builder = op.builder
            for key, position in op.inputs:
                out.build.inputs[key].input = position
            if op.definition:
                getattr(out.build, "def").ParseFromString(op.definition)
            for key, value in op.attrs:
                out.build.attrs[key] = value
        case PassthroughOp():
            out.passthrough.id = op.id
            out.passthrough.outputs.extend(op.outputs)
        case _:
            assert_never(op)


def _fill_exec(out: Any, op: ExecOp) -> None:
    _fill_meta(out.meta, op)
    for mount in op.mounts:
        _fill_mount(out.mounts.add(), mount)
    out.network = schema.NETWORKS.index(op.network)
    out.security = schema.SECURITY.index(op.security)
    for secret in op.secret_env:
        out.secretenv.add(ID=secret.id, name=secret.name, optional=secret.optional)
    for device in op.devices:
        out.cdiDevices.add(name=device.removesuffix(REQUIRED), optional=not device.endswith(REQUIRED))


def _fill_meta(out: Any, op: ExecOp) -> None:
    meta = op.meta
    out.args.extend(meta.args)
    out.env.extend(meta.env)
    out.cwd = meta.cwd
    out.user = meta.user
    proxies = {key.lower(): value for key, value in meta.proxy_env}
    for name in PROXIES:
        if proxies.get(name):
            setattr(out.proxy_env, name, proxies[name])
    for host, address in meta.extra_hosts:
        out.extraHosts.add(Host=host, IP=address)
    out.hostname = meta.hostname
    for limit in meta.ulimits:
        out.ulimit.add(Name=limit.name, Soft=limit.soft, Hard=limit.hard)
    out.cgroupParent = meta.cgroup_parent
    out.removeMountStubsRecursive = meta.remove_mount_stubs_recursive
    if meta.valid_exit_codes != (0,):
        out.validExitCodes.extend(meta.valid_exit_codes)


def _fill_mount(out: Any, mount: Mount) -> None:
    out.input = mount.input
    out.selector = mount.selector
    out.dest = mount.dest
    out.output = mount.output
    out.readonly = mount.readonly
    out.mountType = schema.MOUNT_TYPES.index(mount.type)
    out.resultID = mount.result_id
    out.contentCache = schema.CONTENT_CACHE.index(mount.content_cache)
    match mount.type:
        case "tmpfs":
            out.TmpfsOpt.SetInParent()
            out.TmpfsOpt.size = mount.size_bytes
        case "cache":
            out.cacheOpt.SetInParent()
            out.cacheOpt.ID = mount.id
            out.cacheOpt.sharing = schema.SHARING.index(mount.sharing)
        case "secret" | "ssh":
            option = out.secretOpt if mount.type == "secret" else out.SSHOpt
            option.SetInParent()
            option.ID = mount.id
            option.uid, option.gid, option.mode = mount.uid, mount.gid, mount.mode
            option.optional = mount.optional
        case "bind":
            pass


def _fill_action(out: Any, item: FileAction) -> None:
    out.input = item.input
    out.secondaryInput = item.secondary
    out.output = item.output
    action: Action = item.action
    match action:
        case Copy():
            _fill_copy(out.copy, action)
        case MkFile():
            out.mkfile.path, out.mkfile.mode = action.path, action.mode
            out.mkfile.data = action.data
            _fill_owner(out.mkfile, action.owner)
            out.mkfile.timestamp = action.timestamp_ns
        case MkDir():
            out.mkdir.path, out.mkdir.mode = action.path, action.mode
            out.mkdir.makeParents = action.make_parents
            _fill_owner(out.mkdir, action.owner)
            out.mkdir.timestamp = action.timestamp_ns
        case Rm():
            out.rm.path = action.path
            out.rm.allowNotFound, out.rm.allowWildcard = action.allow_not_found, action.allow_wildcard
        case Symlink():
            out.symlink.oldpath, out.symlink.newpath = action.old_path, action.new_path
            _fill_owner(out.symlink, action.owner)
            out.symlink.timestamp = action.timestamp_ns
        case _:
            assert_never(action)


def _fill_copy(out: Any, copy: Copy) -> None:
    out.src, out.dest = copy.src, copy.dest
    _fill_owner(out, copy.owner)
    out.mode, out.modeStr = copy.mode, copy.mode_str
    out.followSymlink = copy.follow_symlink
    out.dirCopyContents = copy.dir_contents
    out.attemptUnpackDockerCompatibility = copy.attempt_unpack
    out.createDestPath = copy.create_dest_path
    out.allowWildcard, out.allowEmptyWildcard = copy.allow_wildcard, copy.allow_empty_wildcard
    out.timestamp = copy.timestamp_ns
    out.include_patterns.extend(copy.include_patterns)
    out.exclude_patterns.extend(copy.exclude_patterns)
    out.alwaysReplaceExistingDestPaths = copy.always_replace
    out.required_paths.extend(copy.required_paths)


def _fill_owner(out: Any, owner: ChownOpt | None) -> None:
    if owner is None:
        return
    out.owner.SetInParent()
    if owner.user is not None:
        _fill_user(out.owner.user, owner.user)
    if owner.group is not None:
        _fill_user(out.owner.group, owner.group)


def _fill_user(out: Any, who: UserOpt) -> None:
    if who.name:
        out.byName.name, out.byName.input = who.name, who.input
    else:
        out.byID = who.id


# --- what is said of vertices


def _add_metadata(out: Any, vertex: Vertex) -> None:
    meta = vertex.meta
    out.ignore_cache = meta.ignore_cache
    for key, value in meta.description:
        out.description[key] = value
    if meta.name:
        out.description[NAME_KEY] = meta.name
    if meta.command:
        out.description[COMMAND_KEY] = meta.command
    if not meta.export_cache:
        out.export_cache.SetInParent()
    for name in wire_caps.needed(vertex):
        out.caps[name] = True
    if meta.progress_group:
        out.progress_group.id = meta.progress_group
        out.progress_group.name = meta.progress_group_name or meta.progress_group
        out.progress_group.weak = meta.progress_weak
    limits = meta.resources
    if limits is not None:
        found = out.linux_resources
        found.memory, found.memorySwap = limits.memory_bytes, limits.memory_swap_bytes
        found.cpuShares, found.cpuPeriod, found.cpuQuota = (
            limits.cpu_shares,
            limits.cpu_period,
            limits.cpu_quota,
        )
        found.cpusetCpus, found.cpusetMems = limits.cpuset_cpus, limits.cpuset_mems


def _add_sources(out: Any, definition: Definition, digests: Digests, files: Mapping[str, bytes]) -> None:
    names: list[str] = []
    for vertex in definition.vertices:
        span = vertex.meta.source
        if span is None:
            continue
        with _texts(vertex):
            if span.filename not in names:
                out.infos.add(filename=span.filename, data=files.get(span.filename, b""), language=LANGUAGE)
                names.append(span.filename)
            place = out.locations[digests[vertex.digest]].locations.add(
                sourceIndex=names.index(span.filename)
            )
            place.ranges.add(start={"line": span.start}, end={"line": span.end})
