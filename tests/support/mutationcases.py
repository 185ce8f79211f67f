"""Cases of the mutation test of the cache: a change, the steps that it makes run, and why. Here those of files.

All is written by hand, from what the Dockerfile says. A step that follows from another one is not written
out: ``causes_of`` has the rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from builder.solver.causes import Cause
from tests.support.mutations import (
    ASSETS,
    BASE_IGNORE,
    DOCS,
    NAMES,
    OTHER,
    SRC,
    Change,
    add,
    add_directory,
    all_of,
    append,
    content,
    ignore_file,
    link,
    mode,
    mtime,
    options,
    owner,
    remove,
    rename,
    rewritten,
    same_size,
)

FINAL = {"out", "deps2", "docs", "mode"}
AFTER_SRC = {"src", "run", "build", "assets"} | FINAL
AFTER_MODS = {"mods", "deps", "src", "run", "build", "assets"} | {"deps2", "docs", "mode"}
RUNS = {"prepare", "deps", "build", "assets"}
NOTHING: set[str] = set()

Causes = tuple[Cause, ...]

BEFORE = {
    "mods": "prepare",
    "deps": "mods",
    "src": "deps",
    "run": "src",
    "build": "run",
    "assets": "build",
    "tests": "prepare",
    "ls": "tests",
    "deps2": "out",
    "docs": "deps2",
    "mode": "docs",
}
"""The step on whose tree each step works."""


@dataclass(frozen=True, slots=True)
class Case:
    """A change and the steps that it makes run.

    ``causes`` are those of the first of them, ``own`` those that others have by themselves; ``same`` ran and
    gave what they gave before; ``names`` are the names of steps that are called otherwise now.
    """

    name: str
    change: Change
    expected: set[str]
    causes: Causes = ()
    own: Mapping[str, Causes] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    def causes_of(self, step: str, *, first: bool) -> set[Cause]:
        """Why ``step`` has to run: for reasons of its own, and where what it is made from is not what it was.

        ``/out`` of the build stage counts for one COPY of the final stage and ``/deps`` for the other: where
        the first runs, the second does because it follows, else because of ``/deps``.
        """
        own = self.causes if first else self.own.get(step, ())
        if any(cause.kind == "no-cache" for cause in own):
            return set(own)
        found = set(own)
        inputs = [BEFORE.get(step, "")]
        if step == "out" or (step == "deps2" and "out" not in self.expected):
            inputs.append("assets")
        for before in inputs:
            if before in self.expected and before not in self.same:
                moved = any(cause.kind == "upstream" for cause in own)
                found |= set() if moved else {Cause("upstream", self.names.get(before, NAMES[before]))}
        return found


def each(steps: set[str], *causes: Cause) -> dict[str, Causes]:
    """The same causes for several steps."""
    return dict.fromkeys(steps, causes)


def variable(name: str, before: str, after: str) -> Cause:
    return Cause("variable", name, before, after)


def argument(name: str, before: str, after: str, note: str) -> Cause:
    return Cause("argument", name, before, after, note)


def context_cases() -> Iterator[Case]:
    """Every kind of change in every kind of place."""
    places = [
        *((path, AFTER_SRC) for path in SRC if path not in ("src/b.go", "src/pkg/d.go")),
        *((path, {"docs", "mode"}) for path in DOCS),
        *((path, {"assets"}) for path in ASSETS),
    ]
    for path, steps in places:
        above, _, name = path.rpartition("/")
        one = f"{path}:"
        changed, to_x = Cause("file-changed", path), Cause("file-mode", path, "0644", "0755")
        renamed = f"{path}.renamed"
        for case, change, *causes in (
            ("content", content(path, one + "c"), changed),
            ("same size and time", same_size(path, one), changed),
            ("mode x", mode(path, 0o755), to_x),
            ("mode r", mode(path, 0o600), Cause("file-mode", path, "0644", "0600")),
            (
                "mode and text of the same size",
                all_of(same_size(path, one + "m"), mode(path, 0o755)),
                to_x,
                changed,
            ),
            ("mode and text", all_of(append(path, one), mode(path, 0o755)), to_x, changed),
            ("removed", remove(path), Cause("file-removed", path)),
            ("renamed", rename(path, ".renamed"), Cause("file-renamed", renamed, path, renamed)),
            ("added", add(path, f"added to {name}"), Cause("file-added", f"{above}/added to {name}")),
            ("directory added", add_directory(path, "new"), Cause("file-added", f"{above}/new")),
            ("became a link", link(path, one), Cause("file-type", path, "file", "symbolic link")),
            (
                "ignored",
                ignore_file(f"{BASE_IGNORE}{path}\n"),
                Cause("ignored", path, note=f"line 3 of .dockerignore: {path}"),
            ),
        ):
            yield Case(one + case, change, steps, tuple(causes))
        yield Case(one + "mtime", mtime(path, 1_000_000_000), NOTHING)
        yield Case(one + "future", mtime(path, 4_000_000_000), NOTHING)
        yield Case(one + "owner", owner(path, 1234), NOTHING)
        yield Case(one + "rewritten", rewritten(path), NOTHING)
    for path in OTHER:
        if path.startswith("tests/"):
            continue
        one = f"{path}:"
        yield Case(one + "content", content(path, one), NOTHING)
        yield Case(one + "mode", mode(path, 0o700), NOTHING)
        yield Case(one + "removed", remove(path), NOTHING)
        yield Case(one + "added", add(path, "another.log"), NOTHING)


def file_cases() -> Iterator[Case]:
    for path in ("go.mod", "go.sum"):
        yield Case(path, content(path, f"{path}!"), AFTER_MODS, (Cause("file-changed", path),))
        yield Case(path + " mtime", mtime(path, 12345), NOTHING)
    yield Case(
        "both module files",
        all_of(content("go.mod", "x"), content("go.sum", "y")),
        AFTER_MODS,
        (Cause("file-changed", "go.mod"), Cause("file-changed", "go.sum")),
    )
    # The copied bytes count for /deps, the mode does not: `cat` reads only the text.
    yield Case(
        "go.mod mode",
        mode("go.mod", 0o600),
        {"mods", "deps", "src", "run", "build", "assets"},
        (Cause("file-mode", "go.mod", "0644", "0600"),),
    )
    # What the script says is not copied on, what --chmod overrides does not reach the tree.
    yield Case(
        "run.sh", content("run.sh", "r"), {"run", "build", "assets"}, (Cause("file-changed", "run.sh"),)
    )
    yield Case("run.sh mode", mode("run.sh", 0o700), {"run"}, (Cause("file-mode", "run.sh", "0644", "0700"),))
    yield Case("run.sh mtime", mtime("run.sh", 5), NOTHING)
    yield Case(
        "source and docs",
        all_of(content("src/a.go", "two"), content("docs/index.md", "two")),
        AFTER_SRC,
        (Cause("file-changed", "src/a.go"),),
        own={"docs": (Cause("file-changed", "docs/index.md"),)},
    )
    yield Case(
        "source and assets",
        all_of(remove("src/b.go"), mode("assets/logo.svg", 0o755)),
        AFTER_SRC,
        (Cause("file-removed", "src/b.go"),),
        own={"assets": (Cause("file-mode", "assets/logo.svg", "0644", "0755"),)},
    )
    yield Case(
        "no longer ignored",
        ignore_file(".git\n"),
        AFTER_SRC,
        (Cause("unignored", "src/pkg/debug.log", note=".dockerignore had **/*.log"),),
    )
    yield Case(
        "an ignored directory",
        ignore_file(BASE_IGNORE + "src/pkg/deep\n"),
        AFTER_SRC,
        (Cause("ignored", "src/pkg/deep", note="line 3 of .dockerignore: src/pkg/deep"),),
    )
    yield Case("ignore file says the same", ignore_file("# logs\n**/*.log\n*.log\n.git\n"), NOTHING)
    yield Case("another hard link", lambda root: os.link(root / "src/a.go", root / "linked.log"), NOTHING)
    yield Case(
        "attribute",
        lambda root: os.setxattr(root / "docs/index.md", "user.a", b"1"),
        {"docs", "mode"},
        (Cause("file-changed", "docs/index.md"),),
    )
    yield Case(
        "a test's text",
        all_of(content("tests/t1", "t"), options(target="test")),
        {"tests", "ls"},
        (Cause("file-changed", "tests/t1"),),
    )
