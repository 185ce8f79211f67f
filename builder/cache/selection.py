"""What a copy selects from a tree: its sources, and of these what include and exclude patterns leave.

Copying and hashing both ask here, so that a cache key covers exactly what a copy would read (rows CPY-10,
CPY-11, CPY-17, CPY-18, FIL-14, CHK-06, CHK-07).
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from builder.cache.patterns import PatternList, has_wildcard, unescape, wildcard
from builder.cache.tree import SourceTree, clean, join
from builder.errors import PathNotFound


@dataclass(frozen=True, slots=True)
class Source:
    """One source of a copy: ``name`` is what it was called, ``path`` where it really is.

    ``matched``: by a wildcard; ``tail`` is then what of its name comes after the elements without one.
    """

    name: str
    path: str
    stat: os.stat_result
    matched: bool = False
    tail: str = ""

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.stat.st_mode)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry below a source; ``chosen=False`` is a directory that only its content may bring along."""

    relative: str
    path: str
    stat: os.stat_result
    chosen: bool = True


_EMPTY_ROOT = os.stat_result((stat.S_IFDIR | 0o755, 0, 0, 2, 0, 0, 0, 0, 0, 0))
"""The root of a tree without any layers."""


@functools.lru_cache(maxsize=64)
def pattern_list(patterns: tuple[str, ...]) -> PatternList:
    """A compiled list; the same lists are asked for again and again."""
    return PatternList(patterns)


def not_found(path: str) -> PathNotFound:
    """The error for a path that is selected but not there (CHK-08)."""
    return PathNotFound(f'"/{path}": not found', path=f"/{path}")


def find_sources(tree: SourceTree, src: str, *, wildcards: bool, follow: bool) -> list[Source]:
    """The sources that ``src`` names, in lexical order; [] when a wildcard matches nothing.

    Links on the way are followed inside the tree, and a final one if ``follow``. A path without wildcards
    must exist (PathNotFound).
    """
    if not wildcards or not ("\\" in src or has_wildcard(src)):
        return [_literal(tree, clean(src), follow)]
    plain = clean(src)
    if not has_wildcard(src):
        meant = plain if tree.lstat(tree.resolve(plain)) is not None else clean(unescape(src))
        return [_literal(tree, meant, follow)]
    parts = plain.split("/")
    first = next(i for i, part in enumerate(parts) if has_wildcard(part) or "\\" in part)
    start = tree.resolve("/".join(parts[:first]))
    names = _expand(tree, start, parts[first:])
    cut = len(start) + 1 if start else 0
    return [replace(_literal(tree, name, follow), matched=True, tail=name[cut:]) for name in names]


def _literal(tree: SourceTree, name: str, follow: bool) -> Source:
    path = tree.resolve(name, follow_final=follow)
    st = tree.lstat(path)
    if st is None and not path:
        st = _EMPTY_ROOT
    if st is None:
        raise not_found(name)
    return Source(name, path, st)


def _expand(tree: SourceTree, start: str, patterns: list[str]) -> list[str]:
    """Paths below ``start`` that match element by element; links are not walked through."""
    expression = wildcard(patterns[0])
    found: list[str] = []
    for name, st in tree.scandir(start):
        if expression.fullmatch(name) is None:
            continue
        path = join(start, name)
        if len(patterns) == 1:
            found.append(path)
        elif stat.S_ISDIR(st.st_mode):
            found.extend(_expand(tree, path, patterns[1:]))
    return found


def check_required(tree: SourceTree, base: str, required: tuple[str, ...]) -> None:
    """Every path that must exist below a source does; PathNotFound for the first that does not.

    As in the walk that follows, links on the way are followed, a final one is not.
    """
    for path in required:
        plain = clean(path)
        if plain and tree.lstat(tree.resolve(join(base, plain), follow_final=False)) is None:
            raise not_found(plain)


def excludes_source(source: Source, exclude: tuple[str, ...]) -> bool:
    """Whether a source itself is left out: tested by its name (CPY-18).

    A directory is when a wildcard matched it and nothing in it can be excepted. One that was named is where
    the patterns begin, and stays.
    """
    if not exclude or (source.is_dir and not source.matched):
        return False
    patterns = pattern_list(exclude)
    if source.is_dir and patterns.has_exceptions:
        return False
    return patterns.matches(source.name.rpartition("/")[2])


def below(
    tree: SourceTree, top: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> Iterator[Found]:
    """What is selected below a directory, each directory before its content.

    Patterns are tested on the path relative to ``top``. A directory that is not selected itself but may hold
    something that is comes as ``chosen=False``. A link among the elements that an include pattern names
    without a wildcard is followed inside the tree, and comes as the directory it leads to (CPY-11, CHK-07).
    """
    wanted = pattern_list(include) if include else None
    unwanted = pattern_list(exclude) if exclude else None
    ways = _literal_ways(include)
    stack = [("", top, iter(tree.scandir(top)))]
    while stack:
        prefix, place, entries = stack[-1]
        for name, st in entries:
            relative, path = prefix + name, join(place, name)
            if relative in ways and stat.S_ISLNK(st.st_mode):
                path, st = _directory_behind(tree, path, st)
            is_dir = stat.S_ISDIR(st.st_mode)
            chosen = wanted is None or wanted.matches(relative)
            enter = chosen or (is_dir and wanted is not None and wanted.may_match_below(relative))
            if unwanted is not None and unwanted.matches(relative):
                chosen = False
                enter = enter and unwanted.has_exceptions
            if not (chosen or (is_dir and enter)):
                continue
            yield Found(relative, path, st, chosen)
            if is_dir and enter:
                stack.append((relative + "/", path, iter(tree.scandir(path))))
                break
        else:
            stack.pop()


@functools.lru_cache(maxsize=64)
def _literal_ways(include: tuple[str, ...]) -> frozenset[str]:
    """The directories that include patterns go through by name."""
    ways: set[str] = set()
    for pattern in include:
        parts = clean(pattern).split("/")[:-1]
        for count, part in enumerate(parts, 1):
            if "\\" in part or has_wildcard(part):
                break
            ways.add("/".join(parts[:count]))
    return frozenset(ways)


def _directory_behind(tree: SourceTree, path: str, st: os.stat_result) -> tuple[str, os.stat_result]:
    """Where a link leads, if that is a directory; else the link itself."""
    real = tree.resolve(path)
    found = tree.lstat(real)
    return (real, found) if found is not None and stat.S_ISDIR(found.st_mode) else (path, st)
