"""Trees as directories and tars (EXL rows)."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ExportError, UsageError
from builder.exporter.types import OutputSpec
from tests.support.buildlab import Lab
from tests.support.rows import row

pytestmark = pytest.mark.root
BOTH = ("linux/amd64", "linux/arm64")
TEXT = """\
FROM busybox AS made
RUN mkdir -p /o/d && echo x > /o/d/f && ln /o/d/f /o/d/hard && ln -s /etc/x /o/d/abs && chmod 6751 /o/d/f \
    && chmod 1777 /o/d && mkfifo /o/p && chown 5:6 /o/p && touch -d @7 /o/d/f
FROM scratch
COPY --from=made /o /
"""
CROSS = "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\nCOPY f /same/f\n"


def build(lab: Lab, text: str, spec: str, **more: Any) -> Any:
    context = more.pop("context", None) or lab.context({"f": "f"})
    return lab.build(context, text, outputs=(OutputSpec.parse(spec),), **more)


def listed(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@row("EXL-01", "EXL-05")
def test_a_directory(lab: Lab, tmp_path: Path) -> None:
    dest = tmp_path / "new/place"
    build(lab, TEXT, f"type=local,dest={dest}")
    f = (dest / "d/f").stat()
    assert (stat.S_IMODE(f.st_mode), f.st_mtime, f.st_uid, f.st_nlink) == (0o6751, 7, os.getuid(), 2)
    assert stat.S_IMODE((dest / "d").stat().st_mode) == 0o1777
    assert os.readlink(dest / "d/abs") == "/etc/x", "as it is"
    assert stat.S_ISFIFO((dest / "p").stat().st_mode)
    assert (dest / "p").stat().st_uid == os.getuid(), "the caller's"
    build(lab, TEXT, f"type=local,dest={dest},source-date-epoch=99")
    assert {(dest / name).lstat().st_mtime for name in ("d", "d/f", "d/abs", "p")} == {99}


@row("EXL-01")
def test_several_platforms(lab: Lab, tmp_path: Path) -> None:
    build(lab, CROSS, f"type=local,dest={tmp_path / 'split'}", platforms=BOTH)
    assert listed(tmp_path / "split")[::1] == [
        "linux_amd64", "linux_amd64/amd64", "linux_amd64/same", "linux_amd64/same/f",
        "linux_arm64", "linux_arm64/arm64", "linux_arm64/same", "linux_arm64/same/f",
    ]  # fmt: skip
    own = "FROM scratch\nARG TARGETARCH\nCOPY f /d/$TARGETARCH\n"
    build(lab, own, f"type=local,dest={tmp_path / 'one'},platform-split=false", platforms=BOTH)
    assert listed(tmp_path / "one") == ["d", "d/amd64", "d/arm64"]
    wanted = r"^cannot overwrite /same/f from linux/amd64 with linux/arm64 when split option is disabled$"
    for kind in ("local", "tar"):
        with pytest.raises(ExportError, match=wanted):
            build(lab, CROSS, f"type={kind},dest={tmp_path / kind},platform-split=false", platforms=BOTH)
    assert not (tmp_path / "tar").exists()


@row("EXL-02")
def test_modes(lab: Lab, tmp_path: Path) -> None:
    dest = tmp_path / "t"
    (dest / "mine/deep").mkdir(parents=True)
    (dest / "mine/deep/f").write_text("kept")
    (dest / "same").write_text("a file where a directory goes")
    text = "FROM scratch\nCOPY f /same/f\n"
    build(lab, text, f"type=local,dest={dest}")
    assert listed(dest) == ["mine", "mine/deep", "mine/deep/f", "same", "same/f"]
    build(lab, text, f"type=local,dest={dest},mode=delete")
    assert listed(dest) == ["same", "same/f"]
    (dest / "stale").write_text("")
    build(lab, CROSS, f"type=local,dest={dest},mode=delete", platforms=BOTH)
    assert "stale" not in listed(dest) and "same" not in listed(dest)
    assert {"linux_amd64/same/f", "linux_arm64/same/f"} <= set(listed(dest)), "all platforms at once"
    with pytest.raises(UsageError, match=r"^invalid local exporter mode 'mirror'$"):
        OutputSpec.parse("type=local,dest=x,mode=mirror")


@row("EXL-02")
def test_mirroring_follows_no_link(lab: Lab, tmp_path: Path) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "t"
    outside.mkdir()
    dest.mkdir()
    (outside / "f").write_text("kept")
    os.symlink(outside, dest / "link")
    os.symlink(outside, dest / "same")
    build(lab, "FROM scratch\nCOPY f /same/f\n", f"type=local,dest={dest},mode=delete")
    assert listed(dest) == ["same", "same/f"]
    assert (outside / "f").read_text() == "kept"


@row("EXL-03", "EXL-05")
def test_a_tar(lab: Lab, tmp_path: Path) -> None:
    build(lab, TEXT, f"type=tar,dest={tmp_path / 't'}")
    with tarfile.open(tmp_path / "t") as tar:
        found = {member.name: member for member in tar.getmembers()}
    assert (found["p"].uid, found["p"].gid, found["p"].isfifo()) == (5, 6, True)
    assert found["d/hard"].islnk() and found["d/hard"].linkname == "d/f"
    assert (found["d/f"].mode, found["d/f"].mtime) == (0o6751, 7)
    assert found["d/abs"].linkname == "/etc/x"
    build(lab, CROSS, f"type=tar,dest={tmp_path / 'm'}", platforms=BOTH)
    with tarfile.open(tmp_path / "m") as tar:
        names = tar.getnames()
    assert names[0] == "linux_amd64" and "linux_arm64/same/f" in names


@row("EXL-03")
def test_sockets_and_names_of_whiteouts(lab: Lab, tmp_path: Path) -> None:
    text = "FROM busybox AS m\nRUN mkdir /o && cd /o && touch .wh.f && (nc -l -p 1 -s 127.0.0.1 & true) ; touch f\nFROM scratch\nCOPY --from=m /o/ /\n"
    for kind in ("local", "tar"):
        build(lab, text, f"type={kind},dest={tmp_path / kind}")
    assert listed(tmp_path / "local") == [".wh.f", "f"], "a tree is no layer"
    with tarfile.open(tmp_path / "tar") as tar:
        assert sorted(tar.getnames()) == [".wh.f", "f"]


@row("EXL-04")
def test_attestations(lab: Lab, tmp_path: Path) -> None:
    note = ("type=provenance,mode=max",)
    text = "FROM scratch\nCOPY f /sub/f\n"
    build(lab, text, f"type=local,dest={tmp_path / 'one'},attestation-prefix=p-", attest=note)
    path = tmp_path / "one/p-provenance.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    wanted = [{"name": "sub/f", "digest": {"sha256": hashlib.sha256(b"f").hexdigest()}}]
    assert json.loads(path.read_text())["subject"] == wanted
    build(lab, CROSS, f"type=local,dest={tmp_path / 'split'}", platforms=BOTH, attest=note)
    assert (tmp_path / "split/linux_arm64/provenance.json").exists()
    own = "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n"
    build(lab, own, f"type=tar,dest={tmp_path / 'tar'},platform-split=false", platforms=BOTH, attest=note)
    with tarfile.open(tmp_path / "tar") as tar:
        assert {"provenance.linux_amd64.json", "provenance.linux_arm64.json"} <= set(tar.getnames())
