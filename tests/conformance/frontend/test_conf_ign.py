"""Ignore files (IGN rows)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import PybuildError
from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import InvalidInstruction
from tests.support.buildlab import Built, Lab
from tests.support.rows import row

root_only = pytest.mark.root


def left_out(rules, *paths):
    found = IgnoreMatcher.parse(rules)
    return [path for path in paths if found.excludes(path)]


@row("IGN-01")
@root_only
def test_which_file_counts(lab: Lab) -> None:
    files = {"a": "", "b": "", "sub/D": "FROM scratch\nCOPY a* b* /\n", ".dockerignore": "a\n"}
    context = lab.context(files)
    assert Built(lab, lab.build(context, dockerfile=str(context / "sub/D"))).names() == ["b"]
    (context / "sub/D.dockerignore").write_text("b\n")
    assert Built(lab, lab.build(context, dockerfile=str(context / "sub/D"))).names() == ["a"], "never merged"
    outside = lab.context({"E": "FROM scratch\nCOPY a* b* /\n", "E.dockerignore": "*\n!b\n"})
    assert Built(lab, lab.build(context, dockerfile=str(outside / "E"))).names() == ["b"]


@row("IGN-02", "CTX-06")
@root_only
def test_which_contexts_are_filtered(lab: Lab, repository: tuple[str, str]) -> None:
    url, _ = repository
    named = lab.context({"a": "", "b": "", ".dockerignore": "a\n"})
    built = lab.quick(
        "FROM scratch\nCOPY . /main/\nCOPY --from=named . /named/\nCOPY --from=git . /git/\n",
        {"a": "", "b": "", ".dockerignore": "b\nDockerfile\n"},
        build_contexts=(("named", str(named)), ("git", f"{url}#v1")),
    )
    assert built.names("main") == [".dockerignore", "a"]
    assert built.names("named") == [".dockerignore", "b"]
    assert "a" in built.names("git"), "the repository's own ignore file says a, and does not count"
    assert "a" in Built(lab, lab.build(f"{url}#v1")).names()


@row("IGN-03")
def test_lines() -> None:
    text = b"\xef\xbb\xbfone\n#two\n  # three\n\n  four  \n! /five\n/six\n./seven//eight/../nine\n\tten\t\n"
    found = IgnoreMatcher.parse(text)
    assert found.patterns == ("one", "# three", "four", "!five", "six", "seven/nine", "ten")


@row("IGN-04")
@pytest.mark.parametrize(
    ("pattern", "hit", "missed"),
    [
        ("*.go", ["a.go"], ["d/a.go", "a.god"]),
        ("d/*/x", ["d/a/x"], ["d/x", "d/a/b/x"]),
        ("?", ["a"], ["ab", "/"]),
        ("[a-c]x", ["bx"], ["dx", "Bx"]),
        ("[^a-c]x", ["dx"], ["bx"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("**/x", ["x", "d/x", "d/e/x"], ["y", "xx"]),
        ("d/**/x", ["d/x", "d/a/b/x"], ["x"]),
        ("d/**", ["d/a", "d/a/b"], ["e"]),
        ("x", ["x"], ["d/x", "X"]),
        ("d/x", ["d/x"], ["e/d/x"]),
    ],
)
def test_patterns(pattern: str, hit: list[str], missed: list[str]) -> None:
    assert left_out(pattern, *hit, *missed) == hit


@row("IGN-05")
def test_parents_and_order() -> None:
    assert left_out("d", "d", "d/x", "d/x/y", "dd") == ["d", "d/x", "d/x/y"]
    assert left_out("a\n!a\n", "a") == []
    assert left_out("!a\na\n", "a") == ["a"]
    assert left_out("*.md\n!keep*.md\nkeep-not.md\n", "x.md", "keep.md", "keep-not.md") == [
        "x.md",
        "keep-not.md",
    ]


@row("IGN-06")
@root_only
def test_exceptions_below_an_excluded_directory(lab: Lab) -> None:
    files = {"docs/README.md": "r", "docs/x": "", "docs/deep/er/keep": "k", "docs/deep/no": "", "other/x": ""}
    built = lab.quick(
        "FROM scratch\nCOPY . /c/\n",
        {
            **files,
            ".dockerignore": "docs\nother\n!docs/README.md\n!docs/*/er/keep\n.dockerignore\nDockerfile\n",
        },
    )
    assert built.names("c") == ["docs"]
    assert (built.names("c/docs"), built.names("c/docs/deep")) == (["README.md", "deep"], ["er"])
    rules = IgnoreMatcher.parse("docs\nother\n!docs/a/keep\n")
    assert [name for name in ("docs", "docs/a", "docs/b", "other") if rules.may_hold_exception(name)] == [
        "docs",
        "docs/a",
    ]


@row("IGN-07")
@root_only
def test_bad_patterns(lab: Lab) -> None:
    with pytest.raises(InvalidInstruction, match='illegal exclusion pattern: "!"'):
        IgnoreMatcher.parse("!")
    for text, wanted in (("!\n", 'illegal exclusion pattern: "!"'), ("[a\n", "syntax error in pattern")):
        with pytest.raises(PybuildError) as caught:
            lab.quick("FROM scratch\nCOPY . /\n", {".dockerignore": text})
        told = f"{caught.value.message} {caught.value.context}"
        assert wanted in told
        assert ".dockerignore" in told


@row("IGN-08")
@root_only
def test_the_files_themselves_can_be_ignored(lab: Lab) -> None:
    built = lab.quick("FROM scratch\nCOPY . /\n", {"a": "", ".dockerignore": "Dockerfile\n.dockerignore\n"})
    assert built.names() == ["a"]
    with pytest.raises(PybuildError, match='"/Dockerfile": not found'):
        lab.quick("FROM scratch\nCOPY Dockerfile /\n", {".dockerignore": "Dockerfile\n"})


@row("IGN-09")
@root_only
def test_the_root_and_what_cannot_be_read(lab: Lab, tmp_path: Path) -> None:
    assert left_out(".", "a", "d/x") == []
    assert lab.quick("FROM scratch\nCOPY . /\n", {"a": "", ".dockerignore": "./\n"}).has("a")
    context = lab.context({"a": "A", ".dockerignore": "secret\nlocked\n", "locked/x": ""})
    os.mkfifo(context / "secret")  # opening it to read its content would wait for ever
    (context / "locked").chmod(0)
    assert Built(lab, lab.build(context, "FROM scratch\nCOPY . /\n")).read("a") == "A"
