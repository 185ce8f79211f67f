"""Definitions that are built: every kind of op from its wire form (OPM-01…11, DIG-03, DIG-07, EXP-09)."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import pybuild
from builder.errors import PybuildError, SolveError, SourceUnavailable, StepFailed
from builder.llb.ops import DEFINITION_INPUT
from builder.solver.types import Secret
from tests.support import protohand as hand
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.protohand import AMD64, edge, msg, num, text
from tests.support.rows import row

pytestmark = pytest.mark.root

IMAGE = hand.source("docker-image://docker.io/library/busybox:latest", platform=AMD64)
CONTEXT = hand.source("local://context")
ROOT = hand.mount("/", given=0, output=0)
NO_NETWORK = num(3, 2)


def made(
    lab: Lab, *ops: bytes, head: int = 0, context: Path | None = None, rest: bytes = b"", **more: Any
) -> Built:
    """The image of a definition."""
    data = hand.definition(*ops, head=head, rest=rest)
    return Built(lab, lab.build(context or lab.context(), llb=data, **more))


def sh(script: str, *parts: bytes, inputs: bytes = b"", meta: bytes = b"", root: bytes = ROOT) -> bytes:
    """A command in busybox; ``inputs`` come after it."""
    given = edge(IMAGE) + inputs
    body = msg(2, hand.meta("sh", "-ec", script, rest=meta), root, *parts, NO_NETWORK)
    return given + body + AMD64


def copy(src: str, dest: str, *more: bytes, given: int = -1, second: int = 0, output: int = 0) -> bytes:
    """A copy of a directory's content or of a file."""
    flags = num(6, 1) + num(8, 1)
    body = msg(4, text(1, src), text(2, dest), num(4, -1), flags, num(11, -1), *more)
    return hand.action(body, given=given, second=second, output=output)


@row("OPM-01", "OPM-02", "OPM-03")
def test_a_command_runs_as_it_says(lab: Lab) -> None:
    meta = text(7, "box") + msg(6, text(1, "db"), text(2, "10.9.8.7")) + msg(9, text(1, "nofile"), num(2, 77), num(3, 77))  # fmt: skip
    body = "hostname > /h; grep 10.9.8.7 /etc/hosts > /hosts; ulimit -n > /n; pwd > /p; echo $A > /a; exit 3"
    command = msg(
        1,
        *(text(1, word) for word in ("sh", "-c", body)),
        *(text(2, "A=b"), text(3, "/work")),
        meta,
        msg(12, b"\x03"),
    )
    # Fields out of order (validExitCodes last, hostname after extraHosts) are read all the same.
    built = made(lab, IMAGE, edge(IMAGE) + msg(2, command, ROOT, NO_NETWORK) + AMD64)
    assert [built.read(name).split() for name in "hnpa"] == [["box"], ["77"], ["/work"], ["b"]]
    assert built.read("hosts").split() == ["10.9.8.7", "db"]


@row("OPM-03")
def test_other_exit_codes_fail(lab: Lab) -> None:
    with pytest.raises(StepFailed, match="exit code: 4"):
        made(lab, IMAGE, sh("exit 4", meta=msg(12, b"\x03\x05")))
    with pytest.raises(StepFailed, match="exit code: 0"):
        made(lab, IMAGE, sh("exit 0", meta=msg(12, b"\x03\x05")))


@row("OPM-04")
def test_every_output_is_a_result(lab: Lab) -> None:
    run = sh(
        "echo r > /root-file; echo o > /out/o; cat /sub/f > /out/copy; echo n >> /sub/f; echo gone > /void/x",
        hand.mount("/out", output=2),
        hand.mount("/sub", given=1, output=1, selector="/dir"),
        hand.mount("/void"),
        inputs=edge(CONTEXT),
    )
    context = lab.context({"dir/f": "first\n", "other": "x"})
    root = made(lab, IMAGE, CONTEXT, run, context=context)
    assert root.read("root-file") == "r\n"
    assert root.names("out") == [] if root.has("out") else True
    assert not root.has("void/x")
    out = made(lab, IMAGE, CONTEXT, run, head=2, context=context)
    assert lab.steps_run() in ([], ["local://context"])
    assert (out.read("o"), out.read("copy"), sorted(out.names())) == ("o\n", "first\n", ["copy", "o"])
    sub = made(lab, IMAGE, CONTEXT, run, head=1, context=context)
    assert sub.read("dir/f") == "first\nn\n"


