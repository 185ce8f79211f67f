"""Local contexts: what a build sees of a directory, and what is remembered of it (SLO, IGN, CTX-13)."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import PathNotFound, SourceUnavailable
from builder.frontend.dockerignore import IgnoreMatcher
from builder.sources import beneath
from builder.sources.index import FileIndex, Stamp, dump_records
from builder.sources.local import LocalContext


class Memory:
    """``Documents`` in a dictionary."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], bytes] = {}

    def doc(self, kind: str, key: str) -> bytes | None:
        return self.data.get((kind, key))

    def put_doc(self, kind: str, key: str, data: bytes) -> None:
        self.data[kind, key] = data


class Rules:
    """Prefix rules: enough of an ignore file for these tests."""

    def __init__(self, excluded: set[str], brought_back: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.excluded, self.back = excluded, brought_back

    def excludes(self, path: str) -> bool:
        if path in self.back:
            return False
        parts = path.split("/")
        return any("/".join(parts[:count]) in self.excluded for count in range(1, len(parts) + 1))

    def may_hold_exception(self, directory: str) -> bool:
        return any(one.startswith(directory + "/") for one in self.back)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "ctx"
    (root / "src/deep").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "a.txt").write_text("a")
    (root / "src/b.txt").write_text("b")
    (root / "src/deep/c.txt").write_text("c")
    (root / "docs/README.md").write_text("readme")
    (root / "docs/other.md").write_text("other")
    (root / "link").symlink_to("src/b.txt")
    return root


def settle(root: Path) -> None:
    """Make every file old enough to be trusted."""
    time.sleep(0.03)


def read(context: LocalContext, path: str) -> bytes:
    return context.read(path, 1 << 20)


def hasher(context: LocalContext, reads: list[str]) -> Callable[[], bytes]:
    """A digest of everything that uses the file index as the content hasher does."""

    def compute() -> bytes:
        total = hashlib.sha256()
        for path, st in context.walk():
            if stat.S_ISREG(st.st_mode):
                digest = context.file_digest(path)
                if digest is None:
                    reads.append(path)
                    digest = hashlib.sha256(read(context, path)).digest()
                    context.put_file_digest(path, digest)
                total.update(path.encode() + digest)
        return total.digest()

    return compute


