"""Content checksums (CHK-01…10) against a slow model that is written from the rows, not from the code."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from builder.cache.contenthash import ContentHasher
from builder.cache.store import Store
from builder.cache.tree import View
from builder.errors import PathNotFound
from builder.llb.ops import Copy
from builder.solver.cutoff import tree_digest
from builder.sources.local import LocalContext
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.handmade import Bench
from tests.support.opens import watched
from tests.support.rows import row

pytestmark = pytest.mark.root
CAPABILITY = b"\1\0\0\2" + bytes(16)


def model_entry(path: Path) -> bytes:
    """CHK-01…03: the digest of one entry, of a directory its header alone."""
    st = path.lstat()
    kind = {stat.S_IFREG: "0", stat.S_IFLNK: "2", stat.S_IFCHR: "3", stat.S_IFBLK: "4", stat.S_IFDIR: "5",
            stat.S_IFIFO: "6", stat.S_IFSOCK: "0"}[stat.S_IFMT(st.st_mode)]  # fmt: skip
    device = kind in "34"
    header = [
        ("name", ""),
        ("mode", str(0o777 if kind == "2" else st.st_mode & 0o7777)),
        ("uid", str(st.st_uid)),
        ("gid", str(st.st_gid)),
        ("size", str(st.st_size if stat.S_ISREG(st.st_mode) else 0)),
        ("typeflag", kind),
        ("linkname", os.readlink(path) if kind == "2" else ""),
        ("uname", ""),
        ("gname", ""),
        ("devmajor", str(os.major(st.st_rdev) if device else 0)),
        ("devminor", str(os.minor(st.st_rdev) if device else 0)),
    ]
    data = "".join(name + value for name, value in header).encode()
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        if key == "security.capability" or not key.startswith(("security.", "system.")):
            data += key.encode() + os.getxattr(path, key, follow_symlinks=False)
    if stat.S_ISREG(st.st_mode):
        data += path.read_bytes()
    return hashlib.sha256(data).digest()


def model_directory(path: Path, *, own: bool = True) -> bytes:
    """CHK-04; ``own=False`` leaves out the directory's own header (CHK-05)."""
    data = b"\0" + text(model_entry(path)) if own else b""
    return hashlib.sha256(data + model_children(path)).digest()


def model_children(path: Path) -> bytes:
    data = b""
    for name in sorted(os.listdir(path), key=os.fsencode):
        child = path / name
        inner = model_directory(child) if child.is_dir() and not child.is_symlink() else model_entry(child)
        data += b"\0" + os.fsencode(name) + text(inner)
    return data


def model_list(*entries: tuple[str, bytes]) -> str:
    """CHK-06: paths below the part without wildcards, with "/" as NUL, and digests; in this order."""
    data = b"".join((path.encode().replace(b"/", b"\0") or b"\0") + text(digest) for path, digest in entries)
    return named(hashlib.sha256(data).digest())


def text(digest: bytes) -> bytes:
    return named(digest).encode()


def select(root: Path, *copies: Copy) -> str:
    return ContentHasher(View([root])).select(copies).digest


def named(digest: bytes) -> str:
    return f"sha256:{digest.hex()}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/deep").write_text("deep")
    (root / "d/f").write_bytes(b"f" * 70_000)
    (root / "a.txt").write_text("a")
    (root / "ab").write_text("between a.txt and d by bytes")
    (root / "b.txt").write_text("b")
    (root / "empty").touch()
    (root / "link").symlink_to("d/f")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    os.chown(root / "d/f", 7, 8)
    os.chmod(root / "d/f", 0o4750)
    os.setxattr(root / "d/f", "security.capability", CAPABILITY)
    os.setxattr(root / "d/f", "user.z", b"1")
    os.setxattr(root / "d/f", "user.a", b"2")
    os.setxattr(root / "d", "user.dir", b"3")
    return root


@row("CHK-01", "CHK-03")
def test_every_type_of_entry_like_the_model(tree: Path) -> None:
    hasher = ContentHasher(View([tree]))
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        assert hasher.file(name) == named(model_entry(path)), name
    os.utime(tree / "d/f", (1, 1))
    assert hasher.file("d/f") == named(model_entry(tree / "d/f")), "times do not count"