@row("OPM-04")
def test_a_root_may_be_read_only_and_no_result(lab: Lab) -> None:
    readonly = hand.mount("/", given=0, rest=num(5, 1))
    script = "if touch /x 2> /dev/null; then exit 1; fi; echo done > /out/f"
    built = made(lab, IMAGE, sh(script, hand.mount("/out", output=0), root=readonly))
    assert built.names() == ["f"]


@row("OPM-04")
def test_a_step_that_fails_leaves_none_of_its_trees(lab: Lab) -> None:
    def count() -> int:
        found = lab.store.db.one("SELECT count(*) FROM snapshots")
        assert found is not None
        return int(found[0])

    made(lab, IMAGE, sh("true"))
    kept = []
    for mounts in ((), (hand.mount("/out", output=1), hand.mount("/more", output=2))):
        before = count()
        with pytest.raises(StepFailed):
            made(lab, IMAGE, sh("exit 9", *mounts))
        kept.append(count() - before)
    assert kept[1] <= kept[0]  # fewer when the tree of an earlier failed build had to go


@row("OPM-02", "OPM-04")
def test_secrets_caches_and_memory_mounts(lab: Lab) -> None:
    run = sh(
        "cat /run/s > /s; stat -c %a:%u /run/s >> /s; echo $S >> /s; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2 > /t1; touch /c/x; ls /c > /c1",
        hand.mount("/run/s", rest=num(6, 1) + msg(21, text(1, "id"), num(2, 5), num(4, 0o440))),
        hand.mount("/none", rest=num(6, 1) + msg(21, text(1, "absent"), num(5, 1))),
        hand.mount("/t", rest=num(6, 4) + msg(19, num(1, 1 << 20))),
        hand.mount("/c", rest=num(6, 3) + msg(20, text(1, "opm"), num(2, 2))),
        msg(5, text(1, "id"), text(2, "S")),
    )  # fmt: skip
    built = made(lab, IMAGE, run, secrets=(Secret(id="id", data=b"word\n"),))
    assert built.read("s").split() == ["word", "440:5", "word"]
    assert (built.read("t1"), built.read("c1")) == ("1024\n", "x\n")
    with pytest.raises(SolveError, match="secret id: not found"):
        made(lab, IMAGE, run, no_cache=True)


@row("OPM-05", "OPM-11")
def test_sources_of_every_scheme(lab: Lab, repository: tuple[str, str], site: tuple[str, Path]) -> None:
    url, _ = repository
    (site[1] / "file").write_text("served")
    git = hand.source(f"git://{url.removeprefix('http://')}#v1", {"git.fullurl": url})
    served = hand.source(f"{site[0]}/file", {"http.filename": "f", "http.perm": "640", "http.uid": "7"})
    other = hand.source("local://other")
    given = edge(git) + edge(served) + edge(CONTEXT) + edge(other)
    op = given + msg(
        4,
        copy("/", "/git", output=-1),
        copy("/", "/http", given=4, second=1, output=-1),
        copy("/", "/context", given=5, second=2, output=-1),
        copy("/", "/other", given=6, second=3),
    )
    more = lab.context({"o": "2"})
    context = lab.context({"c": "1"})
    built = made(
        lab, git, served, CONTEXT, other, op, context=context, build_contexts=(("other", str(more)),)
    )
    assert built.read("git/a") == "one"
    assert (built.read("context/c"), built.read("other/o"), built.read("http/f")) == ("1", "2", "served")
    st = built.stat("http/f")
    assert (st.st_mode & 0o777, st.st_uid) == (0o640, 7)
    with pytest.raises(SourceUnavailable, match="there is no context of that name"):
        made(lab, other, hand.file_op(copy("/", "/"), inputs=edge(other)))
    with pytest.raises(SolveError, match="unsupported source scheme ftp"):
        made(lab, hand.source("ftp://x/y"))


