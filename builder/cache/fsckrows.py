"""The checks of everything that is not content: snapshots, cache records, directories, and leftovers."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from builder.cache.locks import try_flock
from builder.cache.names import base36, from_base36, snapshot_path
from builder.cache.records import decode_outputs

if TYPE_CHECKING:
    from builder.cache.db import Database
    from builder.cache.fsck import Finding, Kind

_YOUNG_S = 1.0
_MAX_PARTS = 16 << 20


def _finding(code: str, path: str, message: str, kind: Kind = "damage") -> Finding:
    from builder.cache.fsck import Finding

    return Finding(code=code, path=path, message=message, kind=kind)


def snapshots(db: Database, root: str) -> Iterator[Finding]:
    """Rows have directories and directories rows; parents are there, committed and older."""
    rows = {row[0]: row[1:] for row in db.all("SELECT id, parent, kind, owner, flat, driver FROM snapshots")}
    trashed = {row[0] for row in db.all("SELECT path FROM trash")}
    containers = {row[0] for row in db.all("SELECT snapshot FROM containers")}
    names = set(os.listdir(f"{root}/snapshots"))
    flats = {row[3] for row in rows.values() if row[3] is not None}
    yield from _lazy(db, rows)
    for number, (parent, kind, owner, flat, driver) in sorted(rows.items()):
        path = snapshot_path(number)
        yield from _tree(root, path, kind, driver)
        if parent is not None and (parent not in rows or parent >= number):
            yield _finding("snapshot-parent", path, f"stands on {base36(parent)}, which is not there")
        elif parent is not None and rows[parent][1] != "committed":
            yield _finding("snapshot-parent", path, f"stands on {base36(parent)}, which is not committed")
        if flat is not None and (flat not in rows or rows[flat][1] != "committed"):
            yield _finding("snapshot-flat", path, f"its flattened copy {base36(flat)} is not there")
        if kind not in ("active", "committed") or driver not in ("overlay", "native", "lazy"):
            yield _finding("snapshot-row", path, f"is {kind!r} by {driver!r}")
        if kind == "active" and owner is None and number not in containers and number not in flats:
            yield _finding("snapshot-owner", path, "is active and belongs to nobody")
        if kind == "active" and owner is not None and not _is_held(f"{root}/tmp/{owner}"):
            yield _finding("snapshot-owner", path, f"its process {owner} is gone", "rubbish")
    for name in sorted(names - {base36(number) for number, row in rows.items() if row[4] != "lazy"}):
        if f"snapshots/{name}" not in trashed:
            yield _finding("snapshot-unnamed", f"snapshots/{name}", "has no row")


def _lazy(db: Database, rows: dict[Any, tuple[Any, ...]]) -> Iterator[Finding]:
    """What lazy snapshots are made of is there, and as old as they are or older."""
    lazy = {number for number, row in rows.items() if row[4] == "lazy"}
    if not lazy:
        return  # and maybe no table, in a directory from before there was one
    recipes = db.all("SELECT snapshot, kind, source, lower FROM lazy_snapshots")
    layered = {row[0] for row in db.all("SELECT snapshot FROM snapshot_layers")}
    for number, kind, *sources in recipes:
        path = snapshot_path(number)
        if number not in lazy:
            yield _finding("snapshot-lazy", path, "is no lazy snapshot, but there is a recipe for it")
        if kind not in ("layer", "diff", "image") or (kind == "image" and number not in layered):
            yield _finding("snapshot-lazy", path, f"its tree cannot be made ({kind})")
        for source in sources:
            if source is not None and (source >= number or rows.get(source, ("",) * 2)[1] != "committed"):
                yield _finding("snapshot-lazy", path, f"is made of {base36(source)}, which is not there")
    for number in sorted(lazy - {row[0] for row in recipes}):
        yield _finding("snapshot-lazy", snapshot_path(number), "has no tree, and no recipe for one")


def _tree(root: str, path: str, kind: str, driver: str) -> Iterator[Finding]:
    inside = f"{root}/{path}"
    if kind == "active" or driver == "lazy":
        return  # the row comes before the directory
    if not os.path.isdir(f"{inside}/fs") or os.path.islink(f"{inside}/fs"):
        yield _finding("snapshot-missing", path, "is committed and has no tree")
    elif os.path.lexists(f"{inside}/work"):
        yield _finding("snapshot-work", path, "is committed and still has its work directory")


def directories(db: Database, root: str) -> Iterator[Finding]:
    """Cache mounts, volumes, containers and mirrors: rows and directories."""
    trashed = {row[0] for row in db.all("SELECT path FROM trash")}
    for folder, sql, inner in (
        ("cachemounts", "SELECT dir FROM cache_mounts", ""),
        ("volumes", "SELECT name FROM volumes", "/_data"),
        ("containers", "SELECT id FROM containers", None),
    ):
        names, rows = set(os.listdir(f"{root}/{folder}")), {row[0] for row in db.all(sql)}
        for name in sorted(rows if inner is not None else ()):
            if not os.path.isdir(f"{root}/{folder}/{name}{inner}"):
                yield _finding(f"{folder[:-1]}-missing", f"{folder}/{name}", "has a row and no directory")
        for name in sorted(names - rows):
            if f"{folder}/{name}" not in trashed:
                yield _finding(f"{folder[:-1]}-unnamed", f"{folder}/{name}", "has a directory and no row")
    for container, number in db.all(
        "SELECT id, snapshot FROM containers WHERE snapshot IS NOT NULL"
        " AND snapshot NOT IN (SELECT id FROM snapshots)"
    ):
        path = f"db:containers/{container}"
        yield _finding("container-tree", path, f"its snapshot {base36(number)} is not there")
    for name in sorted(os.listdir(f"{root}/git")) if os.path.isdir(f"{root}/git") else ():
        usable = os.path.isfile(f"{root}/git/{name}/HEAD") and os.path.isdir(f"{root}/git/{name}/objects")
        if not usable and not _is_locked(root, name):
            yield _finding("mirror", f"git/{name}", "is no git repository")


def references(db: Database) -> Iterator[Finding]:
    """Layers and records name what is there."""
    from builder.cache.fsckcontent import layer_rows

    yield from layer_rows(db)
    rows = db.all("SELECT key, outputs FROM records")
    committed = {row[0] for row in db.all("SELECT id FROM snapshots WHERE kind='committed'")}
    named: dict[str, set[int]] = {}
    for number, key in db.all("SELECT snapshot, key FROM record_outputs"):
        named.setdefault(key, set()).add(number)
    for key, text in rows:
        path = f"db:records/{key}"
        wanted = {from_base36(item) for item in decode_outputs(text) if item is not None}
        for number in sorted(wanted - committed):
            what = "names a snapshot that is no id" if number < 0 else f"names snapshot {base36(number)}"
            yield _finding("record-output", path, f"{what}, which is not there or not committed")
        if named.get(key, set()) != wanted:
            yield _finding("record-outputs", path, "the table of its snapshots says something else")
    keys = {row[0] for row in rows}
    for key in sorted(named.keys() - keys):
        yield _finding("record-outputs", f"db:record_outputs/{key}", "belongs to a record that is not there")
    parts = {row[0] for row in db.all("SELECT key FROM record_parts")}
    for key in sorted(keys - parts):
        yield _finding("record-parts", f"db:records/{key}", "has no parts")
    for key in sorted(parts - keys):
        yield _finding("record-parts", f"db:record_parts/{key}", "belong to a record that is not there")
    for key, data in db.all("SELECT key, parts FROM record_parts"):
        if not _is_parts(data):
            yield _finding("record-parts", f"db:record_parts/{key}", "cannot be read")


def leftovers(db: Database, root: str) -> Iterator[Finding]:
    """What processes that died left behind; the next command removes it."""
    for name in sorted(os.listdir(f"{root}/tmp")):
        path = f"{root}/tmp/{name}"
        if name.startswith("gone-"):
            if not os.path.exists(f"/proc/{_maker(name)}"):
                yield _finding("leftover", f"tmp/{name}", "was to be removed", "rubbish")
        elif os.path.lexists(path) and not _is_held(path):
            yield _finding("leftover", f"tmp/{name}", f"{_what(name)} of a dead process", "rubbish")
    for (path,) in db.all("SELECT path FROM trash"):
        yield _finding("leftover", path, "was to be removed", "rubbish")
    for build, owner in db.all("SELECT id, owner FROM builds WHERE status='running'"):
        if owner is None or not _is_held(f"{root}/tmp/{owner}"):
            yield _finding("leftover", f"db:builds/{build}", "runs, but its process is gone", "rubbish")


def histories(db: Database, root: str) -> Iterator[Finding]:
    """What builds left belongs to a build on record; what a record names is there and is that."""
    from builder.cache.history import INPUTS, history_path

    rows = db.all("SELECT id, data FROM builds")
    known = {history_path(name): json.loads(data) for name, data in rows}
    for name in sorted(os.listdir(f"{root}/history")):
        path = f"history/{name}"
        if path not in known:
            yield _finding("history-unnamed", path, "belongs to no build on record")
            continue
        for file, wanted in _files_of(known[path]):
            if _digest(f"{root}/{path}/{file}") != wanted:
                what = f"is not the {file.partition('-')[0]} that its record names"
                yield _finding(f"history-{file.partition('-')[0]}", f"{path}/{file}", what)
    inputs: dict[str, bytes] = dict(db.all("SELECT key, data FROM docs WHERE kind=?", (INPUTS,)))
    for path in sorted(known):
        named = known[path].get("inputs")
        if named and _inflated(inputs.get(named)) != named:
            yield _finding("history-inputs", f"db:docs/{INPUTS}/{named}", f"is not what {path} names")


def _files_of(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The files that a record names, and their digests."""
    named = [("trace", record.get("trace"))]
    provenance = record.get("provenance") or ()
    named += [(f"provenance-{i}" if i else "provenance", item) for i, item in enumerate(provenance)]
    for name, about in named:
        if about and about.get("digest"):
            yield name, str(about["digest"])


