"""Definitions: digests, metadata, platforms, names and source maps (DIG-01…08)."""

from __future__ import annotations

import pytest

from builder.cache import keys
from builder.llb import ops, wire
from builder.llb.definition import Definition, Edge, LinuxResources, SourceRange, Vertex, VertexMeta
from builder.llb.wire_schema import messages
from builder.oci.platform import Platform, host_platform
from tests.support import protohand as hand
from tests.support.dockerfiles import FakeResolver, base_image, converted
from tests.support.protohand import msg, num, text
from tests.support.rows import row

LOCAL = hand.source("local://context")
RUN = hand.edge(LOCAL) + msg(2, hand.meta("echo", "hi"), hand.mount("/", given=0, output=0)) + hand.AMD64


def parsed(data: bytes):
    return messages()["Definition"].FromString(data)


def only(*vertices: Vertex) -> Definition:
    return Definition(vertices=vertices, head=Edge(vertices[-1].digest))


@row("DIG-01")
def test_ops_come_after_their_inputs_and_a_sentinel_names_the_result() -> None:
    data = wire.encode(wire.decode(hand.definition(LOCAL, RUN)).definition)
    found = list(getattr(parsed(data), "def"))
    assert found == [LOCAL, RUN, hand.edge(RUN)]
    assert data.startswith(msg(1, LOCAL) + msg(1, RUN) + msg(1, hand.edge(RUN)))


@row("DIG-01")
def test_the_order_of_others_does_not_matter_and_what_is_not_needed_goes() -> None:
    unused = hand.source("local://unused")
    data = msg(1, RUN) + msg(1, unused) + msg(1, LOCAL) + msg(1, hand.edge(RUN))
    assert wire.decode(data) == wire.decode(hand.definition(LOCAL, RUN))


@row("DIG-02")
def test_a_digest_is_of_the_sorted_encoding_and_covers_inputs() -> None:
    one = Vertex(op=ops.SourceOp(identifier="https://h/f", attrs=(("b", "2"), ("a", "1"))))
    two = Vertex(op=ops.SourceOp(identifier="https://h/f", attrs=(("a", "1"), ("b", "2"))))
    expected = hand.digest(hand.source("https://h/f", {"a": "1", "b": "2"}))
    assert wire.wire_digests(only(one))[one.digest] == wire.wire_digests(only(two))[two.digest] == expected

    def merged(source: Vertex) -> str:
        vertex = Vertex(op=ops.MergeOp(inputs=(0,)), inputs=(Edge(source.digest),))
        return wire.wire_digests(only(source, vertex))[vertex.digest]

    assert merged(two) == hand.digest(
        hand.edge(hand.source("https://h/f", {"a": "1", "b": "2"})) + msg(6, msg(1))
    )
    assert merged(two) != merged(Vertex(op=ops.SourceOp(identifier="https://h/g")))


META = VertexMeta(
    name="[1/1] RUN x",
    command="RUN x",
    description=(("other", "o"),),
    ignore_cache=True,
    export_cache=False,
    progress_group="g",
    progress_group_name="G",
    progress_weak=True,
    resources=LinuxResources(
        memory_bytes=1, memory_swap_bytes=-1, cpu_shares=2, cpu_period=3, cpu_quota=4, cpuset_cpus="0", cpuset_mems="1"
    ),
)  # fmt: skip
SAID = (
    num(1, 1),
    msg(2, text(1, "com.docker.dockerfile.v1.command"), text(2, "RUN x")),
    msg(2, text(1, "llb.customname"), text(2, "[1/1] RUN x")),
    msg(2, text(1, "other"), text(2, "o")),
    msg(4),
    msg(6, text(1, "g"), text(2, "G"), num(3, 1)),
    msg(7, num(1, 1), num(2, -1), num(3, 2), num(4, 3), num(5, 4), text(6, "0"), text(7, "1")),
)


@row("DIG-03", "DIG-05")
def test_metadata_field_by_field() -> None:
    vertex = Vertex(op=ops.SourceOp(identifier="local://context"), meta=META)
    message = parsed(wire.encode(only(vertex))).metadata[hand.digest(LOCAL)]
    message.ClearField("caps")
    assert message.SerializeToString(deterministic=True) == b"".join(SAID)
    read = wire.decode(hand.definition(LOCAL, rest=hand.metadata(LOCAL, *SAID))).definition.vertices[0]
    assert read.meta == META
    assert read.name == "[1/1] RUN x"


