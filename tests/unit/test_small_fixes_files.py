"""What copies leave out: attributes that cannot be set, sources that are excluded; programs that say too much."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.policy import CommandJudge
from builder.cache.contenthash import ContentHasher
from builder.cache.filedata import set_xattrs
from builder.cache.tree import TreeError, View
from builder.cache.treewriter import Writer
from builder.cancelling import Cancel, within
from builder.errors import Cancelled, UsageError
from builder.llb.ops import Copy, FileAction, FileOp
from builder.solver.ops.fileop import run_file_op
from builder.sources.command import ask

HUGE = b"x" * 65_000
"""An attribute that tmpfs takes and ext4, with blocks of 4 KiB, does not."""


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A directory whose file system refuses ``HUGE``."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.big", HUGE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.E2BIG):
            return tmp_path
    pytest.skip("this file system takes large attributes")


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A file in memory with an attribute that few file systems take."""
    place = Path(f"/dev/shm/pybuild-test-{os.getpid()}-{time.time_ns()}")
    try:
        place.mkdir()
        (place / "f").write_text("content")
        os.setxattr(place / "f", "user.big", HUGE)
        os.setxattr(place / "f", "user.small", b"1")
    except OSError:
        shutil.rmtree(place, ignore_errors=True)
        pytest.skip("no file system that takes large attributes")
    yield place
    shutil.rmtree(place)


def test_attributes_that_are_too_big_are_left_out_of_copies(dense: Path, roomy: Path) -> None:
    """FIL-13: any error of an attribute is passed over, and said once."""
    action = FileAction(action=Copy(src="/f", dest="/g"), secondary=0, output=0)
    made = dense / "made"
    remarks: list[str] = []
    made.mkdir()
    with View((roomy,)) as source, Writer(made) as writer:
        run_file_op(FileOp(actions=(action,)), (source,), (writer,), remark=remarks.append)
        assert writer.xattr_failed is None
    assert (made / "g").read_text() == "content"
    assert os.getxattr(made / "g", "user.small") == b"1"
    assert "user.big" not in os.listxattr(made / "g")
    assert len(remarks) == 1 and "user.big" in remarks[0]
    with pytest.raises(
        TreeError, match="too big"
    ):  # as when a layer is applied: it would not be the same image
        set_xattrs(str(made / "g"), {"user.big": HUGE})


def test_excluded_directories_among_the_sources(tmp_path: Path) -> None:
    """CPY-18: also a source that is a directory, when a wildcard brought it along."""
    for path in ("pkg/node_modules/x", "pkg/src/y", "pkg/node_modules.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)

    def names(src: str, *exclude: str, whole: bool = True) -> list[str]:
        copy = Copy(
            src=src, dest="/to/", allow_wildcard=True, exclude_patterns=exclude, create_dest_path=True,
            dir_contents=not whole,
        )  # fmt: skip
        made = tmp_path / f"made-{time.time_ns()}"
        made.mkdir()
        with View((tmp_path / "pkg",)) as source, Writer(made) as writer:
            run_file_op(
                FileOp(actions=(FileAction(action=copy, secondary=0, output=0),)), (source,), (writer,)
            )
        return sorted(str(path.relative_to(made)) for path in made.rglob("*"))

    assert names("/*", "node_modules") == ["to", "to/node_modules.txt", "to/src", "to/src/y"]
    assert names("/*", "node_modules", "*.txt", whole=False) == ["to", "to/y"]
    assert "to/node_modules/x" in names("/*", "*", "!x"), "an exception may be in it"
    assert names("/src", "src", whole=False) == ["to", "to/y"], (
        "the one that was named is where patterns begin"
    )


def test_keys_know_which_sources_are_excluded(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("1")
    copy = Copy(src="/*", dest="/", allow_wildcard=True, exclude_patterns=("b",))

    def key() -> str:
        with View((tmp_path,)) as tree:
            return ContentHasher(tree).select((copy,)).digest

    before = key()
    (tmp_path / "b/f").write_text("2")
    assert key() == before
    (tmp_path / "a/f").write_text("2")
    assert key() != before


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_gets_a_question_and_answers(tmp_path: Path) -> None:
    question = b"?" * 1_000_000  # more than a pipe holds, from which the program never reads
    assert ask((program(tmp_path, "echo yes; exit 3"),), question, limit=100, timeout_s=10) == (3, b"yes\n")
    assert ask(("cat",), question, limit=2_000_000, timeout_s=10) == (0, question)


def test_a_policy_program_that_says_too_much_is_stopped(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"source policy command .*more than 1048576 bytes"):
        CommandJudge(command=(program(tmp_path, "exec yes"),)).judge("docker-image://x", {})
    assert time.monotonic() - start < 5


def test_a_program_that_takes_too_long_is_stopped_with_its_children(tmp_path: Path) -> None:
    command = (program(tmp_path, f"sleep 60 & echo $! >{tmp_path}/child; wait"),)
    with pytest.raises(UsageError, match=r"no answer within 0\.3 seconds"):
        ask(command, b"", limit=10, timeout_s=0.3)
    assert _gone(int((tmp_path / "child").read_text()))


def test_a_cancelled_build_does_not_wait_for_its_policy(tmp_path: Path) -> None:
    cancel, start = Cancel(), time.monotonic()
    threading.Timer(0.2, cancel.set).start()
    with within(cancel), pytest.raises(Cancelled):
        CommandJudge(command=(program(tmp_path, "trap '' TERM; sleep 60 & wait; wait"),)).judge("x", {})
    assert time.monotonic() - start < 5


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
