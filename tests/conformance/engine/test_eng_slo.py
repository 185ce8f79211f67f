"""Directories as sources (SLO rows)."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import threading
import time
from pathlib import Path

import pytest

from builder.build import BuildRequest
from builder.cache.treewriter import Writer
from builder.errors import PybuildError, UsageError
from builder.solver.progress import StatusEvent
from builder.sources.contexttree import ContextTree
from builder.sources.index import RACY_NS
from builder.sources.local import LocalContext
from cli.commands.build import COMMANDS
from cli.flags import parse
from cli.frontend_options import translated
from cli.render.plain import status_line
from tests.support.buildlab import Built, Lab
from tests.support.rows import row

root_only = pytest.mark.root


@row("SLO-01")
@root_only
def test_what_is_read(lab: Lab) -> None:
    context = lab.context(
        {"a/b": "1", "a-b": "2", "skip/x": "", "link-target/y": "3", ".dockerignore": "skip\n"}
    )
    (context / "link").symlink_to("link-target")
    os.chown(context / "a-b", 1234, 4321)
    with ContextTree(context) as tree:
        assert [name for name, _ in tree.scandir("")] == sorted(os.listdir(context))
    built = lab.build(context, "FROM scratch\nCOPY . /all/\nCOPY link/y /y\n")
    image = Built(lab, built)
    assert set(image.names("all")) == {"a", "a-b", "link", "link-target", ".dockerignore", "Dockerfile"}
    assert (image.stat("all/a-b").st_uid, image.stat("all/a-b").st_gid) == (0, 0)
    assert image.read("y") == "3"
    lab.write(context, {"skip/x": "other"})
    lab.build(context)
    assert not lab.steps_run()  # what is left out is not looked at


@pytest.mark.parametrize("change", ["content", "mode", "time", "kind", "xattr", "owner"])
@row("SLO-02")
@root_only
def test_what_counts_as_changed(lab: Lab, change: str) -> None:
    context = lab.context({"f": "12345", "Dockerfile": "FROM scratch\nCOPY f /\n"})
    file = context / "f"
    old = 1_600_000_000
    os.utime(file, (old, old))
    lab.build(context)
    match change:
        case "content":
            file.write_text("54321")
            os.utime(file, (old, old))  # the same size and time: the change of the inode tells
        case "mode":
            file.chmod(0o755)
        case "time":
            os.utime(file, (old + 9, old + 9))
        case "kind":
            file.unlink()
            file.symlink_to("Dockerfile")
        case "xattr":
            os.setxattr(file, "user.note", b"1")
        case _:
            os.chown(file, 7, 7)
    lab.build(context)
    ran = bool(lab.steps_run())
    assert ran is (change in ("content", "mode", "kind", "xattr"))  # owner and time are none of an image's


@row("SLO-02")
@root_only
def test_dockerfile_edits_that_keep_the_time(lab: Lab) -> None:
    context = lab.context(
        {"Dockerfile": "FROM scratch\nLABEL a=1\n", ".dockerignore": "a\n", "a": "", "b": ""}
    )
    for name, before, after in (("Dockerfile", "a=1", "a=2"), (".dockerignore", "a\n", "b\n")):
        lab.build(context, None if name == "Dockerfile" else "FROM scratch\nCOPY . /\n")
        file = context / name
        st = file.stat()
        file.write_text(file.read_text().replace(before, after))
        os.utime(file, ns=(st.st_atime_ns, st.st_mtime_ns))
        built = Built(lab, lab.build(context))
        if name == "Dockerfile":
            assert built.json["config"]["Labels"] == {"a": "2"}
        else:
            assert built.has("a")
            assert not built.has("b")


@row("SLO-03")
@root_only
def test_contexts_in_turn(lab: Lab) -> None:
    contexts = [lab.context({"f": text, "Dockerfile": "FROM scratch\nCOPY f /\n"}) for text in "xy"]
    for context in contexts:
        lab.build(context)
    for context in contexts * 2:
        lab.build(context)
        assert not lab.steps_run()
    copy = lab.context({"f": "x", "Dockerfile": "FROM scratch\nCOPY f /\n"})
    lab.build(copy)
    assert not lab.steps_run()  # the same content elsewhere is the same


def transfers(lab: Lab, name: str) -> list[StatusEvent]:
    return [e for e in lab.watcher.events if isinstance(e, StatusEvent) and e.id == f"transferring {name}:"]


@row("SLO-04")
@root_only
def test_progress_is_a_running_total(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte that is read counts once; what is known already, and what nothing copies, is not read."""
    monkeypatch.setattr("builder.sources.transfer._EVERY_NS", 0)
    sizes = {"d/a": 3 << 20, "d/b": 1000, "c": 70_000}
    files = {name: b"x" * size for name, size in sizes.items()}
    context = lab.context({**files, "unused": "x" * 500, "Dockerfile": "FROM scratch\nCOPY d c /\n"})
    other = lab.context({"o": "y" * 1234})
    time.sleep(2 * RACY_NS / 1e9)  # what was written just now is not remembered
    lab.build(context)
    told = transfers(lab, "context")
    counts = [event.current for event in told]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 5, "grows while it is read, in the middle of a file too"
    assert counts[-1] == sum(sizes.values())
    assert [bool(event.completed_ns) for event in told] == [False] * (len(told) - 1) + [True]
    assert status_line(told[-1]).startswith("transferring context: 3.22MB")
    assert status_line(told[-1]).endswith(" done")
    (dockerfile,) = transfers(lab, "dockerfile")
    assert dockerfile.current == (context / "Dockerfile").stat().st_size
    (context / "d/b").write_text("changed")
    text = "FROM scratch\nCOPY d c /\nCOPY --from=other o /\n"
    lab.build(context, text, build_contexts=(("other", str(other)),))
    assert transfers(lab, "context")[-1].current == len("changed")
    assert transfers(lab, "other")[-1].current == 1234
    assert transfers(lab, "other")[-1].completed_ns


