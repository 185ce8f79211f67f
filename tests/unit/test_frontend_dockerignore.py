"""Ignore files: section 12 of the rows."""

from __future__ import annotations

import time

import pytest

from builder.frontend.dockerignore import IgnoreMatcher, read_patterns
from builder.frontend.errors import DockerfileError


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab", "A"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("*.md", ["x.md", ".md", "x.md/y"], ["d/x.md", "x.mdx"]),
        ("*/temp*", ["a/temp", "a/tempx", "a/temp/b"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temp"], ["a/temp", "a/b/c/temp"]),
        ("temp?", ["tempa", "temp1/x"], ["temp", "tempab"]),
        ("**", ["a", "a/b"], []),
        ("**/x", ["x", "a/x", "a/b/x", "a/x/c"], ["ax", "xa"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "b"]),
        ("**/*.pyc", ["x.pyc", "a/b/x.pyc"], ["x.py"]),
        ("[a-c]x", ["ax", "bx"], ["dx", "x"]),
        ("[^a-c]x", ["dx"], ["ax", "/x"]),
        (r"[\]]", ["]"], ["a"]),
        (r"\*", ["*"], ["a"]),
        ("a/../b//c/.", ["b/c"], ["a"]),
        ("../a", ["../a"], ["a"]),
        (".", [], ["a"]),
        ("a.b+(c)|d", ["a.b+(c)|d"], ["aXb+(c)|d", "d"]),
        ("a\nb", ["a\nb"], []),
    ],
)
def test_patterns(pattern, yes, no):
    found = IgnoreMatcher([pattern])
    assert [path for path in yes if not found.excludes(path)] == []
    assert [path for path in no if found.excludes(path)] == []


def test_the_last_match_decides():
    first = IgnoreMatcher(["*.md", "!LICENSE.md"])
    assert not first.excludes("LICENSE.md")
    assert first.excludes("README.md")
    swapped = IgnoreMatcher(["!LICENSE.md", "*.md"])
    assert swapped.excludes("LICENSE.md")


def test_exceptions_below_an_excluded_directory():
    found = IgnoreMatcher(["docs", "!docs/README.md", "docs/README.md/x"])
    assert found.excludes("docs/a")
    assert not found.excludes("docs/README.md")
    assert found.excludes("docs/README.md/x")


@pytest.mark.parametrize(
    ("exception", "yes", "no"),
    [
        ("docs/README.md", ["docs"], ["other", "docs/sub", "docs/README.md"]),
        ("a/b*/c/d", ["a", "a/b", "a/bx", "a/bx/c"], ["b", "a/c", "a/bx/d"]),
        ("**/keep", ["a", "a/b/c"], []),
        ("a/**/keep", ["a", "a/b", "a/b/c"], ["b", "ab"]),
        ("a/b/**", ["a", "a/b", "a/b/c"], ["b", "a/c"]),
        ("a?/x", ["ab"], ["a", "abc"]),
        ("top", [], ["a"]),
    ],
)
def test_directories_that_may_hold_an_exception(exception, yes, no):
    found = IgnoreMatcher(["**", f"!{exception}"])
    assert [path for path in yes if not found.may_hold_exception(path)] == []
    assert [path for path in no if found.may_hold_exception(path)] == []


def test_no_exceptions_no_descent():
    found = IgnoreMatcher(["a"])
    assert not found.has_exceptions
    assert not found.may_hold_exception("a")


def test_reading():
    text = b"\xef\xbb\xbf# c\n a \r\n\n #b\n! x \n/c/\n"
    assert read_patterns(text) == ("a", "#b", "! x", "/c/")
    assert IgnoreMatcher.parse(text).patterns == ("a", "#b", "!x", "c")
    assert not IgnoreMatcher.parse(b"# only\n")


@pytest.mark.parametrize("pattern", ["!", "! ", "[", "[]]", "[a", "a[]", "[b-a]", "a\\", "[-x]"])
def test_malformed(pattern):
    with pytest.raises(DockerfileError) as caught:
        IgnoreMatcher([pattern])
    assert caught.value.code == "bad-ignore-pattern"


def test_no_pattern_is_slow():
    found = IgnoreMatcher(["**/a" * 30 + "**/z", "*a" * 30 + "b", "!" + "**/c/" * 30 + "x"])
    start = time.process_time()
    assert not found.excludes("a/" * 3000 + "b")
    assert not found.excludes("a" * 250 + "c")
    assert found.excludes("a" * 250 + "b")
    assert found.may_hold_exception("x")
    assert time.process_time() - start < 2


def test_many_paths_are_quick():
    found = IgnoreMatcher([f"dir{n}/**/*.o" for n in range(30)] + ["node_modules", "**/.git", "!dir3/keep.o"])
    paths = [f"src{n % 50}/a{n % 7}/file{n}.py" for n in range(20_000)]
    start = time.process_time()
    assert not any(found.excludes(path) for path in paths)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("**.log", "x.log", True),
        ("**.log", "a/b/x.log", True),
        ("**.log", "a/x.log.txt", False),
        ("**name", "a/myname", True),
        ("**name", "a/myname/below", True),
        ("**/name", "a/myname", False),
        ("**na?e", "a/myname", False),
        ("***a", "b/xa", True),
        ("a**b", "a/x/b", True),
        ("a**b", "axb", False),
    ],
)
def test_stars_at_the_front_of_a_plain_ending_match_any_start(pattern, path, excluded):
    assert IgnoreMatcher([pattern]).excludes(path) is excluded
