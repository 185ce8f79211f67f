"""Operations as JSON, and ``debug dump-llb`` (OPJ-01, OPJ-02)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.llb.serialize import op_json, to_dot
from builder.llb.wire_schema import messages
from tests.support import protohand as hand
from tests.support.cli import Runner
from tests.support.protohand import msg, num, text
from tests.support.rows import row

LOCAL = hand.source("local://context", {"local.followpaths": '["a"]'})
IMAGE = hand.source("docker-image://busybox", platform=hand.AMD64)
COPY = hand.edge(IMAGE) + hand.edge(LOCAL) + msg(4, hand.action(msg(4, text(1, "/a"), text(2, "/b"), msg(3, msg(1, num(2, 5)), msg(2, msg(1, text(1, "app"), num(2, 1)))), num(4, -1)), given=0, second=1))  # fmt: skip
RUN = (
    hand.edge(COPY)
    + hand.edge(LOCAL)
    + msg(2, hand.meta("make", "all"), hand.mount("/", given=0, output=0), hand.mount("/src", given=1, rest=num(6, 3)), num(3, 2))
    + msg(11, text(1, "k"))
)  # fmt: skip


def shown(op: bytes) -> dict[str, object]:
    return op_json(messages()["Op"].FromString(op))


@row("OPJ-01")
def test_the_json_of_ops() -> None:
    assert shown(LOCAL) == {
        "Op": {"source": {"identifier": "local://context", "attrs": {"local.followpaths": '["a"]'}}}
    }
    assert shown(IMAGE)["platform"] == {"Architecture": "amd64", "OS": "linux"}
    assert shown(COPY) == {
        "inputs": [{"digest": hand.digest(IMAGE)}, {"digest": hand.digest(LOCAL)}],
        "Op": {
            "file": {
                "actions": [
                    {
                        "input": 0,
                        "secondaryInput": 1,
                        "output": 0,
                        "Action": {
                            "copy": {
                                "src": "/a",
                                "dest": "/b",
                                "mode": -1,
                                "owner": {
                                    "user": {"User": {"byId": 5}},
                                    "group": {"User": {"byName": {"name": "app", "input": 1}}},
                                },
                            }
                        },
                    }
                ]
            }
        },
    }
    run = shown(RUN)
    assert run["constraints"] == {"filter": ["k"]}
    assert run["Op"] == {
        "exec": {
            "meta": {"args": ["make", "all"], "cwd": "/"},
            "mounts": [{"dest": "/"}, {"input": 1, "dest": "/src", "output": -1, "mountType": 3}],
            "network": 2,
        }
    }
    assert shown(hand.file_op(hand.mkfile("/f", "\0")))["Op"] == {
        "file": {
            "actions": [
                {
                    "input": -1,
                    "secondaryInput": -1,
                    "output": 0,
                    "Action": {"mkfile": {"path": "/f", "mode": 0o644, "data": "AA==", "timestamp": -1}},
                }
            ]
        }
    }
    assert shown(hand.edge(RUN, 1)) == {"inputs": [{"digest": hand.digest(RUN), "index": 1}], "Op": {}}


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@row("OPJ-02")
def test_a_definition_is_dumped_an_op_a_line(command: Runner, tmp_path: Path) -> None:
    said = hand.metadata(RUN, num(1, 1), msg(2, text(1, "llb.customname"), text(2, "n")))
    data = hand.definition(LOCAL, IMAGE, COPY, RUN, rest=said)
    (tmp_path / "x.llb").write_bytes(data)
    lines = lines_of(command.run("debug", "dump-llb", tmp_path / "x.llb").out)
    ops = [LOCAL, IMAGE, COPY, RUN, hand.edge(RUN)]
    assert [line["Digest"] for line in lines] == [hand.digest(op) for op in ops]
    assert [line["Op"] for line in lines] == [shown(op) for op in ops]
    assert [line["OpMetadata"] for line in lines] == [
        *({}, {}, {}),
        {"ignore_cache": True, "description": {"llb.customname": "n"}},
        {},
    ]
    assert lines_of(command.run("debug", "dump-llb", stdin=data).out) == lines
    assert lines_of(command.run("debug", "dump-llb", "-", stdin=data).out) == lines


@row("OPJ-02")
def test_a_definition_is_drawn(command: Runner) -> None:
    others = (
        hand.edge(RUN) + msg(6, msg(1)),
        hand.edge(RUN) + msg(7, msg(1, hand.NONE), msg(2)),
        hand.edge(RUN) + msg(5, num(1, -1)),
        hand.edge(RUN) + msg(8, text(1, "p"), msg(2, b"\0")),
    )
    data = hand.definition(LOCAL, IMAGE, COPY, RUN, *others)
    drawn = command.run("debug", "dump-llb", "--dot", stdin=data).out
    assert drawn == to_dot(data)
    assert drawn.startswith("digraph {\n")
    shapes = ["ellipse", "ellipse", "note", "box", "invtriangle", "doublecircle", "box3d", "plaintext"]
    labels = ["local://context", "docker-image://busybox", "copy /a /b", "make all", "merge", "diff", "build", "passthrough p"]  # fmt: skip
    for op, label, shape in zip((LOCAL, IMAGE, COPY, RUN, *others), labels, shapes, strict=True):
        assert f'  "{hand.digest(op)}" [label="{label}" shape="{shape}"];\n' in drawn
    assert f'  "{hand.digest(LOCAL)}" -> "{hand.digest(RUN)}" [label="/src"];\n' in drawn
    assert f'  "{hand.digest(COPY)}" -> "{hand.digest(RUN)}";\n' in drawn


@row("OPJ-02")
def test_a_dockerfile_is_dumped_in_every_form(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (tmp_path / "a").write_text("x")
    words = ("debug", "dump-llb", "-f", tmp_path / "Dockerfile")
    data = command.run(*words, "--format=pb", tmp_path).stdout
    assert messages()["Definition"].FromString(data).Source.infos[0].data == b"FROM scratch\nCOPY a /a\n"
    lines = lines_of(command.run(*words, tmp_path).out)
    assert lines == lines_of(command.run("debug", "dump-llb", stdin=data).out)
    assert [next(iter(line["Op"]["Op"]), "") for line in lines] == ["source", "file", ""]
    assert command.run(*words, "--format=dot", tmp_path).out == command.run(*words, "--dot", tmp_path).out


@row("OPJ-02")
@pytest.mark.parametrize("data", [b"", b"\xff" * 99, b"FROM scratch\n", hand.msg(1, b"\xff")])
def test_what_is_no_definition_is_refused(command: Runner, data: bytes) -> None:
    failed = command.run("debug", "dump-llb", "-", stdin=data, status=1)
    assert not failed.out
    assert "Traceback" not in failed.err
    assert any(words in failed.err for words in ("invalid empty definition", "not an LLB definition", "failed to parse llb"))  # fmt: skip


@row("OPJ-02")
def test_a_file_that_is_not_there_is_said(command: Runner, tmp_path: Path) -> None:
    failed = command.run("debug", "dump-llb", tmp_path / "none.llb", status=None)
    assert failed.status != 0
    assert "none.llb" in failed.err
    unknown = command.run("debug", "dump-llb", "--format=xml", stdin=b"", status=2)
    assert "unknown format 'xml'" in unknown.err
