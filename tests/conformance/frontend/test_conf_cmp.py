"""Which operations an instruction becomes (CMP rows)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.llb.definition import Definition
from builder.llb.ops import Copy, ExecOp, FileOp, MergeOp, MkDir, MkFile, SourceOp
from builder.llb.serialize import graph_json
from builder.llb.wire import wire_digests
from tests.support.buildlab import Lab
from tests.support.dockerfiles import AMD64, ARM64, converted, execs, ops
from tests.support.rows import row
from tests.support.scanners import attested, make_scanner


def kinds(text):
    return [type(vertex.op).__name__ for vertex in converted(text).definition.vertices]


@row("CMP-01")
def test_from() -> None:
    (vertex,) = converted("FROM a:1\n", resolve_mode="pull").definition.vertices
    assert vertex.op.identifier.startswith("docker-image://docker.io/library/a:1@sha256:")
    assert vertex.op.attr("image.resolvemode") == "pull"
    assert vertex.platform == AMD64
    assert converted("FROM scratch\n").definition.vertices == ()


@row("CMP-02")
def test_run() -> None:
    found = converted(
        "FROM a\nUSER u\nWORKDIR /w\nENV e=1\n"
        "RUN --mount=type=cache,target=/c --mount=source=f,target=/b --mount=type=secret,id=s --mount=type=ssh "
        "--mount=type=tmpfs,target=/t x\nRUN --mount=type=cache,from=other,target=/d y\n"
    )
    one, two = execs(found)
    assert (one.mounts[0].dest, one.mounts[0].input, one.mounts[0].output) == ("/", 0, 0)
    assert (one.meta.args, one.meta.cwd, one.meta.user) == (("/bin/sh", "-c", "x"), "/w", "u")
    assert "e=1" in one.meta.env
    vertices = {id(vertex.op): vertex for vertex in found.definition.vertices}
    assert len(vertices[id(one)].inputs) == 2, "the root and the bind mount"
    assert len(vertices[id(two)].inputs) == 2, "the root and what the cache starts from"
    assert vertices[id(two)].inputs[0].digest == vertices[id(one)].digest


@row("CMP-03")
def test_copy() -> None:
    found = converted("FROM a\nCOPY b c d/\nADD e /f\n")
    one, two = ops(found, "FileOp")
    assert [(a.input, a.secondary, a.output) for a in one.actions] == [(0, 1, -1), (2, 1, 0)]
    assert all(isinstance(a.action, Copy) for a in (*one.actions, *two.actions))
    assert two.actions[0].input == 0
    link = converted("FROM a\nCOPY --link b c\n")
    (copy,) = ops(link, "FileOp")
    assert copy.actions[0].input == -1
    assert ops(link, "MergeOp") == [MergeOp(inputs=(0, 1))]


@row("CMP-04")
def test_heredoc_files() -> None:
    found = converted("FROM a\nCOPY <<f /d/\ntext\nf\n")
    made, copied = ops(found, "FileOp")
    (action,) = made.actions
    assert (action.input, action.action) == (-1, MkFile(path="/f", mode=0o644, data=b"text\n"))
    assert copied.actions[0].action.src == "/f"


@row("CMP-05")
def test_workdir() -> None:
    (op,) = ops(converted("FROM a\nUSER 5:6\nWORKDIR /w/x\n", epoch=7), "FileOp")
    (action,) = op.actions
    made = action.action
    assert isinstance(made, MkDir)
    assert (made.path, made.make_parents, made.timestamp_ns) == ("/w/x", True, 7_000_000_000)
    assert (made.owner.user.id, made.owner.group.id) == (5, 6)


@row("CMP-06")
def test_what_makes_no_operation() -> None:
    text = (
        'FROM a\nENV a=b\nARG c\nLABEL d=e\nUSER f\nEXPOSE 1\nVOLUME /v\nSTOPSIGNAL 9\nSHELL ["s"]\nMAINTAINER m\n'
        'HEALTHCHECK NONE\nCMD ["x"]\nENTRYPOINT ["y"]\nONBUILD RUN z\n'
    )
    assert kinds(text) == ["SourceOp"]


@row("CMP-07")
def test_one_context_for_all() -> None:
    text = "FROM a AS x\nCOPY b /\nFROM c\nCOPY --from=x b /\nCOPY d /\nRUN --mount=source=e,target=/t z\n"
    local = [op for op in ops(converted(text), "SourceOp") if op.identifier.startswith("local://")]
    assert local == [SourceOp(identifier="local://context", attrs=(("local.followpaths", '["b","d","e"]'),))]
    cross = "FROM --platform=$BUILDPLATFORM a AS x\nRUN make\nFROM c\nCOPY --from=x b /\n"
    one, two = (converted(cross, platform=platform) for platform in (AMD64, ARM64))
    shared = {v.digest for v in one.definition.vertices} & {v.digest for v in two.definition.vertices}
    made = [v.digest for v in one.definition.vertices if isinstance(v.op, ExecOp)]
    assert set(made) <= shared
    assert len(one.definition.vertices) > len(shared)


@row("CMP-08")
def test_the_end_of_a_definition() -> None:
    found = converted("FROM a AS b\nRUN x\nFROM b\nENV y=z\n", epoch=9)
    last = found.definition.vertices[-1]
    assert isinstance(last.op, ExecOp)
    assert (found.definition.head.digest, found.definition.head.index) == (last.digest, 0)
    head = [op for op in graph_json(found.definition)["def"].values() if not op["Op"]]
    assert head == [{"inputs": [{"digest": wire_digests(found.definition)[last.digest]}], "Op": {}}]
    assert "y=z" in found.config.env
    assert found.base_config is not None
    assert found.base_config.env == ("PATH=/usr/bin:/bin",)
    assert found.epoch == 9
    assert not any(isinstance(vertex.op, FileOp) for vertex in found.definition.vertices)


@row("CMP-09")
@pytest.mark.root
def test_scan_arguments_stay_out_of_the_environment() -> None:
    (op,) = execs(
        converted("FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=true BUILDKIT_SBOM_SCAN_CONTEXT=1\nRUN x\n")
    )
    assert not any("SBOM" in item for item in op.meta.env)


@row("CMP-09")
def test_what_is_scanned() -> None:
    text = (
        "ARG BUILDKIT_SBOM_SCAN_STAGE=one,three\nFROM a AS one\nRUN 1\nFROM a AS two\nRUN 2\n"
        "FROM a AS unused\nFROM a\nCOPY --from=one /x /\nCOPY --from=two /y /\n"
    )
    found = converted(text, scans=True)
    assert [name for name, _ in found.scans] == ["one"]
    assert execs(found)[0].meta.args[2] == "1"
    (_, tree) = found.scans[0]
    assert tree.head is not None and tree.head.digest in {v.digest for v in found.definition.vertices}
    own = text.replace("AS two\n", "AS two\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n")
    assert [name for name, _ in converted(own, scans=True).scans] == ["one", "two"]
    given = converted(text, scans=True, build_args=(("BUILDKIT_SBOM_SCAN_STAGE", "1"),))
    assert [name for name, _ in given.scans] == ["one", "two"]
    context = converted("FROM a\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY x /\n", scans=True)
    ((name, tree),) = context.scans
    assert (name, [v.op.identifier for v in ops_of(tree)]) == ("context", ["local://context"])
    assert not converted(own).scans


def ops_of(tree: Definition) -> list[Any]:
    return [vertex for vertex in tree.vertices if isinstance(vertex.op, SourceOp)]


@row("CMP-09")
@pytest.mark.root
def test_sbom(lab: Lab, tmp_path: Path) -> None:
    """One more step for each platform, which sees the result and the stages that are to be scanned."""
    text = "FROM busybox AS one\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY a /\nFROM scratch\nCOPY --from=one /a /b\n"
    context = lab.context({"Dockerfile": text, "a": "x"})
    scanner = make_scanner(lab, "cmp-09")
    found = attested(lab, context, tmp_path / "o", scanner, platforms=("linux/amd64",))
    assert "[linux/amd64] generating sbom using cmp-09" in lab.watcher.ran()
    assert sorted(item["predicate"]["name"] for item in found.statements()) == ["sbom", "sbom-one"]
    seen = {item["predicate"]["name"]: item["predicate"]["files"] for item in found.statements()}
    assert [item["fileName"] for item in seen["sbom"]] == ["/b"]
    assert "/a" in [item["fileName"] for item in seen["sbom-one"]]