@row("CHK-02")
def test_attributes_that_count(tree: Path) -> None:
    before = ContentHasher(View([tree])).file("d/f")
    os.setxattr(tree / "d/f", "security.other", b"x")
    assert ContentHasher(View([tree])).file("d/f") == before
    for key in ("trusted.k", "user.k"):
        os.setxattr(tree / "d/f", key, b"x")
        after = ContentHasher(View([tree])).file("d/f")
        assert after != before
        before = after
    os.setxattr(tree / "d/f", "security.capability", CAPABILITY[:-1] + b"\1")
    assert ContentHasher(View([tree])).file("d/f") != before


@row("CHK-03")
def test_a_socket_counts_as_an_empty_file(tree: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(tree)
        made.bind("s")
        os.chdir("/")
    os.chmod(tree / "s", 0o644)
    (tree / "plain").touch(0o644)
    hasher = ContentHasher(View([tree]))
    assert hasher.file("s") == hasher.file("plain") == named(model_entry(tree / "s"))


@row("CHK-04")
def test_directories_like_the_model(tree: Path) -> None:
    assert ContentHasher(View([tree])).tree() == named(model_directory(tree))
    whole = Copy(src="/d", dest="/x")
    assert select(tree, whole) == named(model_directory(tree / "d"))
    before = select(tree, whole)
    os.chmod(tree / "d", 0o700)
    assert select(tree, whole) == named(model_directory(tree / "d")) != before


@row("CHK-04", "CHK-05")
def test_the_root_of_a_context_and_the_top_of_a_copied_directory_do_not_count(tree: Path, lab: Lab) -> None:
    contents = Copy(src="/d", dest="/x", dir_contents=True)
    assert select(tree, contents) == named(model_directory(tree / "d", own=False))
    context = lab.context({"d/f": "f"})
    text = "FROM busybox\nCOPY d /b\nCOPY . /a\nRUN --mount=type=bind,target=/src cat /src/d/f\n"
    lab.build(context, text)
    os.chmod(context, 0o711)
    lab.build(context, text)
    assert lab.steps_run() == []
    os.chmod(context / "d", 0o711)
    lab.build(context, text)
    assert [name for name in lab.steps_run() if "COPY d" in name] == []
    assert len(lab.steps_run()) == 2, "where it is copied or mounted as itself it does count"


@row("CHK-04")
def test_the_root_of_a_context_has_a_constant_header(tree: Path) -> None:
    for path in (tree / "d/f", tree / "fifo"):
        os.chown(path, 0, 0)  # as everything in a context is
    children = model_directory(tree, own=False)
    with LocalContext(tree) as context:
        whole = [
            ContentHasher(context).select((Copy(src="/", dest="/x", dir_contents=contents),)).digest
            for contents in (True, False)
        ]
    start = b"\0" + text(hashlib.sha256(b"").digest())
    assert whole == [named(hashlib.sha256(start + model_children(tree)).digest())] * 2
    assert children == hashlib.sha256(model_children(tree)).digest()


@row("CHK-04")
def test_a_mounted_directory_shows_what_is_counted(lab: Lab) -> None:
    context = lab.context({"d/f": "f"})
    os.chmod(context / "d", 0o750)
    text = "FROM busybox\nRUN --mount=type=bind,source=d,target=/src stat -c %a /src > /mode\n"
    assert Built(lab, lab.build(context, text)).read("mode") == "750\n"
    os.chmod(context / "d", 0o700)
    assert Built(lab, lab.build(context, text)).read("mode") == "700\n"


@row("CHK-06")
def test_what_wildcards_match_is_a_list_of_paths_and_digests(tree: Path) -> None:
    def wild(src: str, *, contents: bool = False) -> str:
        copy = Copy(
            src=src, dest="/x/", allow_wildcard=True, allow_empty_wildcard=True, dir_contents=contents
        )
        return select(tree, copy)

    def listed(*paths: str, below: str = "") -> str:
        return model_list(*((f"/{path}", model_entry(tree / below / path)) for path in paths))

    assert wild("/*.txt") == listed("a.txt", "b.txt")
    assert wild("/a.*") == listed("a.txt"), "under another name than the pattern's it stays a list"
    assert wild("/d/[fe]*/dee*") == listed("e/deep", below="d"), "without what comes before the wildcard"
    (tree / "d.x").touch()
    assert wild("/d*") == listed("d", "d/e", "d/e/deep", "d/f", "d.x", "disk"), "in the order of a walk"
    assert wild("/*.zip") == named(hashlib.sha256(b"").digest())
    assert wild("/a.txt") == named(model_entry(tree / "a.txt"))
    (tree / "q?").touch()
    (tree / "qs").mkdir()
    assert wild("/q?") == listed("q?", "qs")
    (tree / "qs").rmdir()
    assert wild("/q?") == named(model_entry(tree / "q?")), "one match of the pattern's own name"
    top = (tree / "d").stat().st_mode
    contents = [(f"/{path}", model_entry(tree / path)) for path in ("d/e", "d/e/deep", "d/f", "d.x")]
    assert wild("/d[.]*", contents=True) == listed("d.x")
    nothing = hashlib.sha256(b"").digest()
    (tree / "disk").unlink()
    for mode in (top, 0o711):
        os.chmod(tree / "d", mode)
        assert wild("/d*", contents=True) == model_list(("/d", nothing), *contents), "CHK-05"


@row("CHK-05", "CHK-06")
def test_filters_count_what_they_let_through_and_its_parents(tree: Path) -> None:
    def model(*paths: str) -> str:
        return model_list(*((f"/{path}" if path else "", model_entry(tree / "d" / path)) for path in paths))

    def filtered(src: str = "/d", *, contents: bool = True, **patterns: tuple[str, ...]) -> str:
        return select(tree, Copy(src=src, dest="/x", dir_contents=contents, **patterns))  # type: ignore[arg-type]

    assert filtered(include_patterns=("e/deep",)) == model("e", "e/deep"), (
        "the header of a parent counts once a child does"
    )
    assert filtered(exclude_patterns=("f",)) == model("e", "e/deep")
    assert filtered(contents=False, exclude_patterns=("f",)) == model("", "e", "e/deep")
    assert filtered(include_patterns=("nothing",)) == named(hashlib.sha256(b"").digest())
    assert filtered("/a.txt", exclude_patterns=("f",)) == named(model_entry(tree / "a.txt"))
    (tree / "way").symlink_to("d")
    assert filtered("/way/e", exclude_patterns=("f",)) == model_list(
        ("/deep", model_entry(tree / "d/e/deep"))
    )
    before = filtered(exclude_patterns=("f",))
    os.chmod(tree / "d", 0o711)
    assert filtered(exclude_patterns=("f",)) == before
    os.chmod(tree / "d/e", 0o711)
    assert filtered(exclude_patterns=("f",)) == model("e", "e/deep") != before
    (tree / "same").mkdir()
    (tree / "same/same").touch()
    (tree / "same/other").touch()
    assert filtered("/same", exclude_patterns=("same",)) == model_list(
        ("/other", model_entry(tree / "same/other"))
    )
    only = Copy(src="/same", dest="/x", dir_contents=True, exclude_patterns=("other",))
    inside = ContentHasher(View([tree])).select([only])
    assert inside.digest == named(model_entry(tree / "same/same")), "one match of the pattern's own name"
    (tree / "same/same").rename(tree / "moved")
    (tree / "same/other").unlink()
    (tree / "same").rmdir()
    (tree / "moved").rename(tree / "same")
    alone = ContentHasher(View([tree])).select([only])
    assert alone.digest == inside.digest == alone.key
    assert alone.key != inside.key, "a file is another thing than a directory with a file of its name"


@row("CHK-06")
def test_several_selections_of_one_input_are_joined(tree: Path) -> None:
    one, two = (Copy(src=src, dest="/x/") for src in ("/a.txt", "/d"))
    parts = [model_entry(tree / "a.txt"), model_directory(tree / "d")]
    assert select(tree, one, two) == named(hashlib.sha256(b"\0".join(map(text, parts))).digest())


@row("CHK-06", "CHK-07")
def test_links_at_the_top_are_hashed_through_where_asked(tree: Path) -> None:
    through, plain = (Copy(src="/link", dest="/x", follow_symlink=follow) for follow in (True, False))
    assert select(tree, through) == named(model_entry(tree / "d/f"))
    assert select(tree, plain) == named(model_entry(tree / "link"))
    wild = Copy(src="/l*", dest="/x/", allow_wildcard=True, follow_symlink=True)
    assert select(tree, wild) == model_list(("/link", model_entry(tree / "d/f"))), "under the name asked for"
    (tree / "loft").symlink_to("d")
    assert select(tree, wild) == model_list(
        ("/link", model_entry(tree / "d/f")), ("/loft", model_directory(tree / "d"))
    )
    (tree / "d/inner").symlink_to("f")
    filtered = Copy(src="/d", dest="/x", dir_contents=True, follow_symlink=True, include_patterns=("inner",))
    assert select(tree, filtered) == model_list(("/inner", model_entry(tree / "d/inner"))), "only at the top"


@row("CHK-07")
def test_components_are_followed_inside_the_tree_and_cycles_end(tree: Path) -> None:
    (tree / "way").symlink_to("/d/../../../d")
    (tree / "loop").symlink_to("loop2")
    (tree / "loop2").symlink_to("loop")
    assert select(tree, Copy(src="/way/e/deep", dest="/x")) == named(model_entry(tree / "d/e/deep"))
    assert select(tree, Copy(src="/way/e/dee*", dest="/x/", allow_wildcard=True)) == model_list(
        ("/deep", model_entry(tree / "d/e/deep"))
    )
    with pytest.raises(PathNotFound):
        select(tree, Copy(src="/loop", dest="/x", follow_symlink=True, include_patterns=("x",)))
    with pytest.raises(PathNotFound):
        select(tree, Copy(src="/loop/x", dest="/x"))
    for number in range(256):
        (tree / f"n{number}").symlink_to(f"n{number + 1}" if number < 255 else "a.txt")
    with pytest.raises(PathNotFound):
        select(tree, Copy(src="/n0", dest="/x", follow_symlink=True))
    assert select(tree, Copy(src="/n1", dest="/x", follow_symlink=True)) == named(model_entry(tree / "a.txt"))


@row("CHK-08")
@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("COPY nope /x", "/nope"),
        ("COPY --from=busybox /no/pe /x", "/no/pe"),
        ("COPY --parents no/./pe /x", "/no"),
        ("COPY --parents no/pe /x", "/no/pe"),
        ("COPY --exclude=x no /x", "/no"),
        ("RUN --mount=type=bind,source=no,target=/x true", "/no"),
    ],
)
def test_a_missing_path_is_quoted_with_its_ref(lab: Lab, line: str, path: str) -> None:
    with pytest.raises(PathNotFound) as caught:
        lab.quick(f"# syntax=docker/dockerfile:1-labs\nFROM busybox\n{line}\n")
    message = caught.value.message
    assert message.startswith("failed to compute cache key: failed to calculate checksum of ref ")
    assert message.endswith(f'"{path}": not found')


