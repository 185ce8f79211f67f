"""ADD, what COPY refuses, special files, and what both ask of the context and are keyed on (CPY-19…26)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import socket
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.errors import PybuildError
from builder.frontend.errors import DockerfileError
from tests.support.buildlab import Built, Lab
from tests.support.dockerfiles import converted, history, ops, rules
from tests.support.rows import row

root_only = pytest.mark.root


def problem(text, **changes):
    with pytest.raises(DockerfileError) as caught:
        converted(text, **changes)
    return caught.value


def tar_of(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(text), 0o640, 77, 78
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@row("CPY-19")
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress], ids=lambda f: f.__name__
)
@root_only
def test_add_unpacks(lab: Lab, pack: Callable[[bytes], bytes]) -> None:
    data = pack(tar_of({"in/side": "1", "top": "2"}))
    built = lab.quick(
        "FROM scratch\nCOPY old /un/top\nADD thing /un/\nADD --chown=5:6 --chmod=700 thing /own/\n"
        "ADD --unpack=false thing /kept\nADD text /t/\nADD *t* /any/\nADD d /d/\n",
        {"thing": data, "text": "no archive", "old": "old", "d/thing": data},
    )
    assert (built.read("un/in/side"), built.read("un/top")) == ("1", "2")
    assert (built.stat("un/top").st_uid, built.stat("un/top").st_gid) == (77, 78)
    own = built.stat("own/top")
    assert (own.st_uid, own.st_gid, own.st_mode & 0o7777) == (5, 6, 0o640)
    assert built.stat("kept").st_size == len(data)
    assert built.names("t") == ["text"]
    assert {"in", "top", "text"} <= set(built.names("any"))


@row("CPY-20", "CPY-21")
@root_only
def test_add_url(lab: Lab, site: tuple[str, Path]) -> None:
    url, root = site
    (root / "f.txt").write_text("remote")
    os.utime(root / "f.txt", (1_400_000_000, 1_400_000_000))
    (root / "a.tar").write_bytes(tar_of({"x": "1"}))
    (root / "index.html").write_text("home")
    good = hashlib.sha256(b"remote").hexdigest()
    built = lab.quick(
        f"FROM scratch\nADD {url}/f.txt /d/\nADD --chmod=644 --chown=3:4 {url}/f.txt /name\nADD {url}/a.tar /kept/\n"
        f"ADD --unpack=true {url}/a.tar /un/\nADD --checksum=sha256:{good} {url}/f.txt /sum\nADD {url}/ /no/\n"
    )
    found = built.stat("d/f.txt")
    assert (found.st_mode & 0o7777, found.st_uid, int(found.st_mtime)) == (0o600, 0, 1_400_000_000)
    found = built.stat("name")
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o644, 3, 4)
    assert (built.names("kept"), built.names("un"), built.names("no")) == (["a.tar"], ["x"], ["__unnamed__"])
    assert built.read("sum") == "remote"
    with pytest.raises(PybuildError, match=f"digest mismatch sha256:{good}: sha256:{'0' * 64}"):
        lab.quick(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/f.txt /\n")


@row("CPY-21")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY --checksum=sha256:x a b", "checksum can't be specified for COPY"),
        ("ADD --checksum=sha256:x a b c/", "checksum can't be specified for multiple sources"),
        ("ADD --checksum=sha256:x a b", "checksum requires HTTP(S) or Git sources"),
    ],
)
def test_where_a_checksum_makes_no_sense(line: str, message: str) -> None:
    assert message in problem(f"FROM a\n{line}\n").message


@row("CPY-21", "CPY-22")
@root_only
def test_add_git(lab: Lab, repository: tuple[str, str]) -> None:
    url, commit = repository
    built = lab.quick(
        f"FROM scratch\nADD {url} /head\nADD {url}#v1:sub /sub/\nADD --keep-git-dir=true {url}#v1 /kept\n"
        f"ADD --checksum={commit} {url}#v1 /sum\n"
    )
    assert (built.read("head/a"), built.read("sum/a")) == ("newer", "one")
    assert ".git" not in built.names("head")
    assert built.names("sub") == ["Dockerfile", "b"]
    assert ".git" in built.names("kept")
    wrong = "0" * 40
    with pytest.raises(PybuildError, match=f"expected checksum to match {wrong}, got {commit}"):
        lab.quick(f"FROM scratch\nADD --checksum={wrong} {url}#v1 /\n")


@row("CPY-22")
def test_add_git_conflicts() -> None:
    line = "ADD --keep-git-dir=true https://h/r.git?keep-git-dir=false /d"
    assert problem(f"FROM a\n{line}\n").message == "inconsistent keep-git-dir configuration"
    line = "ADD --checksum=abcdef1 https://h/r.git?checksum=abcdef2 /d"
    assert problem(f"FROM a\n{line}\n").message == 'checksum mismatch "abcdef1" != "abcdef2"'


@row("CPY-23")
def test_copy_takes_no_url() -> None:
    assert problem("FROM a\nCOPY https://h/f d\n").message == "source can't be a URL for COPY"
    assert problem("FROM a\nCOPY https://h/r.git d\n").message == "source can't be a git ref for COPY"
    assert problem("FROM a\nCOPY git@h:r.git d\n").message == "source can't be a git ref for COPY"


@row("CPY-24")
@root_only
def test_special_files(lab: Lab) -> None:
    context = lab.context({"d/f": "F", "Dockerfile": "FROM scratch\nCOPY d /d\n"})
    os.mkfifo(context / "d/pipe")
    os.mknod(context / "d/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(context / "d")
        try:
            sock.bind("sock")
        finally:
            os.chdir(here)
        built = Built(lab, lab.build(context))
    assert stat.S_ISFIFO(built.stat("d/pipe").st_mode)
    null = built.stat("d/null")
    assert stat.S_ISCHR(null.st_mode)
    assert (os.major(null.st_rdev), os.minor(null.st_rdev)) == (1, 3)
    found = built.stat("d/sock")
    assert stat.S_ISREG(found.st_mode)
    assert found.st_size == 0


@row("CPY-25")
def test_what_is_asked_of_the_context() -> None:
    def wanted(text):
        (local,) = [s for s in ops(converted(text), "SourceOp") if s.identifier == "local://context"]
        return local.attr("local.followpaths")

    text = "FROM a AS x\nCOPY unused /\nFROM a AS y\nCOPY b /\nFROM y\nCOPY c /d/\nRUN --mount=source=e,target=/f g\n"
    assert wanted(text) == '["b","c","e"]'
    assert wanted("FROM a\nCOPY b /\nCOPY . .\n") == ""


@row("CPY-26")
@root_only
def test_what_a_copy_is_keyed_on(lab: Lab) -> None:
    context = lab.context({"src/a": "1", "other": "1"})
    text = "FROM busybox\nCOPY src /src\n"

    def runs(text: str = text) -> bool:
        lab.build(context, text)
        return any("COPY" in name for name in lab.steps_run())

    assert runs()
    os.utime(context / "src/a", (1, 1))
    (context / "other").write_text("2")
    assert not runs(), "neither times nor other files count"
    (context / "up").mkdir()
    (context / "src").rename(context / "up/src")
    assert not runs(text.replace("COPY src", "COPY up/src")), "nor does the directory above"
    text = text.replace("COPY src", "COPY up/src")
    (context / "up/src").chmod(0o711)
    assert not runs(text), "a directory's own mode is not used by the copy, so it does not count (CHK-05)"
    (context / "up/src/a").chmod(0o600)
    assert runs(text)
    (context / "up/src/a").write_text("3")
    assert runs(text)
    assert runs(text.replace(" /src", " /dest"))


@row("CPY-01", "HIS-03")
def test_flags_in_the_history() -> None:
    found = converted("FROM a\nCOPY --link --exclude=q --chmod=1 --chown=2 --parents a b c/\n")
    assert history(found) == ["COPY --parents --chown=2 --chmod=1 a b c/ # buildkit"]
    assert rules(found) == []
