"""Capabilities: what a vertex needs of the builder that runs it, by BuildKit's names (OPM-13)."""

from __future__ import annotations

from collections.abc import Iterator

from builder.llb.definition import Vertex, VertexMeta
from builder.llb.ops import (
    BuildOp,
    Copy,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    Mount,
    PassthroughOp,
    Rm,
    SourceOp,
    Symlink,
)

_SOURCES = {
    "docker-image": "source.image",
    "docker-image+blob": "source.imageblob",
    "oci-layout": "source.ocilayout",
    "oci-layout+blob": "source.ocilayoutblob",
    "local": "source.local",
    "git": "source.git",
    "http": "source.http",
    "https": "source.http",
}
_ATTRS = {
    "image.resolvemode": "source.image.resolvemode",
    "image.layerlimit": "source.image.layerlimit",
    "image.checksum": "source.image.checksum",
    "local.unique": "source.local.unique",
    "local.session": "source.local.sessionid",
    "local.includepattern": "source.local.includepatterns",
    "local.followpaths": "source.local.followpaths",
    "local.excludepatterns": "source.local.excludepatterns",
    "local.sharedkeyhint": "source.local.sharedkeyhint",
    "local.differ": "source.local.differ",
    "git.keepgitdir": "source.git.keepgitdir",
    "git.fullurl": "source.git.fullurl",
    "git.authtokensecret": "source.git.httpauth",
    "git.authheadersecret": "source.git.httpauth",
    "git.knownsshhosts": "source.git.knownsshhosts",
    "git.mountsshsock": "source.git.mountsshsock",
    "git.checksum": "source.git.checksum",
    "git.skipsubmodules": "source.git.skipsubmodules",
    "http.checksum": "source.http.checksum",
    "http.perm": "source.http.perm",
    "http.uid": "soruce.http.uidgid",
    "http.gid": "soruce.http.uidgid",
    "http.authheadersecret": "source.http.auth",
}
"""``soruce`` is how BuildKit spells it."""

_OTHERS = """
    source.git.subdir source.git.mtime source.git.bundle source.git.signatureverify source.http.header
    source.http.signatureverify source.buildop.llbfilename source.policy
    source.local.metadatatransfer source.local.metadatatransferexclude
    exec.meta.base exec.meta.cgroup.parent exec.meta.network exec.meta.proxyenv exec.meta.security
    exec.meta.security.devices.v1 exec.meta.setsdefaultpath exec.meta.ulimit exec.meta.cdi
    exec.meta.removemountstubs.recursive exec.mount.bind exec.mount.bind.readwrite-nooutput exec.mount.cache
    exec.mount.cache.sharing exec.mount.cache.content exec.mount.selector exec.mount.tmpfs
    exec.mount.tmpfs.size exec.mount.secret exec.mount.ssh exec.cgroup exec.secretenv exec.validexitcode
    file.base file.rm.wildcard file.rm.nofollowsymlink file.copy.includeexcludepatterns
    file.copy.alwaysreplaceexistingdestpaths file.copy.modestring file.copy.requiredpaths
    file.symlink.create
    constraints platform meta.ignorecache meta.description meta.exportcache meta.linuxresources
    mergeop diffop passthroughop exporter.image.annotations exporter.image.attestations
    exporter.sourcedateepoch exporter.multiple
"""

KNOWN = frozenset({*_SOURCES.values(), *_ATTRS.values(), *_OTHERS.split()})
"""Everything that a definition may ask for here."""

SENTINEL = ("constraints", "platform")


def needed(vertex: Vertex) -> tuple[str, ...]:
    """The capabilities that a vertex needs, sorted."""
    found = {*SENTINEL, *_meta(vertex.meta)}
    match vertex.op:
        case SourceOp():
            scheme = vertex.op.identifier.partition("://")[0]
            found |= {_SOURCES[scheme]} if scheme in _SOURCES else set()
            found |= {_ATTRS[key] for key, _ in vertex.op.attrs if key in _ATTRS}
        case ExecOp():
            found |= set(_exec(vertex.op))
        case FileOp():
            found |= set(_file(vertex.op))
        case MergeOp():
            found.add("mergeop")
        case DiffOp():
            found.add("diffop")
        case PassthroughOp():
            found.add("passthroughop")
        case BuildOp():
            if vertex.op.attrs:
                found.add("source.buildop.llbfilename")
    return tuple(sorted(found))


def _meta(meta: VertexMeta) -> Iterator[str]:
    if meta.name or meta.command or meta.description:
        yield "meta.description"
    if meta.ignore_cache:
        yield "meta.ignorecache"
    if not meta.export_cache:
        yield "meta.exportcache"


def _exec(op: ExecOp) -> Iterator[str]:
    meta = op.meta
    wanted = {
        "exec.meta.base": True,
        "exec.meta.proxyenv": meta.proxy_env,
        "exec.meta.network": op.network != "sandbox",
        "exec.meta.security": op.security != "sandbox",
        "exec.meta.ulimit": meta.ulimits,
        "exec.meta.cgroup.parent": meta.cgroup_parent,
        "exec.meta.removemountstubs.recursive": meta.remove_mount_stubs_recursive,
        "exec.meta.cdi": op.devices,
        "exec.secretenv": op.secret_env,
        "exec.validexitcode": meta.valid_exit_codes != (0,),
    }
    yield from (name for name, given in wanted.items() if given)
    for mount in op.mounts:
        yield from _mount(mount)


def _mount(mount: Mount) -> Iterator[str]:
    yield f"exec.mount.{mount.type}"
    if mount.selector:
        yield "exec.mount.selector"
    if mount.type == "cache":
        yield "exec.mount.cache.sharing"
    if mount.type == "tmpfs" and mount.size_bytes:
        yield "exec.mount.tmpfs.size"
    if mount.type == "bind" and not mount.readonly and mount.output < 0:
        yield "exec.mount.bind.readwrite-nooutput"
    if mount.content_cache != "default":
        yield "exec.mount.cache.content"


def _file(op: FileOp) -> Iterator[str]:
    yield "file.base"
    for item in op.actions:
        match item.action:
            case Copy(include_patterns=include, exclude_patterns=exclude) as copy:
                if include or exclude:
                    yield "file.copy.includeexcludepatterns"
                if copy.always_replace:
                    yield "file.copy.alwaysreplaceexistingdestpaths"
                if copy.mode_str:
                    yield "file.copy.modestring"
                if copy.required_paths:
                    yield "file.copy.requiredpaths"
            case Rm():
                yield from ("file.rm.nofollowsymlink", "file.rm.wildcard")
            case Symlink():
                yield "file.symlink.create"
            case _:
                pass