@row("OPM-05", "OPM-11")
def test_images_and_layouts(lab: Lab, tmp_path: Path) -> None:
    lab.build(lab.context({"f": "layout"}), "FROM scratch\nCOPY f /f\n", outputs=_oci(tmp_path / "l.tar"))
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "l.tar") as tar:
        tar.extractall(layout)
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    source = hand.source(f"oci-layout://mine@{digest}")
    assert (
        made(lab, source, build_contexts=(("mine", f"oci-layout://{layout}@{digest}"),)).read("f") == "layout"
    )
    with pytest.raises(SourceUnavailable, match="there is no such layout"):
        made(lab, hand.source(f"oci-layout://none@{digest}"))
    with pytest.raises(SourceUnavailable, match="its digest is sha256:"):
        made(lab, hand.source("docker-image://busybox", {"image.checksum": "sha256:" + "0" * 64}))
    with pytest.raises(SolveError, match=r"unsupported source attribute image\.layerlimit"):
        made(lab, hand.source("docker-image://busybox", {"image.layerlimit": "1"}))


def _oci(path: Path) -> tuple[Any, ...]:
    from builder.exporter.types import OutputSpec

    return (OutputSpec.parse(f"type=oci,dest={path}"),)


@row("OPM-11")
def test_a_context_under_the_patterns_of_the_definition(lab: Lab) -> None:
    context = lab.context(
        {"a.txt": "1", "b.log": "2", "d/c.txt": "3", "d/e.log": "4", ".dockerignore": "a.txt\n"}
    )

    def names(**attrs: str) -> list[str]:
        source = hand.source("local://context", {f"local.{key}": value for key, value in attrs.items()})
        built = made(lab, source, hand.file_op(copy("/", "/"), inputs=edge(source)), context=context)
        with built.tree() as view:
            found = [name for name, _ in view.scandir("")]
            return sorted(found + [f"d/{name}" for name, _ in view.scandir("d")] if "d" in found else found)

    assert names() == [".dockerignore", "b.log", "d", "d/c.txt", "d/e.log"]
    assert names(excludepatterns='["**/*.log"]') == [".dockerignore", "a.txt", "d", "d/c.txt"]
    assert names(includepattern='["d"]', excludepatterns='["d/e.log"]') == ["d", "d/c.txt"]
    with pytest.raises(PybuildError, match="is no list of patterns"):
        names(excludepatterns="[")


@row("OPM-06", "OPM-07", "OPM-08")
def test_file_actions(lab: Lab) -> None:
    owner = msg(4, msg(1, num(2, 9)), msg(2, num(2, 8)))
    op = hand.file_op(
        hand.action(msg(6, text(1, "/d/e"), num(2, 0o750), num(3, 1), owner, num(5, -1)), output=-1),
        hand.action(msg(5, text(1, "/d/f"), num(2, 0o600), msg(3, b"data"), owner, num(5, 10**18)), given=1, output=-1),
        hand.action(msg(8, text(1, "../f"), text(2, "/d/e/link")), given=2, output=-1),
        copy("/c", "/d/c", given=3, second=0, output=-1),
        hand.action(msg(7, text(1, "/d/c/*.x"), num(3, 1)), given=4),
        inputs=edge(CONTEXT),
    )  # fmt: skip
    built = made(lab, CONTEXT, op, context=lab.context({"c/1.x": "", "c/2.y": "y"}))
    assert (built.read("d/f"), built.read("d/e/link"), built.names("d/c")) == ("data", "data", ["2.y"])
    st = built.stat("d/f")
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns) == (0o600, 9, 8, 10**18)
    assert built.stat("d/e").st_mode & 0o7777 == 0o750