def _inflated(data: bytes | None) -> str:
    """The digest of what a document holds; "" without it."""
    import hashlib

    try:
        return f"sha256:{hashlib.sha256(zlib.decompress(data or b'')).hexdigest()}"
    except zlib.error:
        return ""


def _digest(path: str) -> str:
    import hashlib

    try:
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return ""


def _what(name: str) -> str:
    kinds = {
        "own": "claim",
        "hold": "hold",
        "lock": "lock",
        "pub": "finished blob",
        "blob": "unfinished blob",
    }
    return kinds.get(name.partition("-")[0], "unfinished work")


def _maker(name: str) -> int:
    """The process that gave an entry its name."""
    try:
        return int(name.split("-")[1], 16)
    except (IndexError, ValueError):
        return 0


def _is_held(path: str) -> bool:
    """Whether a live process has the lock of an entry of ``tmp/``; one that is just made is about to be."""
    try:
        if time.time() - os.lstat(path).st_ctime < _YOUNG_S:
            return True
    except FileNotFoundError:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_flock(fd, shared=not path.rpartition("/")[2].startswith("lock-"))
    finally:
        os.close(fd)


def _is_locked(root: str, mirror: str) -> bool:
    from builder.cache.mirrors import in_use

    return in_use(root, mirror)


def _is_parts(data: Any) -> bool:
    try:
        text = bytes(data)
        if text[:1] == b"z":
            text = zlib.decompressobj().decompress(text[1:], _MAX_PARTS)
        return isinstance(json.loads(text), dict)
    except (ValueError, TypeError, zlib.error):
        return False
