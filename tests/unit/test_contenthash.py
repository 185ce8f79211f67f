"""Content digests: what counts, what does not, and that hashing selects what copying reads (CHK-01…CHK-10)."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.cache.contenthash import ContentHasher
from builder.cache.patterns import PatternList, has_wildcard, wildcard
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.errors import InvalidValue, PathNotFound
from builder.llb.ops import Copy

ALL = Copy(src="/", dest="/", dir_contents=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def make(root: Path) -> Path:
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("f")
    (root / "d/e/g").write_text("g" * 100_000)
    (root / "a.txt").write_text("a")
    (root / "link").symlink_to("d/f")
    return root


def digest(root: Path, *copies: Copy, **options: Any) -> str:
    return ContentHasher(View([root]), **options).select(copies or [ALL]).digest


def test_equal_trees_have_equal_digests_and_times_do_not_count(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    assert digest(one) == digest(two)
    os.utime(two / "d/f", (1, 1))
    os.utime(two / "d", (1, 1))
    assert digest(one) == digest(two)
    os.unlink(two / "a.txt")
    os.link(two / "d/f", two / "a.txt")
    (two / "a.txt").unlink()
    (two / "a.txt").write_text("a")
    assert digest(one) == digest(two)


CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "d/f").write_text("F"),
    lambda root: (root / "d/e/g").write_text("g" * 100_001),
    lambda root: (root / "d/f").chmod(0o600),
    lambda root: (root / "d/e").chmod(0o700),
    lambda root: (root / "d/f").rename(root / "d/ff"),
    lambda root: (root / "d/new").mkdir(),
    lambda root: (root / "a.txt").unlink(),
    lambda root: ((root / "link").unlink(), (root / "link").symlink_to("d/e")),
    lambda root: ((root / "link").unlink(), (root / "link").write_text("d/f")),
    lambda root: os.setxattr(root / "d/f", "user.k", b"v"),
    lambda root: os.setxattr(root / "d", "user.k", b"v"),
    lambda root: (root / "d/f").rename(root / "d/e/f"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_every_kind_of_change_counts(tmp_path: Path, number: int) -> None:
    root = make(tmp_path / "root")
    before = digest(root)
    CHANGES[number](root)
    assert digest(root) != before


@pytest.mark.root
@needs_root
def test_owners_and_devices_count_unless_the_tree_has_one_owner(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    writer = Writer(root)
    writer.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 0, 0)
    before = digest(root)
    os.chown(root / "d/f", 1, 1)
    assert digest(root) != before

    class Owned(View):
        owner = (0, 0)

    owned = ContentHasher(Owned([root])).select([ALL]).digest
    os.chown(root / "d/f", 2, 2)
    assert ContentHasher(Owned([root])).select([ALL]).digest == owned
    os.unlink(root / "null")
    writer.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 5), 0, 0)
    assert ContentHasher(Owned([root])).select([ALL]).digest != owned
    os.setxattr(root / "a.txt", "trusted.k", b"v")
    now = digest(root)
    os.setxattr(root / "a.txt", "security.other", b"v")
    assert digest(root) == now
    os.setxattr(root / "a.txt", "security.capability", b"\1\0\0\2" + bytes(16))
    assert digest(root) != now


def test_a_copied_directory_counts_without_its_own_mode(tmp_path: Path) -> None:
    """CHK-05; unless it becomes the destination itself."""
    root = make(tmp_path / "root")
    contents, whole = Copy(src="/d", dest="/", dir_contents=True), Copy(src="/d", dest="/")
    before = digest(root, contents), digest(root, whole)
    (root / "d").chmod(0o711)
    after = digest(root, contents), digest(root, whole)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_moving_a_source_does_not_count(tmp_path: Path) -> None:
    """CPY-26."""
    root = make(tmp_path / "root")
    before = digest(root, Copy(src="/d/e", dest="/", dir_contents=True))
    (root / "d/e").rename(root / "e")
    assert digest(root, Copy(src="/e", dest="/", dir_contents=True)) == before


def test_links_are_hashed_through_where_a_copy_follows_them(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    followed = Copy(src="/link", dest="/", follow_symlink=True)
    assert digest(root, followed) == digest(root, Copy(src="/d/f", dest="/"))
    assert digest(root, Copy(src="/link", dest="/")) != digest(root, followed)
    wild = Copy(src="/lin*", dest="/", follow_symlink=True, allow_wildcard=True)
    before = digest(root, wild)
    (root / "d/f").write_text("changed")
    assert digest(root, wild) != before


def test_patterns_leave_out_what_a_copy_leaves_out(tmp_path: Path) -> None:
    root = make(tmp_path / "root")

    def with_(**options: Any) -> str:
        return digest(root, Copy(src="/", dest="/", dir_contents=True, **options))

    no_g, only_f = with_(exclude_patterns=("**/g",)), with_(include_patterns=("d/f",))
    texts = digest(root, Copy(src="/*.txt", dest="/", allow_wildcard=True))
    empty = digest(root, Copy(src="/*.none", dest="/", allow_wildcard=True))
    (root / "d/e/g").write_text("other")
    assert with_(exclude_patterns=("**/g",)) == no_g
    assert with_(include_patterns=("d/f",)) == only_f
    (root / "d").chmod(0o700)
    assert with_(include_patterns=("d/f",)) != only_f, "a parent that comes along counts"
    assert digest(root, Copy(src="/*.txt", dest="/", allow_wildcard=True)) == texts
    (root / "b.txt").write_text("b")
    assert digest(root, Copy(src="/*.txt", dest="/", allow_wildcard=True)) != texts
    excluded = Copy(src="/*.txt", dest="/", allow_wildcard=True, exclude_patterns=("*.txt",))
    assert (
        digest(root, excluded)
        == empty
        == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_missing_paths_and_cycles(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    (root / "loop").symlink_to("loop")
    required = Copy(src="/", dest="/", include_patterns=("no",), required_paths=("no",))
    for copy in (Copy(src="/no", dest="/"), Copy(src="/loop", dest="/", follow_symlink=True), required):
        with pytest.raises(PathNotFound):
            digest(root, copy)


def test_entries_explain_a_digest(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    before = dict(ContentHasher(View([root])).select([ALL]).entries)
    assert sorted(before) == ["a.txt", "d", "d/e", "d/e/g", "d/f", "link"]
    (root / "d/f").write_text("changed")
    after = dict(ContentHasher(View([root])).select([ALL]).entries)
    assert [path for path in before if before[path] != after[path]] == ["d/f"]
    assert ContentHasher(View([root])).file("d/f") == "sha256:" + after["d/f"]


def test_file_digests_are_kept_and_asked_for(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    kept: dict[str, bytes] = {}
    first = digest(root, keep=kept.__setitem__)
    assert sorted(kept) == ["a.txt", "d/e/g", "d/f"]
    (root / "d/f").write_text("unseen")
    assert digest(root, lookup=kept.get) == first


def test_a_raw_layer_is_hashed_with_its_whiteouts(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes whiteouts")
    root = make(tmp_path / "root")
    plain = ContentHasher(View((root,), raw=True)).tree()
    os.mknod(root / "gone", stat.S_IFCHR, 0)
    gone = ContentHasher(View((root,), raw=True)).tree()
    os.setxattr(root / "d", "trusted.overlay.opaque", b"y")
    assert len({plain, gone, ContentHasher(View((root,), raw=True)).tree()}) == 3
    assert ContentHasher(View([root])).tree() == plain


def test_deep_trees_are_hashed_without_recursion(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    path = "d"
    for _ in range(1200):
        writer.mkdir(path, 0o755, os.getuid(), os.getgid())
        path += "/d"
    assert len(ContentHasher(View([tmp_path])).select([ALL]).entries) == 1200
    writer.remove("d")


def go_match(pattern: str, name: str) -> bool:
    """A plain backtracking matcher to compare with."""
    if not pattern:
        return not name
    head, rest = pattern[0], pattern[1:]
    if head == "*":
        return go_match(rest, name) or (name[:1] not in ("", "/") and go_match(pattern, name[1:]))
    if not name:
        return False
    if head == "?":
        return name[0] != "/" and go_match(rest, name[1:])
    if head == "\\":
        return bool(rest) and rest[0] == name[0] and go_match(rest[1:], name[1:])
    if head == "[":
        end = rest.index("]")
        body = rest[:end]
        hit = name[0] in body.lstrip("^")
        return name[0] != "/" and hit != body.startswith("^") and go_match(rest[end + 1 :], name[1:])
    return head == name[0] and go_match(rest, name[1:])


def test_wildcards_match_like_a_plain_matcher() -> None:
    random_ = random.Random(7)
    pieces = ["a", "b", ".", "*", "?", "[ab]", "[^a]", "\\*", "**", "-"]
    for _ in range(3000):
        pattern = "".join(random_.choice(pieces) for _ in range(random_.randrange(5)))
        name = "".join(random_.choice("ab.*-") for _ in range(random_.randrange(5)))
        assert (wildcard(pattern).fullmatch(name) is not None) == go_match(pattern, name), (pattern, name)
    assert wildcard("[a-c]x").fullmatch("bx")
    assert wildcard("[\\]]").fullmatch("]")
    assert not wildcard("[z-a]").fullmatch("m")
    for bad in ("[", "[a", "[]a]", "[-x]", "\\", "[a-", "[^", "[^]"):
        with pytest.raises(InvalidValue):
            wildcard(bad)
    assert has_wildcard("a/b*")
    assert not has_wildcard("a\\*b")


def test_pattern_lists() -> None:
    patterns = PatternList(["*.log", "build", "!build/keep", "**/tmp", "/rooted/", "x/**/y"])
    for path, wanted in (
        ("a.log", True),
        ("d/a.log", False),
        ("build", True),
        ("build/x/y", True),
        ("build/keep", False),
        ("build/keep/z", False),
        ("a/b/tmp/c", True),
        ("rooted", True),
        ("x/y", True),
        ("x/a/b/y", True),
        ("x/a", False),
    ):
        assert patterns.matches(path) is wanted, path
    assert patterns.has_exceptions
    only = PatternList(["src/app/*.py", "docs/**/x"])
    for directory, wanted in (
        ("src", True),
        ("src/app", True),
        ("lib", False),
        ("src/lib", False),
        ("docs/a/b", True),
    ):
        assert only.may_match_below(directory) is wanted, directory
    with pytest.raises(InvalidValue):
        PatternList([" ! "])