@row("OPM-06")
def test_a_result_may_be_built_on_twice_and_be_an_output_too(lab: Lab) -> None:
    op = hand.file_op(
        hand.mkfile("/base", "b", output=0),
        hand.mkfile("/one", "1", given=0, output=1),
        hand.mkfile("/two", "2", given=0, output=-1),
        copy("/", "/copied", given=2, second=1, output=2),
    )
    assert sorted(made(lab, op).names()) == ["base"]
    assert sorted(made(lab, op, head=1).names()) == ["base", "one"]
    last = made(lab, op, head=2)
    assert sorted(last.names()) == ["base", "copied", "two"]
    assert sorted(last.names("copied")) == ["base", "one"]


@row("OPM-09")
def test_merge_diff_and_passthrough(lab: Lab) -> None:
    first = hand.file_op(hand.mkfile("/one", "1"))
    second = hand.file_op(hand.mkfile("/two", "2", given=0), inputs=edge(first))
    merge = edge(second) + edge(CONTEXT) + msg(6, msg(1), msg(1, num(1, 1)))
    merged = made(lab, first, second, CONTEXT, merge, context=lab.context({"c": "3"}))
    assert sorted(merged.names()) == ["c", "one", "two"]
    diff = edge(first) + edge(second) + msg(7, msg(1), msg(2, num(1, 1)))
    assert made(lab, first, second, diff).names() == ["two"]
    empty = edge(first) + msg(7, msg(1, hand.NONE), msg(2))
    assert made(lab, first, empty).names() == ["one"]
    passed = edge(first) + edge(CONTEXT) + msg(8, text(1, "p"), msg(2, b"\x01\x00"))
    for head, names in enumerate((["c"], ["one"])):
        assert made(lab, first, CONTEXT, passed, head=head, context=lab.context({"c": "3"})).names() == names


@row("OPM-09")
def test_passthrough_needs_all_its_inputs(lab: Lab) -> None:
    first = hand.file_op(hand.mkfile("/one", "1"))
    failing = sh("echo a test; exit 5")
    passed = edge(first) + edge(failing) + msg(8, text(1, "tests"), msg(2, b"\x00"))
    with pytest.raises(StepFailed, match="exit code: 5"):
        made(lab, first, IMAGE, failing, passed)


def build_op(given: bytes, *more: bytes) -> bytes:
    return edge(given) + msg(5, num(1, -1), msg(2, text(1, DEFINITION_INPUT), msg(2)), *more)


@row("OPM-10")
def test_a_build_of_a_definition_that_a_step_made(lab: Lab) -> None:
    inner = hand.definition(CONTEXT, hand.file_op(copy("/", "/in"), inputs=edge(CONTEXT)))
    plain = hand.file_op(hand.action(msg(5, text(1, f"/{DEFINITION_INPUT}"), num(2, 0o644), msg(3, inner))))
    context = lab.context({"c": "1"})
    assert made(lab, plain, build_op(plain), context=context).read("in/c") == "1"
    (context / "c").write_text("changed")
    assert made(lab, plain, build_op(plain), context=context).read("in/c") == "changed"
    named = hand.file_op(hand.action(msg(5, text(1, "/x"), num(2, 0o644), msg(3, inner))))
    attr = msg(4, text(1, "llbbuild.filename"), text(2, "x"))
    assert made(lab, named, build_op(named, attr), context=context).read("in/c") == "changed"