@row("DIG-03")
def test_metadata_is_no_part_of_identity_or_key() -> None:
    plain = wire.decode(hand.definition(LOCAL, RUN)).definition
    told = wire.decode(hand.definition(LOCAL, RUN, rest=hand.metadata(RUN, *SAID))).definition
    assert told.vertices[1].meta.ignore_cache
    assert plain.vertices[1].digest == told.vertices[1].digest
    assert list(wire.wire_digests(plain).values()) == list(wire.wire_digests(told).values())
    key = [keys.op_digest(item.vertices[1].op, item.vertices[1].platform)[0] for item in (plain, told)]
    assert key[0] == key[1]


@row("DIG-03")
def test_without_a_word_results_may_be_exported() -> None:
    told = wire.decode(hand.definition(LOCAL, rest=hand.metadata(LOCAL, msg(4, num(1, 1))))).definition
    assert told.vertices[0].meta.export_cache
    assert wire.decode(hand.definition(LOCAL)).definition.vertices[0].meta.export_cache


@row("DIG-04")
def test_what_is_the_same_for_all_platforms_names_none() -> None:
    platform = Platform("linux", "arm64")
    source = Vertex(op=ops.SourceOp(identifier="local://context"))
    inputs = (Edge(source.digest),)
    action = ops.FileAction(action=ops.MkDir(path="/d"), input=0, output=0)
    for op in (
        ops.FileOp(actions=(action,)),
        ops.MergeOp(inputs=(0,)),
        ops.DiffOp(lower=-1, upper=0),
        ops.PassthroughOp(id="x", outputs=(0,)),
    ):
        with_one, without = Vertex(op=op, inputs=inputs, platform=platform), Vertex(op=op, inputs=inputs)
        written = [wire.wire_digests(only(source, vertex))[vertex.digest] for vertex in (with_one, without)]
        assert written[0] == written[1]
    message = hand.edge(LOCAL) + msg(6, msg(1)) + msg(10, text(1, "arm64"), text(2, "linux"))
    assert wire.decode(hand.definition(LOCAL, message)).definition.vertices[1].platform is None


@row("DIG-04")
def test_platforms_are_normalised_and_the_digests_after_them() -> None:
    def ran(platform: bytes) -> Definition:
        run = hand.edge(LOCAL) + msg(2, hand.meta("x"), hand.mount("/", given=0, output=0)) + platform
        return wire.decode(hand.definition(LOCAL, run, hand.edge(run) + msg(6, msg(1)))).definition

    odd = ran(msg(10, text(1, "aarch64"), text(2, "Linux"), text(3, "v8")))
    usual = ran(msg(10, text(1, "arm64"), text(2, "linux")))
    assert odd.vertices[1].platform == Platform("linux", "arm64")
    assert [vertex.digest for vertex in odd.vertices] == [vertex.digest for vertex in usual.vertices]
    assert wire.encode(odd) == wire.encode(usual)
    assert ran(b"").vertices[1].platform == host_platform()
    image = wire.decode(hand.definition(hand.source("docker-image://x")), Platform("linux", "s390x"))
    assert image.definition.vertices[0].platform == Platform("linux", "s390x")


@row("DIG-06")
@pytest.mark.parametrize(
    ("op", "name"),
    [
        (hand.source("https://example.com/x"), "https://example.com/x"),
        (RUN, "echo hi"),
        (
            hand.file_op(
                hand.action(msg(6, text(1, "/d")), output=-1),
                hand.action(msg(5, text(1, "/f")), given=0, output=-1),
                hand.action(msg(8, text(1, "old"), text(2, "/new")), given=1, output=-1),
                hand.action(msg(7, text(1, "/r")), given=2, output=-1),
                hand.action(msg(4, text(1, "/a"), text(2, "/b")), given=3),
            ),
            "mkdir /d, mkfile /f, symlink /new -> old, rm /r, copy /a /b",
        ),
        (hand.edge(LOCAL) + hand.edge(RUN) + msg(6, msg(1), msg(1, num(1, 1))), "merge (local://context, echo hi)"),
        (hand.edge(LOCAL) + hand.edge(RUN) + msg(7, msg(1), msg(2, num(1, 1))), "diff (local://context) -> (echo hi)"),
        (hand.edge(RUN) + msg(7, msg(1, hand.NONE), msg(2)), "diff scratch -> (echo hi)"),
        (hand.edge(RUN) + msg(5, num(1, -1)), "build"),
        (hand.edge(RUN) + msg(8, text(1, "tests"), msg(2, b"\x00")), "passthrough tests"),
    ],
)  # fmt: skip
def test_names_of_steps_without_one(op: bytes, name: str) -> None:
    assert wire.decode(hand.definition(LOCAL, RUN, op)).definition.vertices[-1].name == name


