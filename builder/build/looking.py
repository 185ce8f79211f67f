"""Looks at the files of a context when it is to be told what changed among them.

The listing of a selection says less than the directory does: whether a file that is no longer taken is gone
or left out by an ignore file, whether a file of another mode has another text, too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from builder.cache.contenthash import ContentHasher
from builder.errors import PybuildError
from builder.frontend.ignorerule import deciding_rule
from builder.solver.causes import Cause
from builder.solver.filecauses import Listing
from builder.sources.contexttree import ContextTree
from builder.sources.local import LocalContext


class _Sides(NamedTuple):
    """A context as it is, and the ignore files of now and then: name and text."""

    tree: ContextTree
    now: tuple[str, bytes]
    then: tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Look:
    """The contexts of a build as they are now, and the ignore files that an earlier build had."""

    contexts: Mapping[str, LocalContext]
    ignores: Mapping[str, list[str]]

    def refine(self, context: str, causes: list[Cause], before: Listing, after: Listing) -> list[Cause]:
        """The causes as they are seen with the files at hand (``explain.Refine``)."""
        local = self.contexts.get(context)
        if local is None or not causes:
            return causes
        name, text = self.ignores.get(context, ("", ""))
        try:
            with ContextTree(local.root) as tree:
                sides = _Sides(tree, local.ignore_file, (name, text.encode("utf-8", "surrogateescape")))
                causes = list(_without_inner(_seen(causes, sides, before, after)))
        except (OSError, PybuildError):
            pass  # the directory was only there for the build, or cannot be read
        if context == "context":
            return causes
        return [replace(cause, note=cause.note or f"in the build context {context}") for cause in causes]


def _seen(causes: list[Cause], sides: _Sides, before: Listing, after: Listing) -> Iterator[Cause]:
    for cause in causes:
        match cause.kind:
            case "file-removed":
                yield _removed(cause.subject, sides) or cause
            case "file-added":
                yield _added(cause.subject, sides) or cause
            case "file-renamed":
                still = _removed(cause.before, sides)
                added = _added(cause.subject, sides)
                if still or added:
                    yield still or Cause("file-removed", cause.before)
                    yield added or Cause("file-added", cause.subject)
                else:
                    yield cause
            case "file-mode":
                yield cause
                if _text_changed(cause.subject, sides.tree, before, after):
                    yield Cause("file-changed", cause.subject)
            case _:
                yield cause


def _removed(path: str, sides: _Sides) -> Cause | None:
    """The file is there, but not for the build."""
    if sides.tree.lstat(path) is None:
        return None
    name, text = sides.now
    rule = deciding_rule(text, path)
    return Cause("ignored", path, note=f"line {rule[0]} of {name}: {rule[1]}") if rule else None


def _added(path: str, sides: _Sides) -> Cause | None:
    """It may have been there before, but not for the build."""
    name, text = sides.then
    rule = deciding_rule(text, path)
    return Cause("unignored", path, note=f"{name} had {rule[1]}") if rule else None


def _text_changed(path: str, tree: ContextTree, before: Listing, after: Listing) -> bool:
    """Whether a regular file of another mode and the same size would have another digest in its old mode."""
    was, now = before[path], after[path]
    if was[2] != now[2] or not stat.S_ISREG(now[1]):
        return False
    other = _InMode(tree.root)
    other.mode = was[1]
    with other:
        return ContentHasher(other).file(path) != f"sha256:{was[0]}"


class _InMode(ContextTree):
    """A directory whose files have a mode that one of them had."""

    mode = 0

    def lstat(self, path: str) -> os.stat_result | None:
        """The stat of a visible path, with another mode."""
        found = super().lstat(path)
        return None if found is None else os.stat_result((self.mode, *found[1:10]))


def _without_inner(causes: Iterator[Cause]) -> Iterator[Cause]:
    """Without what lies in a directory of which the same is said: one rule leaves out all of it."""
    told: set[tuple[str, str]] = set()
    for cause in causes:
        if cause.kind in ("ignored", "unignored"):
            parts = cause.subject.split("/")
            if any((cause.kind, "/".join(parts[:count])) in told for count in range(1, len(parts))):
                continue
            told.add((cause.kind, cause.subject))
        yield cause