@row("OPM-10")
def test_nested_builds_that_cannot_be(lab: Lab) -> None:
    empty = hand.file_op(hand.mkfile("/x", "no definition"))
    with pytest.raises(PybuildError, match="the definition of a nested build"):
        made(lab, empty, build_op(empty))
    with pytest.raises(SolveError, match="needs an input buildkit"):
        made(lab, empty, edge(empty) + msg(5, num(1, -1)))
    with pytest.raises(SolveError, match="a builder of its own"):
        made(lab, empty, edge(empty) + msg(5, num(1, 1), msg(2, text(1, "x"), msg(2))))
    odd = hand.file_op(hand.mkfile(f"/{DEFINITION_INPUT}", "no definition"))
    with pytest.raises(PybuildError, match="not an LLB definition"):
        made(lab, odd, build_op(odd))
    endless = lab.context({"d": hand.definition(CONTEXT, build_op(CONTEXT, msg(4, text(1, "llbbuild.filename"), text(2, "d"))))})  # fmt: skip
    itself = build_op(CONTEXT, msg(4, text(1, "llbbuild.filename"), text(2, "d")))
    with pytest.raises(SolveError, match="nested more than"):
        made(lab, CONTEXT, itself, context=endless)
    free = hand.definition(IMAGE, edge(IMAGE) + msg(2, hand.meta("true"), ROOT, num(4, 1)) + AMD64)
    cage = hand.file_op(hand.action(msg(5, text(1, f"/{DEFINITION_INPUT}"), msg(3, free))))
    with pytest.raises(SolveError, match=r"security\.insecure is not allowed"):
        made(lab, cage, build_op(cage))


@row("OPM-01")
def test_the_image_has_the_default_config(lab: Lab) -> None:
    built = made(lab, IMAGE, sh("echo x > /x"), tags=("llb:1",))
    assert built.json["config"] == {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
    }
    assert built.result.names == ("docker.io/library/llb:1",)
    assert built.result.build_id
    made(lab, IMAGE, sh("echo x > /x"))
    assert not lab.steps_run()


@row("DIG-07")
def test_a_failure_shows_the_lines_that_the_step_comes_from(lab: Lab) -> None:
    run = sh("exit 6")
    place = msg(2, msg(1, num(1, 2)), msg(2, num(1, 2)))
    locations = msg(1, text(1, hand.digest(run)), msg(2, msg(1, place)))
    rest = msg(3, locations, msg(2, text(1, "recipe"), text(2, "one\ntwo\n")))
    with pytest.raises(StepFailed) as caught:
        made(lab, IMAGE, run, rest=rest)
    assert (caught.value.filename, caught.value.first_line) == ("recipe", 2)
    assert caught.value.source_lines == ("one", "two")


@row("OPM-05")
def test_the_library_builds_a_definition(lab: Lab) -> None:
    data = hand.definition(CONTEXT, hand.file_op(copy("/", "/"), inputs=edge(CONTEXT)))
    with pybuild.Client(lab.store.root) as client:
        result = client.build({"f": "text"}, llb=data)
    assert Built(lab, result).read("f") == "text"


@row("OPM-12")
def test_the_command_builds_a_definition(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    data = hand.definition(CONTEXT, hand.file_op(copy("/", "/"), inputs=edge(CONTEXT)))
    (tmp_path.parent / "x.llb").write_bytes(data)
    command.build(tmp_path, "--llb", tmp_path.parent / "x.llb", "-o", tmp_path.parent / "out")
    assert os.listdir(tmp_path.parent / "out") == ["f"]
    command.build(tmp_path, "--llb=-", "-t", "fromllb", stdin=data)
    assert "fromllb" in command.run("history", "ls").out or command.image_id("fromllb")
    for bad, said in ((data[:-3], "not an LLB definition"), (b"", "invalid empty definition")):
        failed = command.build(tmp_path, "--llb=-", stdin=bad, status=1)
        assert said in failed.err
        assert "Traceback" not in failed.err
    failed = command.build(tmp_path, "--llb=-", "-f", "x", stdin=data, status=2)
    assert "--file means nothing with --llb" in failed.err