class TestTree:
    def test_walk_is_sorted_by_component_with_directories_first(self, tree: Path) -> None:
        (tree / "src-x").write_text("x")
        with LocalContext(tree) as context:
            assert [path for path, _ in context.walk()] == [
                "a.txt",
                "docs",
                "docs/README.md",
                "docs/other.md",
                "link",
                "src",
                "src/b.txt",
                "src/deep",
                "src/deep/c.txt",
                "src-x",
            ]

    def test_everything_counts_as_owned_by_root(self, tree: Path) -> None:
        with LocalContext(tree) as context:
            assert context.owner == (0, 0)

    def test_socket_is_an_empty_regular_file(self, tree: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tree / "sock"))
            with LocalContext(tree) as context:
                st = context.lstat("sock")
                assert st is not None
                assert stat.S_ISREG(st.st_mode)
                assert st.st_size == 0
                assert dict(context.scandir(""))["sock"].st_mode == st.st_mode
                assert read(context, "sock") == b""

    def test_fifo_is_not_opened(self, tree: Path) -> None:
        os.mkfifo(tree / "pipe")
        with LocalContext(tree) as context, pytest.raises(SourceUnavailable):
            context.open("pipe")

    def test_ignored_paths_do_not_exist(self, tree: Path) -> None:
        with LocalContext(tree, ignore=Rules({"src"})) as context:
            assert context.lstat("src") is None
            assert context.lstat("src/b.txt") is None
            assert context.scandir("src") == []
            assert "src" not in dict(context.scandir(""))
            assert context.is_ignored("src/b.txt")
            assert not context.is_ignored("nothing")
            with pytest.raises(PathNotFound):
                context.open("src/b.txt")

    def test_exception_below_an_excluded_directory_keeps_the_parents(self, tree: Path) -> None:
        rules = Rules({"docs", "src"}, {"docs/README.md", "src/none"})
        with LocalContext(tree, ignore=rules) as context:
            assert [path for path, _ in context.walk()] == ["a.txt", "docs", "docs/README.md", "link"]
            assert context.lstat("docs") is not None
            assert context.lstat("src") is None

    def test_unreadable_excluded_directory_is_no_problem(self, tree: Path) -> None:
        (tree / "secret").mkdir(mode=0)
        with LocalContext(tree, ignore=Rules({"secret"})) as context:
            assert "secret" not in dict(context.scandir(""))

    def test_links_resolve_inside(self, tree: Path) -> None:
        (tree / "abs").symlink_to("/src/deep")
        (tree / "up").symlink_to("../../../../etc/passwd")
        (tree / "loop").symlink_to("loop")
        with LocalContext(tree) as context:
            assert context.resolve("link") == "src/b.txt"
            assert context.resolve("link", follow_final=False) == "link"
            assert context.resolve("abs/c.txt") == "src/deep/c.txt"
            assert context.resolve("up") == "etc/passwd"
            assert context.lstat("etc/passwd") is None
            with pytest.raises(PathNotFound):
                context.resolve("loop")

    def test_paths_through_links_are_not_followed_by_the_kernel(self, tree: Path) -> None:
        (tree / "out").symlink_to("/etc")
        with LocalContext(tree) as context:
            assert context.lstat("out/passwd") is None
            assert context.scandir("out") == []
            with pytest.raises(PathNotFound):
                context.open("out/passwd")
            with pytest.raises(PathNotFound):
                context.open("../../etc/passwd")

    def test_directory_swapped_for_a_link_is_not_followed(self, tree: Path) -> None:
        outside = tree.parent / "outside"
        (outside / "deep").mkdir(parents=True)
        (outside / "b.txt").write_text("host secret")
        with LocalContext(tree) as context:
            list(context.walk())
            (tree / "src").rename(tree / "moved")
            (tree / "src").symlink_to(outside)
            own = (tree / "moved/b.txt").read_bytes()
            assert context.read("src/b.txt", 100) == own  # the directory that was looked at is still open
            assert context.changed() == ("src/b.txt",)
            with pytest.raises(SourceUnavailable):
                context.open("src/b.txt")

    def test_missing_directory_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailable, match="nowhere"):
            LocalContext(tmp_path / "nowhere")

    def test_deep_trees_need_few_descriptors(self, tmp_path: Path) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        for _ in range(300):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        with LocalContext(tmp_path) as context:
            assert context.remembered("s", [""], lambda: b"value") == b"value"

    def test_deep_trees_cost_one_step_a_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        for _ in range(1200):  # deeper than Python lets functions call each other
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.close(fd)
        steps: list[str] = []
        check = beneath.check_name

        def counted(name: str) -> None:
            steps.append(name)
            check(name)

        monkeypatch.setattr(beneath, "check_name", counted)
        try:
            with LocalContext(tmp_path, ignore=IgnoreMatcher(("*", "!**/f"))) as context:
                paths = [path for path, _ in context.walk()]
                assert [context.xattrs(path) for path in paths] == [{}] * 1201
            assert len(steps) < 10 * len(paths)
        finally:  # too deep for what clears temporary directories later
            subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