@row("DIG-06")
def test_a_name_is_not_made_of_endless_names() -> None:
    chain = [LOCAL]
    for _ in range(30):
        chain.append(hand.edge(chain[-1]) * 2 + msg(6, msg(1), msg(1, num(1, 1))))
    assert len(wire.decode(hand.definition(*chain)).definition.vertices[-1].name) <= 1000


@row("DIG-07")
def test_the_source_map() -> None:
    op = ops.SourceOp(identifier="local://context")
    vertex = Vertex(op=op, meta=VertexMeta(source=SourceRange(filename="Dockerfile", start=2, end=5)))
    place = msg(2, msg(1, num(1, 2)), msg(2, num(1, 5)))
    locations = msg(1, text(1, hand.digest(LOCAL)), msg(2, msg(1, place)))
    info = msg(2, text(1, "Dockerfile"), text(2, "FROM x\n"), text(4, "Dockerfile"))
    data = wire.encode(only(vertex), {"Dockerfile": b"FROM x\n"})
    assert data.endswith(msg(3, locations, info))
    loaded = wire.decode(hand.definition(LOCAL, rest=msg(3, locations, info)))
    assert loaded.definition.vertices[0].meta.source == vertex.meta.source
    assert [(file.filename, file.data) for file in loaded.files] == [("Dockerfile", b"FROM x\n")]


@row("DIG-07")
@pytest.mark.parametrize("place", [num(1, 7), num(1, -1), msg(2, msg(1, num(1, 9)), msg(2, num(1, 3))), b""])
def test_a_place_that_is_none_is_left_out(place: bytes) -> None:
    locations = msg(1, text(1, hand.digest(LOCAL)), msg(2, msg(1, place)))
    rest = msg(3, locations, msg(2, text(1, "Dockerfile")))
    assert wire.decode(hand.definition(LOCAL, rest=rest)).definition.vertices[0].meta.source is None


@row("DIG-08")
def test_a_run_names_its_inputs_once_and_numbers_what_can_be_kept() -> None:
    mounts = [
        "--mount=target=/z,from=tools",
        "--mount=target=/b,from=tools,source=/x,rw",
        "--mount=type=cache,target=/m",
        "--mount=type=tmpfs,target=/a",
    ]
    found = converted(f"FROM base AS tools\nFROM base\nRUN {' '.join(mounts)} make\n").definition
    op = parsed(wire.encode(found))
    run = [messages()["Op"].FromString(item) for item in getattr(op, "def")][-2]
    assert [mount.dest for mount in run.exec.mounts] == ["/", "/a", "/b", "/m", "/z"]
    assert [mount.output for mount in run.exec.mounts] == [0, -1, -1, -1, -1]
    assert [mount.input for mount in run.exec.mounts] == [0, -1, 0, -1, 0]
    assert len(run.inputs) == 1


@row("DIG-08")
@pytest.mark.parametrize(("platform", "added"), [("linux/amd64", True), ("windows/amd64", False)])
def test_path_is_added_where_it_is_missing(platform: str, added: bool) -> None:
    config = base_image(platform=Platform.parse(platform), env=())
    resolver = FakeResolver(configs={"docker.io/library/bare:latest": config})
    found = converted(f"FROM --platform={platform} bare\nRUN x\n", resolver).definition
    op = found.vertices[-1].op
    assert isinstance(op, ops.ExecOp)
    assert any(item.startswith("PATH=/usr/local/sbin:") for item in op.meta.env) is added
