"""Gains over the reference that no other row's test shows whole (BET-02, 04, 05, 07)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import PathNotFound, SolveError
from builder.solver.progress import WarningEvent
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = pytest.mark.root


@row("BET-02")
def test_a_miss_is_explained_and_an_ignored_file_is_named(lab: Lab, command: Runner) -> None:
    context = lab.context({"src/a": "1", "src/b": "2", "secret.env": "x", ".dockerignore": "*.env\n"})
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src /src\nRUN cat /src/a\n")
    command.build(context, "--network=none")
    (context / "src/b").write_text("changed")
    shown = command.build(context, "--network=none", "--explain")
    assert "src/b" in shown.err + shown.out
    assert "src/a" not in "".join(line for line in (shown.err + shown.out).splitlines() if "changed" in line)
    with pytest.raises(PathNotFound, match=r"/secret\.env") as caught:
        lab.build(context, "FROM busybox\nCOPY secret.env /\n")
    assert "*.env" in f"{caught.value.hint} {caught.value.context}"


@row("BET-04")
def test_own_attributes_are_in_layers(lab: Lab) -> None:
    context = lab.context({"f": "f"})
    os.setxattr(context / "f", "user.note", b"kept")
    built = Built(lab, lab.build(context, "FROM busybox\nCOPY f /f\nRUN chmod 600 /f\n"))
    with built.tree() as view:
        assert view.xattrs("f") == {"user.note": b"kept"}


@row("BET-05", "BET-06")
def test_copies_do_what_is_documented(lab: Lab) -> None:
    files = {"a": "1", "b": "2", "d/keep": "k", "d/drop.log": "x", "run.log": "x"}
    built = lab.quick("FROM busybox\nCOPY --link --chmod=0751 --chown=3:4 a /linked/a\n", files)
    st = built.stat("linked/a")
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o751, 3, 4)
    text = "# syntax=docker/dockerfile:1-labs\nFROM busybox\nCOPY --exclude=*.log d run.log a /to/\n"
    assert lab.quick(text, files).names("to") == ["a", "keep"], "a file that is a source is excluded as well"
    lab.quick("FROM busybox\nCOPY a b /name\n", files)
    assert any("name" in event.short for event in lab.watcher.events if isinstance(event, WarningEvent))
    for line, message in (
        ("COPY --chown=ghost a /", "user 'ghost'"),
        ("COPY --chown=app:ghost a /", "group 'ghost'"),
    ):
        with pytest.raises(SolveError, match=message) as caught:
            lab.quick(f"FROM busybox\n{line}\n", files)
        assert caught.value.first_line == 2
    stages = "FROM busybox AS one\nRUN echo 'web:x:33:44::/:' >> /etc/passwd\nFROM busybox\nCOPY --from=one --chown=app /bin/sh /sh\nFROM one\nCOPY --chown=web a /a\n"
    built = lab.quick(stages, files)
    assert (built.stat("a").st_uid, built.stat("a").st_gid) == (33, 44)


@row("BET-07")
def test_cache_mounts_are_listed_exported_and_imported(lab: Lab, command: Runner, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,id=travels,target=/c {}\n"
    lab.quick(text.format("echo warm > /c/f"))
    assert "travels" in command.run("builder", "mounts", "ls").out
    archive = tmp_path / "mount.tar"
    command.run("builder", "mounts", "export", "-o", archive, "/travels")
    other = Runner(tmp_path / "other")
    other.run("builder", "mounts", "import", "/travels", archive)
    assert "travels" in other.run("builder", "mounts", "ls").out
    (tmp_path / "again.tar").write_bytes(other.run("builder", "mounts", "export", "/travels").stdout)
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