class TestMemory:
    def test_unchanged_context_is_not_computed_again(self, tree: Path) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            first = context.remembered("all", [""], hasher(context, reads))
        assert len(reads) == 5
        with LocalContext(tree, documents=memory) as context:
            again = context.remembered("all", [""], lambda: pytest.fail("computed again"))
        assert again == first

    def test_other_rules_for_keys_trust_nothing(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            context.remembered("all", [""], hasher(context, reads))
        reads.clear()
        monkeypatch.setattr("builder.sources.local.KEY_VERSION", 10_000)
        with LocalContext(tree, documents=memory) as context:
            assert context.unchanged("all", [""]) is None
            context.remembered("all", [""], hasher(context, reads))
        assert len(reads) == 5, "digests of files are not taken either"

    def test_only_a_changed_file_is_read_again(self, tree: Path) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            first = context.remembered("all", [""], hasher(context, reads))
        reads.clear()
        (tree / "src/b.txt").write_text("B")
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            second = context.remembered("all", [""], hasher(context, reads))
        assert reads == ["src/b.txt"]
        assert first != second

    def test_same_size_and_mtime_is_noticed_by_ctime(self, tree: Path) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            first = context.remembered("all", [""], hasher(context, reads))
        old = os.stat(tree / "a.txt")
        (tree / "a.txt").write_text("z")
        os.utime(tree / "a.txt", ns=(old.st_atime_ns, old.st_mtime_ns))
        with LocalContext(tree, documents=memory) as context:
            assert context.remembered("all", [""], hasher(context, reads)) != first

    def test_racy_file_is_not_trusted(self, tree: Path) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        (tree / "a.txt").write_text("x")
        with LocalContext(tree, documents=memory) as context:
            context.remembered("all", [""], hasher(context, reads))
        assert not any(kind == "ctxblock" for kind, _ in memory.data)
        reads.clear()
        with LocalContext(tree, documents=memory) as context:
            context.remembered("all", [""], hasher(context, reads))
        assert reads == ["a.txt"]

    def test_other_ignore_rules_are_another_selection(self, tree: Path) -> None:
        memory = Memory()
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            context.remembered("all", [""], lambda: b"one")
        with LocalContext(tree, documents=memory, ignore=Rules(set()), ignore_key="r") as context:
            assert context.remembered("all", [""], lambda: b"two") == b"two"

    def test_selection_follows_links_in_its_prefix(self, tree: Path) -> None:
        memory = Memory()
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            context.remembered("link", ["link"], lambda: b"one")
        (tree / "docs/other.md").write_text("not selected")
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            assert context.remembered("link", ["link"], lambda: b"two") == b"one"
        (tree / "src/b.txt").write_text("changed")
        with LocalContext(tree, documents=memory) as context:
            assert context.remembered("link", ["link"], lambda: b"three") == b"three"

    def test_wildcard_selection_with_links_covers_the_whole_context(self, tree: Path) -> None:
        memory = Memory()
        (tree / "docs/away").symlink_to("../src/b.txt")
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            context.remembered("docs/*", ["docs"], lambda: b"one", wildcard=True)
        (tree / "src/b.txt").write_text("changed")
        with LocalContext(tree, documents=memory) as context:
            assert context.remembered("docs/*", ["docs"], lambda: b"two", wildcard=True) == b"two"

    def test_missing_selection_appears(self, tree: Path) -> None:
        memory = Memory()
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            context.remembered("new", ["new"], lambda: b"none")
        (tree / "new").write_text("here")
        with LocalContext(tree, documents=memory) as context:
            assert context.remembered("new", ["new"], lambda: b"some") == b"some"

    def test_change_between_look_and_read_is_reported(self, tree: Path) -> None:
        memory = Memory()
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            list(context.walk())
            (tree / "a.txt").write_text("other")
            assert read(context, "a.txt") == b"other"
            assert context.changed() == ("a.txt",)
            context.put_file_digest("a.txt", b"x" * 32)
            assert context.file_digest("a.txt") is None

    def test_removed_files_leave_the_index(self, tree: Path) -> None:
        memory, reads = Memory(), []  # type: ignore[var-annotated]
        settle(tree)
        with LocalContext(tree, documents=memory) as context:
            hasher(context, reads)()
        (tree / "a.txt").unlink()
        with LocalContext(tree, documents=memory) as context:
            hasher(context, reads)()
        (data,) = (data for (kind, _), data in memory.data.items() if kind == "ctxindex")
        assert "a.txt" not in FileIndex(data).known()


class TestIndexFile:
    def test_round_trip(self) -> None:
        one: Stamp = (1, 2, 3, 4, -5, 6)
        data = dump_records({"a/b": (one, b"d" * 32), "caf\udce9": (one, b"e" * 32)})
        assert set(FileIndex(data).known()) == {"a/b", "caf\udce9"}
        assert FileIndex(data).dump() == data

    @pytest.mark.parametrize("size", range(0, 116, 5))
    def test_damage_is_an_empty_index(self, size: int) -> None:
        data = dump_records({"a": ((1, 2, 3, 4, 5, 6), b"d" * 32)})
        assert FileIndex(data[:size]).known() == ()

    def test_record_beyond_64_bits_is_left_out(self) -> None:
        data = dump_records({"a": ((1, 1 << 64, 3, 4, 5, 6), b"d" * 32)})
        assert FileIndex(data).known() == ()
