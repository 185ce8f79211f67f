"""COPY and ADD as a user writes them (CPY rows)."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import PybuildError, SolveError
from tests.support.buildlab import Lab
from tests.support.web import directory

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("copy"))
    yield made
    made.close()


def tar_of(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(text), 0o640, 77, 1_500_000_000
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_from_stage_name_index_and_image(lab: Lab) -> None:
    """CPY-03."""
    lab.quick("FROM scratch\nCOPY a /from-image\n", {"a": "image"}, tags=("thing:1",))
    built = lab.quick(
        "FROM busybox AS First\nRUN echo one > /one && chown 5:6 /one\n"
        "FROM scratch\nCOPY a /two\n"
        "FROM scratch\nCOPY --from=FIRST /one /by-name\nCOPY --from=0 /one /by-index\n"
        "COPY --from=1 /two /\nCOPY --from=thing:1 / /image/\nCOPY --from=scratch / /nothing/\n",
        {"a": "context"},
    )
    assert built.read("by-name") == built.read("by-index") == "one\n"
    assert (built.stat("by-name").st_uid, built.stat("by-name").st_gid) == (5, 6)
    assert built.read("two") == "context"
    assert built.read("image/from-image") == "image"
    assert built.names("nothing") == []


def test_context_files_are_owned_by_root(lab: Lab) -> None:
    """CPY-12."""
    root = lab.context({"d/a": "x", "Dockerfile": "FROM scratch\nCOPY d /d\n"})
    os.chown(root / "d/a", 12, 13)
    from tests.support.buildlab import Built

    built = Built(lab, lab.build(root))
    assert (built.stat("d/a").st_uid, built.stat("d/a").st_gid) == (0, 0)


def test_wildcards_and_directories(lab: Lab) -> None:
    """CPY-06, CPY-08, CPY-10."""
    files = {"a1.txt": "1", "a2.txt": "2", "b.bin": "b", "d/x": "x", "d/sub/y": "y", "e/z": "z", "[k]": "k"}
    built = lab.quick(
        "FROM scratch\nCOPY a?.txt /q/\nCOPY *.txt b.bin /many/\nCOPY d e /both/\nCOPY d/ /slash\n"
        "COPY nothing* a1.txt /opt/\nCOPY [[]k] /bracket/\nCOPY nothing* /none/\nCOPY a1.txt /name\n"
        "COPY ../../a1.txt /clamped\nCOPY /a2.txt /absolute\nCOPY d/s* /starred/\n",
        files,
    )
    assert built.names("q") == ["a1.txt", "a2.txt"]
    assert built.names("many") == ["a1.txt", "a2.txt", "b.bin"]
    assert built.names("both") == ["sub", "x", "z"]
    assert built.names("slash") == ["sub", "x"]
    assert built.names("opt") == ["a1.txt"]
    assert built.names("bracket") == ["[k]"]
    assert built.names("starred") == ["y"]
    assert built.read("name") == built.read("clamped") == "1"
    assert built.read("absolute") == "2"


def test_json_form_with_spaces_and_quotes(lab: Lab) -> None:
    """SYN-03, SYN-11."""
    files = {"a b": "1", "plain": "2"}
    built = lab.quick('FROM scratch\nCOPY ["a b", "/c d/"]\nCOPY "plain" /quoted\n', files)
    assert built.read("c d/a b") == "1"
    assert built.read("quoted") == "2"


def test_relative_destinations_and_workdir(lab: Lab) -> None:
    """CPY-05."""
    built = lab.quick(
        "FROM scratch\nWORKDIR /w\nCOPY a .\nCOPY a sub/\nCOPY a ./name\nCOPY a ../up\nCOPY --chmod=700 a /n/e/w/\n",
        {"a": "1"},
    )
    assert built.names("w") == ["a", "name", "sub"]
    assert built.read("up") == "1"
    assert built.stat("w/sub").st_mode & 0o7777 == 0o755
    assert built.stat("n/e").st_mode & 0o7777 == 0o700


def test_chown_names_and_numbers(lab: Lab) -> None:
    """CPY-12: names are looked up in the destination."""
    built = lab.quick(
        "FROM busybox\nRUN echo 'mine:x:123:45::/:/bin/sh' >> /etc/passwd && echo 'team:x:77:' >> /etc/group\n"
        "COPY --chown=mine a /1\nCOPY --chown=mine:team a /2\nCOPY --chown=55 a /3\nCOPY --chown=55:team a /4\n"
        "ARG who=app\nCOPY --chown=$who:extra a /5\nCOPY --chown=mine:team d /newdir\nADD --chown=1:2 a /6\n",
        {"a": "1", "d/x": "x"},
    )
    owners = {name: (built.stat(name).st_uid, built.stat(name).st_gid) for name in "123456"}
    assert owners == {
        "1": (123, 45),
        "2": (123, 77),
        "3": (55, 55),
        "4": (55, 77),
        "5": (1000, 7),
        "6": (1, 2),
    }
    assert (built.stat("newdir").st_uid, built.stat("newdir/x").st_gid) == (123, 77)
    with pytest.raises(SolveError, match="nobody-here") as caught:
        lab.quick("FROM busybox\nCOPY --chown=nobody-here a /\n", {"a": ""})
    assert caught.value.first_line == 2


def test_chmod(lab: Lab) -> None:
    """CPY-13."""
    built = lab.quick(
        "FROM scratch\nCOPY --chmod=4711 a /1\nCOPY --chmod=u=rwX,go=rX d /2\nADD --chmod=600 a /3\nCOPY --chmod=750 d /4\n"
        "ARG M=711\nCOPY --chmod=$M a /5\n",
        {"a": "1", "d/x": ("x", 0o700), "d/y": ("y", 0o600)},
    )
    modes = {n: oct(built.stat(n).st_mode & 0o7777) for n in ("1", "2/x", "2/y", "3", "4", "4/y", "5")}
    assert modes == {"1": "0o4711", "2/x": "0o755", "2/y": "0o644", "3": "0o600", "4": "0o750", "4/y": "0o750", "5": "0o711"}  # fmt: skip
    for bad in ("9", "10000", "rwx"):
        with pytest.raises(PybuildError, match="chmod"):
            lab.quick(f"FROM scratch\nCOPY --chmod={bad} a /\n", {"a": ""})


def test_parents_and_exclude(lab: Lab) -> None:
    """CPY-17, CPY-18."""
    files = {"x/y/a.go": "1", "x/y/b.txt": "2", "x/c.go": "3", "z.txt": "4", "p/q/r/s": "5"}
    built = lab.quick(
        "FROM scratch\nCOPY --parents x/y/a.go /one/\nCOPY --parents **/*.go /two/\nCOPY --parents p/./q/r /three/\n"
        "COPY --exclude=*.txt . /four/\nCOPY --exclude=**/*.txt --exclude=Dockerfile --exclude=p . /five/\n"
        "COPY --parents --exclude=**/*.txt x /six/\nCOPY --parents x/y p/q /seven/\n",
        files,
    )
    assert built.read("one/x/y/a.go") == "1"
    assert built.names("two/x") == ["c.go", "y"]
    assert built.names("two") == ["x"]
    assert built.read("three/q/r/s") == "5"
    assert "z.txt" not in built.names("four")
    assert built.names("four/x/y") == ["a.go", "b.txt"]
    assert built.names("five") == ["x"]
    assert built.names("five/x/y") == ["a.go"]
    assert built.names("six/x/y") == ["a.go"]
    assert built.names("seven") == ["p", "x"]


def test_link_layers_stay_when_the_base_changes(lab: Lab) -> None:
    """CPY-16."""
    text = "FROM busybox\nRUN mkdir -p /real && ln -s real /ln && echo {} > /n\nCOPY --link d /ln/\n"
    one, two = (lab.quick(text.format(n), {"d/f": "f"}) for n in (1, 2))
    diffs = [built.json["rootfs"]["diff_ids"] for built in (one, two)]
    assert diffs[0][-1] == diffs[1][-1]
    assert diffs[0][-2] != diffs[1][-2]
    assert one.read("ln/f") == "f"
    chmod = lab.quick("FROM busybox\nCOPY --link --chmod=700 --chown=3:4 d/f /a/b/\n", {"d/f": "f"})
    assert (chmod.stat("a/b/f").st_mode & 0o777, chmod.stat("a/b/f").st_uid) == (0o700, 3)


def test_links_in_the_source_and_the_destination(lab: Lab) -> None:
    """CPY-11."""
    root = lab.context({"real/a": "1", "d/x": "x"})
    (root / "to-real").symlink_to("real")
    (root / "to-a").symlink_to("/real/a")
    (root / "d/l").symlink_to("../real/a")
    (root / "out").symlink_to("../../../../etc/passwd")
    (root / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /t && ln -s /t /lt\nCOPY to-real /one\nCOPY to-a /two\nCOPY to-real/a /three\nCOPY d /four\n"
        "COPY to-a /lt/\nCOPY d /lt\n"
    )
    from tests.support.buildlab import Built

    built = Built(lab, lab.build(root))
    assert built.read("one/a") == built.read("two") == built.read("three") == "1"
    with built.tree() as view:
        assert view.readlink("four/l") == "../real/a"
        assert view.readlink("lt") == "/t"
    assert built.names("t") == ["l", "to-a", "x"]
    with pytest.raises(SolveError, match="not found"):
        lab.build(root, "FROM scratch\nCOPY out /etc-passwd\n")


def test_type_clashes(lab: Lab) -> None:
    """CPY-08."""
    with pytest.raises(SolveError, match="cannot copy to non-directory"):
        lab.quick("FROM scratch\nCOPY a /f\nCOPY d /f\n", {"a": "1", "d/x": "x"})
    with pytest.raises(SolveError, match="cannot replace to directory"):
        lab.quick("FROM scratch\nCOPY d /t\nCOPY e /t\n", {"d/x/y": "", "e/x": "file"})


def test_mtime_hardlinks_and_specials(lab: Lab) -> None:
    """CPY-14, CPY-24."""
    root = lab.context({"d/a": "1"})
    os.link(root / "d/a", root / "d/b")
    os.utime(root / "d/a", (1_234_567_890, 1_234_567_890))
    os.mkfifo(root / "d/pipe")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")
    from tests.support.buildlab import Built

    built = Built(lab, lab.build(root))
    assert built.stat("d/a").st_mtime == 1_234_567_890
    assert built.stat("d/a").st_ino == built.stat("d/b").st_ino
    assert built.stat("d/pipe").st_mode & 0o170000 == 0o010000


def test_heredocs(lab: Lab) -> None:
    """HDC rows."""
    built = lab.quick(
        "FROM busybox\nARG who=world\n"
        "COPY <<one <<'two' /docs/\nhello $who\none\nhello $who\ntwo\n"
        "COPY --chown=7:8 --chmod=600 <<-file /single\n\ttab\n\tfile\n"
        "RUN <<EOF\nset -e\nx=shell\necho $x > /run1\nEOF\n"
        "RUN <<'EOF'\n#!/bin/cat\nbody $x\nEOF\n"
        "RUN cat <<a > /run2 && cat <<b >> /run2\nfrom a $who\na\nfrom b\nb\n"
        "RUN <<EOF cat > /run3\nthree\nEOF\n"
        'ADD <<EOF plain /both/\nheredoc "quoted" \\$who\nEOF\n',
        {"plain": "p"},
    )
    assert built.read("docs/one") == "hello world\n"
    assert built.read("docs/two") == "hello $who\n"
    assert built.read("single") == "tab\n"
    assert (built.stat("single").st_uid, built.stat("single").st_mode & 0o777) == (7, 0o600)
    assert built.read("run1") == "shell\n"
    assert built.read("run2") == "from a world\nfrom b\n"
    assert built.read("run3") == "three\n"
    assert built.names("both") == ["EOF", "plain"]
    assert built.read("both/EOF") == 'heredoc "quoted" $who\n'
    assert (
        "COPY <<one <<two /docs/ # buildkit" in built.history()
        or "COPY <<one <<'two' /docs/ # buildkit" in built.history()
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, __import__("bz2").compress])
def test_add_unpacks_archives(lab: Lab, pack: object) -> None:
    """CPY-19."""
    data = pack(tar_of({"in/side": "1", "top": "2"}))  # type: ignore[operator]
    built = lab.quick(
        "FROM scratch\nADD archive.any /un/\nADD --chown=5:6 archive.any /own/\nADD --unpack=false archive.any /kept\n"
        "COPY archive.any /copied\nADD text /t/\nADD *.any text /many/\n",
        {"archive.any": data, "text": "no archive"},
    )
    assert built.read("un/in/side") == "1"
    assert (built.stat("un/top").st_uid, built.stat("un/top").st_mode & 0o777) == (77, 0o640)
    assert built.stat("own/top").st_uid == 5
    assert built.stat("kept").st_size == built.stat("copied").st_size == len(data)
    assert built.names("t") == ["text"]
    assert built.names("many") == ["in", "text", "top"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("site")
    with directory(root) as url:
        yield url, root


def test_add_url(lab: Lab, site: tuple[str, Path]) -> None:
    """CPY-20, CPY-21."""
    url, root = site
    (root / "f.txt").write_text("remote")
    os.utime(root / "f.txt", (1_400_000_000, 1_400_000_000))
    (root / "a.tar").write_bytes(tar_of({"x": "1"}))
    import hashlib

    good = hashlib.sha256(b"remote").hexdigest()
    text = (
        f"FROM scratch\nADD {url}/f.txt /d/\nADD --chmod=644 --chown=3:4 {url}/f.txt /name\nADD {url}/a.tar /tars/\n"
        f"ADD --unpack=true {url}/a.tar /un/\nADD --checksum=sha256:{good} {url}/f.txt /sum\n"
    )
    built = lab.quick(text)
    assert built.read("d/f.txt") == built.read("name") == built.read("sum") == "remote"
    found = built.stat("d/f.txt")
    assert (found.st_mode & 0o777, found.st_mtime, found.st_uid) == (0o600, 1_400_000_000, 0)
    assert (built.stat("name").st_mode & 0o777, built.stat("name").st_gid) == (0o644, 4)
    assert built.names("tars") == ["a.tar"]
    assert built.names("un") == ["x"]
    assert lab.quick(text).id == built.id
    (root / "f.txt").write_text("changed")
    assert lab.quick(f"FROM scratch\nADD --checksum=sha256:{good} {url}/f.txt /\n").read("f.txt") == "remote"
    with pytest.raises(PybuildError, match="digest mismatch"):
        lab.quick(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/f.txt /\n")
    assert lab.quick(f"FROM scratch\nADD {url}/f.txt /d/\n").read("d/f.txt") == "changed"
    with pytest.raises(PybuildError, match="404"):
        lab.quick(f"FROM scratch\nADD {url}/missing /\n")


def test_add_git(lab: Lab, site: tuple[str, Path]) -> None:
    """CPY-22, over dumb http."""
    url, root = site
    work = lab.context({"src/main.c": "int main;", "README": "v1"})
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "tag", "v1"], check=True)
    (work / "README").write_text("v2")
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(root / "repo.git")], check=True)
    subprocess.run(["git", "-C", str(root / "repo.git"), "update-server-info"], check=True)
    built = lab.quick(
        f"FROM scratch\nADD {url}/repo.git /head\nADD {url}/repo.git#v1:src /sub/\n"
        f"ADD --keep-git-dir=true {url}/repo.git#v1 /kept\n"
    )
    assert built.read("head/README") == "v2"
    assert built.names("head") == ["README", "src"]
    assert built.names("sub") == ["main.c"]
    assert built.names("kept") == [".git", "README", "src"]
    assert built.read("kept/README") == "v1"
