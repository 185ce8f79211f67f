"""Base digests of operations as BuildKit makes them, for caches that travel between machines (CKY-01…CKY-10).

Inside one state directory ``builder.cache.keys`` names results by one hash per step. A cache that is exported
is a graph instead: each record has the digest of one operation, and links to the records of its inputs. What
stands here is pure: the JSON that an operation's digest is made of, the selector that a link carries, and
which inputs count by content.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from builder.cache.basejson import Json, exec_json, file_json, go_json, platform_json
from builder.errors import GraphError
from builder.llb.definition import Vertex
from builder.llb.ops import (
    EMPTY,
    BuildOp,
    Copy,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    PassthroughOp,
    Rm,
    SourceOp,
)
from builder.oci.digest import ChainId, Digest
from builder.oci.platform import Platform

CONTENT_OUTPUT = -1
"""The output number of keys that stand for content (CKY-12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """How one input enters a key: by its own key with ``selector`` ("" = all of it), and by the content of
    what the step reads when ``by_content``.
    """

    selector: str = ""
    by_content: bool = False


def root_key(digest: str, output: int = 0) -> str:
    """The name of a key without inputs, and of every record (CKY-01, RCH-02)."""
    return str(Digest.of(f"{digest}@{output}".encode()))


def content_key(digest: str) -> str:
    """The name of the key that stands for content with this digest."""
    return root_key(digest, CONTENT_OUTPUT)


def base_digest(vertex: Vertex) -> str:
    """The digest of what a step does, without its inputs. Not for sources: see ``source_digest``."""
    return str(Digest.of(base_json(vertex)))


def base_json(vertex: Vertex) -> bytes:
    """What ``base_digest`` is the digest of."""
    match vertex.op:
        case ExecOp() as op:
            return go_json(exec_json(op, vertex.platform))
        case FileOp() as op:
            return go_json(file_json(op, len(vertex.inputs)))
        case MergeOp():
            return b"buildkit.merge.v0"
        case DiffOp() as op:
            present = "".join("1" if position >= 0 else "0" for position in (op.lower, op.upper))
            return f"buildkit.diff.v0:{present}".encode()
        case PassthroughOp() as op:
            return go_json({"Type": "buildkit.passthrough.v0", "ID": op.id, "Outputs": list(op.outputs)})
        case BuildOp():
            raise GraphError("a nested build has no key of its own")
        case SourceOp():
            raise GraphError("a source is named by what it resolves to, not by its operation")


def input_rules(vertex: Vertex) -> tuple[InputRule, ...]:
    """The rule of every input (CKY-04, CKY-07, CKY-10)."""
    count = len(vertex.inputs)
    match vertex.op:
        case ExecOp() as op:
            return tuple(_exec_rule(op, position) for position in range(count))
        case FileOp() as op:
            return tuple(_file_rule(op, position) for position in range(count))
        case _:
            return tuple(InputRule() for _ in range(count))


# --- sources


def source_digest(key: str) -> str:
    """The base digest of a source whose identity is the text ``key`` (CKY-08)."""
    return str(Digest.of(f"buildkit.source.v0:{key}".encode("utf-8", "surrogateescape")))


def image_keys(digest: Digest | None, chain_id: ChainId | None, platform: Platform | None) -> tuple[str, ...]:
    """The identities of an image: its name's digest with the platform, then its layers' chain id."""
    found: list[str] = []
    if digest is not None:
        body: Json = {"Digest": str(digest), **platform_json(platform)}
        found.append(str(Digest.of(go_json(body))))
    if chain_id is not None:
        found.append(str(chain_id))
    return tuple(found)


def _exec_rule(op: ExecOp, position: int) -> InputRule:
    paths: list[str] = []
    by_content = False
    for mount in op.mounts:
        if mount.input != position or mount.type in ("secret", "ssh", "tmpfs"):
            continue
        path = posixpath.normpath("/" + mount.selector.lstrip("/"))
        paths.append(path)
        safe = mount.output == EMPTY or mount.readonly or path == "/"
        if mount.content_cache == "on" and not safe:
            raise GraphError(f"invalid mount cache content {mount.dest}")
        by_default = mount.dest != "/" or mount.content_cache == "on"
        by_content = safe and by_default and mount.content_cache != "off"
    return InputRule(selector=_paths_digest(paths), by_content=by_content)


def _paths_digest(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return str(Digest.of("\0".join(paths).encode("utf-8", "surrogateescape")))


def _file_rule(op: FileOp, position: int) -> InputRule:
    if any(item.input == position for item in op.actions):
        return InputRule()  # the step builds on it: all of it counts
    paths: list[str] = []
    names = False
    for item in op.actions:
        if isinstance(item.action, Copy) and item.secondary == position:
            paths.append(item.action.src)
        for file in _owner_files(item, position):
            names = True
            paths.append(file)
    # Who owns a name there is not part of the content that we digest, so such an input counts by its key.
    return InputRule(
        selector=_paths_digest(sorted(paths, reverse=True)), by_content=bool(paths) and not names
    )


def _owner_files(item: FileAction, position: int) -> list[str]:
    """The files of an input that names of owners are looked up in."""
    owner = None if isinstance(item.action, Rm) else item.action.owner
    if owner is None:
        return []
    wanted = (("/etc/passwd", owner.user), ("/etc/group", owner.group))
    return [file for file, user in wanted if user is not None and user.name and user.input == position]
