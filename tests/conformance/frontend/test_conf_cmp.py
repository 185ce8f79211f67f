"""Which operations an instruction becomes (CMP rows)."""

from __future__ import annotations

import pytest

from builder.llb.ops import Copy, ExecOp, FileOp, MergeOp, MkDir, MkFile, SourceOp
from builder.llb.serialize import graph_json
from tests.support.cli import Runner
from tests.support.dockerfiles import AMD64, ARM64, converted, execs, ops
from tests.support.rows import row


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
    head = [op for op in graph_json(found.definition)["def"].values() if set(op) == {"inputs"}]
    assert head == [{"inputs": [{"digest": str(last.digest), "index": 0}]}]
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
@pytest.mark.root
@pytest.mark.xfail(reason="no attestations are made yet", strict=True)
def test_sbom(command: Runner, tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    assert "has no effect" not in command.build(tmp_path, "--sbom=true").err
