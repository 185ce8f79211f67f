"""What changed between two selections of a build context, file by file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builder.solver.causes import Cause

Entry = tuple[str, int, int]
Listing = Mapping[str, Entry]
"""The files of a selection by path: digest, mode, size."""
Files = Callable[[str, int], Listing | None]
"""The files behind the content digest of what a step selects of its input at a position. None = not known."""

MAX_FILES = 50
_REGULAR, _LINK = 0o10, 0o12
_TYPES = {
    0o4: "directory",
    _REGULAR: "file",
    _LINK: "symbolic link",
    0o1: "pipe",
    0o2: "device",
    0o6: "device",
    0o14: "socket",
}


def file_causes(before: Listing, after: Listing) -> list[Cause]:
    """The differences, in the order of paths."""
    gone = {path: entry for path, entry in before.items() if path not in after}
    new = {path: entry for path, entry in after.items() if path not in before}
    renamed = _renamed(gone, new)
    found: dict[str, list[Cause]] = {}
    for path in {*gone} - {*renamed.values()}:
        found[path] = [Cause("file-removed", path)]
    for path in new:
        old = renamed.get(path)
        found[path] = [Cause("file-renamed", path, old, path) if old else Cause("file-added", path)]
    for path in before.keys() & after.keys():
        if before[path] != after[path]:
            found[path] = _changed(path, before[path], after[path])
    return [cause for path in sorted(found) for cause in found[path]]


def limited(found: list[Cause]) -> list[Cause]:
    """At most ``MAX_FILES``, and how many more there are."""
    if len(found) <= MAX_FILES:
        return found
    return [*found[:MAX_FILES], Cause("files", "", "", str(len(found) - MAX_FILES))]


def _renamed(gone: Listing, new: Listing) -> dict[str, str]:
    """New paths with the old ones whose only entry of that content and mode they have."""
    froms, targets = _by_content(gone), _by_content(new)
    return {
        targets[digest][0]: paths[0]
        for digest, paths in froms.items()
        if len(paths) == 1 and len(targets.get(digest, ())) == 1
    }


def _by_content(listing: Listing) -> dict[str, list[str]]:
    """Paths by digest, of files and links that are not empty."""
    found: dict[str, list[str]] = {}
    for path, (digest, mode, size) in listing.items():
        if size and mode >> 12 in (_REGULAR, _LINK):
            found.setdefault(digest, []).append(path)
    return found


def _changed(path: str, was: Entry, now: Entry) -> list[Cause]:
    """A file of the same size and another mode has changed its mode; whether its text has, too, the digests
    cannot tell.
    """
    if was[0] == now[0]:
        return []
    if was[1] >> 12 != now[1] >> 12:
        return [
            Cause("file-type", path, *(_TYPES.get(item[1] >> 12, "something else") for item in (was, now)))
        ]
    found = []
    if was[1] != now[1] and was[1] >> 12 != _LINK:
        found.append(Cause("file-mode", path, f"{was[1] & 0o7777:04o}", f"{now[1] & 0o7777:04o}"))
    if not found or was[2] != now[2]:
        found.append(Cause("file-changed", path))
    return found