@row("SLO-04")
@root_only
def test_progress_of_an_archive(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.sources.transfer._EVERY_NS", 0)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("Dockerfile", b"FROM scratch\nCOPY f /\n"), ("f", b"x" * 300_000)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    lab.run(BuildRequest(context="-", stdin=io.BytesIO(out.getvalue())))
    first = transfers(lab, "context")[0].vertex
    counts = [event.current for event in transfers(lab, "context") if event.vertex == first]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert counts[-1] == len(out.getvalue())


@row("SLO-05")
@root_only
def test_kinds_of_files(lab: Lab) -> None:
    context = lab.context({"d/one": "1", "x": ""})
    os.link(context / "d/one", context / "d/two")
    os.mkfifo(context / "d/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(context / "d/sock"))
        built = Built(lab, lab.build(context, "FROM scratch\nCOPY d /\n"))
    one, two = built.stat("one"), built.stat("two")
    assert one.st_ino == two.st_ino
    assert one.st_nlink == 2
    found = built.stat("sock")
    assert stat.S_ISREG(found.st_mode)
    assert found.st_size == 0
    assert stat.S_ISFIFO(built.stat("pipe").st_mode)


@row("SLO-05")
@root_only
def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """As an ordinary user, since root may read all."""
    (tmp_path / "open").write_text("1")
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut/f").write_text("2")
    (tmp_path / "file").write_text("3")
    (tmp_path / "shut").chmod(0)
    (tmp_path / "file").chmod(0)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    code = f"""
import os
os.setgid(65534); os.setuid(65534)
from builder.frontend.dockerignore import IgnoreMatcher
from builder.cache.contenthash import ContentHasher
from builder.llb.ops import Copy
from builder.sources.local import LocalContext
from pathlib import Path
for text in (b"shut\\nfile\\n", b""):
    with LocalContext(Path({str(tmp_path)!r}), ignore=IgnoreMatcher.parse(text) if text else None) as tree:
        try:
            ContentHasher(tree).select((Copy(src="/", dest="/", dir_contents=True),))
            print("fine")
        except Exception as error:
            print(type(error).__name__, error)
"""
    import subprocess
    import sys

    repo = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[:1] == ["fine"], done.stderr[-2000:]
    assert "file" in lines[1] or "shut" in lines[1]


@row("SLO-06")
@root_only
def test_a_file_that_changes_while_it_is_read(lab: Lab) -> None:
    context = lab.context({"f": "0" * 1000, "Dockerfile": "FROM busybox\nCOPY f /f\n"})
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            temporary = context / ".f"
            temporary.write_text(str(number % 10) * 1000)
            os.replace(temporary, context / "f")
            time.sleep(0.001)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            try:
                text = Built(lab, lab.build(context)).read("f")
            except PybuildError as error:
                assert "chang" in str(error)
            else:
                assert len(set(text)) == 1
                assert len(text) == 1000
    finally:
        stop.set()
        thread.join()
    (context / "f").write_text("end")
    assert Built(lab, lab.build(context)).read("f") == "end"


@row("SLO-06")
def test_a_file_is_copied_again_when_it_was_written_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a" * 8_000_000)
    begun = threading.Event()

    def rewrite() -> None:
        end = time.monotonic() + 0.06
        with open(tmp_path / "f", "r+b", buffering=0) as file:
            while time.monotonic() < end:
                for letter in b"bcd":
                    os.pwrite(file.fileno(), bytes([letter]) * 8_000_000, 0)
                    begun.set()

    with LocalContext(tmp_path) as tree, Writer(tmp_path) as writer:
        looked = tree.lstat("f")
        assert looked is not None
        thread = threading.Thread(target=rewrite)
        thread.start()
        begun.wait()
        writer.copy_file("copy", tree, "f", looked, 0o644, 0, 0)
        thread.join()
        assert tree.changed() == ("f",)
    assert (tmp_path / "copy").read_bytes() == b"d" * 8_000_000, "not some of one and some of another"


@row("SLO-06")
def test_the_directory_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    with LocalContext(tmp_path) as tree:
        assert tree.root == tmp_path
        tree.lstat("f")
        (tmp_path / "f").write_text("longer")
        tree.put_file_digest("f", b"0" * 32)
        assert tree.file_digest("f") is None  # not kept: the file is another one now
        with pytest.raises(PybuildError, match="error checking context: cannot read 'f'"):
            tree.readlink("f")  # as of a link that was replaced since it was looked at


@row("SLO-07")
def test_a_name_that_was_not_given() -> None:
    with pytest.raises(UsageError, match=r"^local directory context not enabled"):
        translated(parse(COMMANDS[0], ["--frontend=dockerfile.v0", "--local=other=."]))
    with pytest.raises(UsageError, match=r"^local directory src not enabled"):
        translated(parse(COMMANDS[0], ["--opt=context:x=local:src", "."]))


@row("SLO-07")
@root_only
def test_no_context_at_all(lab: Lab) -> None:
    with pytest.raises(PybuildError, match="there is no build context"):
        import io

        lab.build("-", stdin=io.BytesIO(b"FROM scratch\nCOPY a /\n"))