@row("CHK-09")
def test_another_name_counts_as_the_file(tree: Path) -> None:
    os.link(tree / "a.txt", tree / "hard")
    linked = ContentHasher(View([tree]))
    assert linked.file("hard") == linked.file("a.txt") == named(model_entry(tree / "a.txt"))
    both = linked.tree()
    (tree / "hard").unlink()
    (tree / "hard").write_text("a")
    assert ContentHasher(View([tree])).tree() == both, "whether it is one file or two does not count"


@row("CHK-10")
def test_what_was_hashed_is_not_read_again(lab: Lab, command: Runner) -> None:
    context = lab.context({"big": "x" * 100_000, "other": "y"})
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/c,source=big true\nCOPY other /\n")
    command.run("build", "--network=none", str(context))
    (context / "other").write_text("changed")
    with watched(context / "big", context / "other") as opened:
        command.run("build", "--network=none", str(context))
    assert opened == ["other"]


@row("CHK-10")
def test_digests_of_snapshots_survive_the_process(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("f")
    with Store.open(tmp_path / "root") as store:
        bench = Bench(store)
        snapshot = bench.solve(bench.put(tree))
        assert snapshot is not None
        before = tree_digest(store, snapshot)
        own, _ = store.snapshots.diff_dir(snapshot)
    with watched(own / "f") as opened, Store.open(tmp_path / "root") as store:
        assert tree_digest(store, snapshot) == before
    assert opened == []


@row("CHK-06")
def test_a_file_and_a_directory_with_such_a_file_are_copied_each_as_it_is(lab: Lab) -> None:
    text = "FROM scratch\nCOPY --exclude=other same /x\n"
    inside = lab.context({"Dockerfile": text, "same/same": "s", "same/other": "o"})
    alone = lab.context({"Dockerfile": text, "same": "s"})
    assert Built(lab, lab.build(inside, text)).read("x/same") == "s"
    assert Built(lab, lab.build(alone, text)).read("x") == "s"
