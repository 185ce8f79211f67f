"""The op model in wire form, against bytes put together by hand from the field tables (OPM-01…13)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.errors import GraphError
from builder.llb import ops, wire
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.wire_schema import messages
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from tests.support import protohand as hand
from tests.support.protohand import msg, num, text
from tests.support.rows import row

AMD64 = Platform("linux", "amd64")
IMAGE = hand.source("docker-image://docker.io/library/busybox:latest", platform=hand.AMD64)
BUSYBOX = Vertex(
    op=ops.SourceOp(identifier="docker-image://docker.io/library/busybox:latest"), platform=AMD64
)


def ops_of(data: bytes) -> list[bytes]:
    return list(getattr(messages()["Definition"].FromString(data), "def"))


def check(vertex: Vertex, expected: bytes, *before: tuple[Vertex, bytes]) -> None:
    """``vertex`` is written as ``expected``, and read back from it."""
    vertices = (*(item for item, _ in before), vertex)
    given = Definition(vertices=vertices, head=Edge(vertex.digest))
    data = wire.encode(given)
    assert ops_of(data) == [*(item for _, item in before), expected, hand.edge(expected)]
    again = wire.decode(hand.definition(*(item for _, item in before), expected)).definition
    assert again == given
    assert again.head == given.head


def run(vertex_meta: ops.ExecMeta, *mounts: ops.Mount, **more) -> Vertex:
    root = ops.Mount(dest="/", input=0, output=0)
    op = ops.ExecOp(meta=vertex_meta, mounts=(root, *mounts), **more)
    return Vertex(op=op, inputs=(Edge(BUSYBOX.digest),), platform=AMD64)


ROOT = hand.mount("/", given=0, output=0)
SH = ops.ExecMeta(args=("sh",))


def ran(*body: bytes) -> bytes:
    return hand.edge(IMAGE) + msg(2, *body) + hand.AMD64


@row("OPM-01", "OPM-05")
def test_a_source_op_byte_by_byte() -> None:
    op = Vertex(
        op=ops.SourceOp(identifier="git://a/b", attrs=(("git.fullurl", "u"), ("git.keepgitdir", "true"))),
        platform=Platform("linux", "arm64", "v9", "1", ("x",)),
        constraints=("k",),
    )
    expected = bytes.fromhex(
        "1a35" "0a09" + b"git://a/b".hex()
        + "1210" "0a0b" + b"git.fullurl".hex() + "120175"
        + "1216" "0a0e" + b"git.keepgitdir".hex() + "1204" + b"true".hex()
        + "5218" "0a05" + b"arm64".hex() + "1205" + b"linux".hex() + "1a02" + b"v9".hex() + "220131" "2a0178"
        + "5a03" "0a016b"
    )  # fmt: skip
    check(op, expected)


@row("OPM-01")
def test_an_input_names_an_op_and_one_of_its_results() -> None:
    op = ops.ExecOp(meta=SH, mounts=(ops.Mount(dest="/", input=0, output=0), ops.Mount(dest="/o", output=1)))
    first = Vertex(op=op, inputs=(Edge(BUSYBOX.digest),), platform=AMD64)
    first_bytes = ran(hand.meta("sh"), ROOT, hand.mount("/o", output=1))
    second = Vertex(op=ops.MergeOp(inputs=(0,)), inputs=(Edge(first.digest, 1),))
    expected = msg(1, text(1, hand.digest(first_bytes)), b"\x10\x01") + msg(6, msg(1))
    check(second, expected, (BUSYBOX, IMAGE), (first, first_bytes))


@row("OPM-02", "OPM-03")
def test_an_exec_op_field_by_field() -> None:
    meta = ops.ExecMeta(
        args=("a", "b"),
        env=("Z=1", "A=2"),
        cwd="/w",
        user="u:g",
        proxy_env=(("HTTP_PROXY", "p"), ("http_proxy", "p"), ("ALL_PROXY", "q"), ("all_proxy", "q")),
        extra_hosts=(("db", "10.0.0.1"),),
        hostname="box",
        ulimits=(ops.Ulimit(name="nofile", soft=5, hard=-1),),
        cgroup_parent="c",
        valid_exit_codes=(0, 3),
        remove_mount_stubs_recursive=True,
    )
    vertex = run(
        meta,
        network="none",
        security="insecure",
        secret_env=(ops.SecretEnv(id="i", name="N", optional=True),),
        devices=("v/c=a,required", "v/c=b"),
    )
    meta_bytes = msg(
        1,
        *(text(1, "a"), text(1, "b"), text(2, "Z=1"), text(2, "A=2"), text(3, "/w"), text(4, "u:g")),
        msg(5, text(1, "p"), text(5, "q")),
        msg(6, text(1, "db"), text(2, "10.0.0.1")),
        text(7, "box"),
        msg(9, text(1, "nofile"), num(2, 5), num(3, -1)),
        text(10, "c"),
        num(11, 1),
        msg(12, b"\x00\x03"),
    )
    expected = ran(
        meta_bytes,
        ROOT,
        num(3, 2),
        num(4, 1),
        msg(5, text(1, "i"), text(2, "N"), num(3, 1)),
        msg(6, text(1, "v/c=a")),
        msg(6, text(1, "v/c=b"), num(2, 1)),
    )
    check(vertex, expected, (BUSYBOX, IMAGE))


MINUS_ONE = "ffffffffffffffffff01"


@row("OPM-04")
def test_mounts_of_every_type() -> None:
    mounts = (
        ops.Mount(dest="/b", input=0, selector="/s", readonly=True, content_cache="off", result_id="r"),
        ops.Mount(dest="/c", type="cache", id="k", sharing="locked"),
        ops.Mount(dest="/t", type="tmpfs", size_bytes=300),
        ops.Mount(dest="/x", type="secret", id="i", uid=1, gid=2, mode=0o400, optional=True, readonly=True),
        ops.Mount(dest="/y", type="ssh", id="default", mode=0o600, readonly=True),
    )
    expected = ran(
        hand.meta("sh"),
        bytes.fromhex("12 03 1a 01 2f"),
        bytes.fromhex("12 1c 12 02 2f73 1a 02 2f62 20" + MINUS_ONE + "28 01 ba01 01 72 c001 02"),
        bytes.fromhex("12 24 08" + MINUS_ONE + "1a 02 2f63 20" + MINUS_ONE + "30 03 a201 05 0a 01 6b 10 02"),
        bytes.fromhex("12 22 08" + MINUS_ONE + "1a 02 2f74 20" + MINUS_ONE + "30 04 9a01 03 08 ac02"),
        bytes.fromhex("12 2d 08" + MINUS_ONE + "1a 02 2f78 20" + MINUS_ONE + "28 01 30 01 aa01 0c 0a0169 1001 1802 208002 2801"),
        hand.mount("/y", rest=num(5, 1) + num(6, 2) + msg(22, text(1, "default"), num(4, 0o600))),
    )  # fmt: skip
    check(run(SH, *mounts), expected, (BUSYBOX, IMAGE))


@row("OPM-06", "OPM-07")
def test_file_actions_name_inputs_and_earlier_results() -> None:
    copy = ops.Copy(
        src="/a",
        dest="/b",
        owner=ops.ChownOpt(user=ops.UserOpt(name="app", input=1), group=ops.UserOpt(id=0)),
        follow_symlink=True,
        dir_contents=True,
        attempt_unpack=True,
        create_dest_path=True,
        allow_wildcard=True,
        allow_empty_wildcard=True,
        timestamp_ns=7,
        include_patterns=("i",),
        exclude_patterns=("e",),
        always_replace=True,
        mode_str="u+x",
        required_paths=("r",),
    )
    op = ops.FileOp(
        actions=(
            ops.FileAction(action=ops.MkDir(path="/d", mode=0o700, make_parents=True)),
            ops.FileAction(action=copy, input=1, secondary=0, output=0),
        )
    )
    owner = msg(3, msg(1, msg(1, text(1, "app"), num(2, 1))), msg(2, b"\x10\x00"))
    flags = b"".join(num(field, 1) for field in range(5, 11))
    copied = msg(
        4,
        *(text(1, "/a"), text(2, "/b"), owner, bytes.fromhex("20" + MINUS_ONE), flags, num(11, 7)),
        *(text(12, "i"), text(13, "e"), num(14, 1), text(15, "u+x"), text(16, "r")),
    )
    expected = hand.edge(IMAGE) + msg(
        4,
        hand.action(msg(6, text(1, "/d"), num(2, 0o700), num(3, 1), num(5, -1)), output=-1),
        msg(2, num(1, 1), copied),
    )
    check(Vertex(op=op, inputs=(Edge(BUSYBOX.digest),)), expected, (BUSYBOX, IMAGE))


@row("OPM-08")
def test_the_other_file_actions() -> None:
    owner = ops.ChownOpt(user=ops.UserOpt(id=1000))
    actions = (
        ops.MkFile(path="/f", data=b"\x00\xff", mode=0o600, owner=owner, timestamp_ns=0),
        ops.Rm(path="/r", allow_not_found=True, allow_wildcard=True),
        ops.Symlink(old_path="o", new_path="/n", timestamp_ns=1),
    )
    chain = tuple(
        ops.FileAction(action=item, input=i - 1, output=0 if i == 2 else -1) for i, item in enumerate(actions)
    )
    expected = hand.file_op(
        hand.action(
            msg(5, text(1, "/f"), num(2, 0o600), msg(3, b"\x00\xff"), msg(4, msg(1, num(2, 1000)))), output=-1
        ),
        hand.action(msg(7, text(1, "/r"), num(2, 1), num(3, 1)), given=0, output=-1),
        hand.action(msg(8, text(1, "o"), text(2, "/n"), num(4, 1)), given=1),
    )
    check(Vertex(op=ops.FileOp(actions=chain)), expected)


@row("OPM-09")
def test_merge_diff_and_passthrough() -> None:
    local, local_bytes = Vertex(op=ops.SourceOp(identifier="local://x")), hand.source("local://x")
    before = ((BUSYBOX, IMAGE), (local, local_bytes))
    inputs = (Edge(BUSYBOX.digest), Edge(local.digest))
    edges = hand.edge(IMAGE) + hand.edge(local_bytes)
    check(
        Vertex(op=ops.MergeOp(inputs=(1, 0)), inputs=inputs),
        edges + msg(6, msg(1, num(1, 1)), msg(1)),
        *before,
    )
    check(
        Vertex(op=ops.DiffOp(lower=0, upper=1), inputs=inputs),
        edges + msg(7, msg(1), msg(2, num(1, 1))),
        *before,
    )
    scratch = Vertex(op=ops.DiffOp(lower=-1, upper=0), inputs=inputs[:1])
    check(scratch, hand.edge(IMAGE) + msg(7, msg(1, hand.NONE), msg(2)), *before[:1])
    passed = Vertex(op=ops.PassthroughOp(id="p", outputs=(1,)), inputs=inputs)
    check(passed, edges + msg(8, text(1, "p"), msg(2, b"\x01")), *before)


@row("OPM-10")
def test_a_build_op() -> None:
    op = ops.BuildOp(inputs=((ops.DEFINITION_INPUT, 0),), attrs=(("llbbuild.filename", "f"),))
    expected = hand.edge(IMAGE) + msg(
        5,
        num(1, -1),
        msg(2, text(1, "buildkit.llb.definition"), msg(2)),
        msg(4, text(1, "llbbuild.filename"), text(2, "f")),
    )
    check(Vertex(op=op, inputs=(Edge(BUSYBOX.digest),)), expected, (BUSYBOX, IMAGE))


@row("OPM-11")
def test_attributes_are_kept_and_sorted() -> None:
    attrs = {"http.uid": "1", "http.checksum": "sha256:x", "image.resolvemode": "pull", "local.unique": "z"}
    data = hand.definition(hand.source("https://h/f", attrs))
    found = wire.decode(data).definition.vertices[0].op
    assert isinstance(found, ops.SourceOp)
    assert found.attrs == tuple(sorted(attrs.items()))
    assert found.attr("http.uid") == "1"


BAD = msg(2, hand.meta("sh"), hand.mount("/a"))


@row("OPM-12")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "invalid empty definition"),
        (msg(1, IMAGE), "invalid LLB with 1 vertexes"),
        (msg(1, IMAGE) + msg(1, hand.source("local://x")), "invalid LLB with no inputs on last vertex"),
        (msg(1, IMAGE) + msg(1, hand.edge(b"other")), f"invalid missing input digest {hand.digest(b'other')}"),
        (hand.definition(IMAGE, head=1), "invalid input 0 output index 1"),
        (hand.definition(IMAGE, head=-1), "invalid input 0 output index -1"),
        (hand.definition(msg(2, ROOT)), "invalid exec op with no meta"),
        (hand.definition(msg(2, msg(1, text(3, "/")), ROOT)), "invalid exec op with no args"),
        (hand.definition(msg(2, hand.meta("sh"))), "invalid exec op with no mounts"),
        (hand.definition(BAD), "invalid exec op with no rootfs"),
        (hand.definition(msg(4)), "invalid file op with no actions"),
        (hand.definition(msg(7, msg(1, hand.NONE))), "invalid diff op with nil lower or upper input"),
        (hand.definition(msg(8, msg(2, b"\x00"))), "invalid passthrough op with no id"),
        (hand.definition(msg(8, text(1, "p"))), "invalid passthrough op with no outputs"),
        (hand.definition(msg(3)), "invalid nil source op"),
        (hand.definition(msg(6)), "invalid nil merge op"),
        (hand.definition(msg(5)), "invalid nil build op"),
        (hand.definition(msg(9, text(1, "new"))), "invalid op of a kind that is not known"),
        (hand.definition(msg(2, hand.meta("sh"), hand.mount("/", given=3, output=0))), "invalid input position 3 of 0"),
        (hand.definition(msg(2, hand.meta("sh"), hand.mount("/", output=0), num(3, 9))), "invalid network mode 9"),
        (hand.definition(hand.file_op(hand.mkfile("/x", "y", given=5))), "action 0 names a later result"),
        (hand.definition(hand.file_op(hand.action(msg(9)))), "invalid file action of a kind that is not known"),
        (hand.definition(hand.source("nothing")), "no scheme"),
        (hand.definition(msg(2, hand.meta("s\0h"), hand.mount("/", output=0))), "NUL character"),
        (hand.definition(msg(2, hand.meta("sh"), hand.mount("/", output=1))), "invalid output 1: results are"),
        (hand.definition(msg(2, hand.meta("sh"), hand.mount("/", output=0), hand.mount("/a", output=0))), "invalid output 0"),
        (hand.definition(msg(2, hand.meta("sh"), *(hand.mount("/", output=i) for i in (0, 1)))), "two results at one destination"),
        (hand.definition(hand.file_op(hand.mkfile("/x", "", output=1 << 40))), "invalid output 1099511627776"),
        (hand.definition(msg(2, hand.meta("sh", rest=msg(9, text(1, "x"))), hand.mount("/", output=0))), "invalid ulimit type: 'x'"),
        (hand.definition(msg(2, hand.meta("sh", rest=text(10, "/a/../b")), hand.mount("/", output=0))), "invalid parent of a cgroup"),
        (b"\xff\xff\xff", "not an LLB definition"),
        (msg(1, b"\xff") + msg(1, b"\xfe"), "failed to parse llb proto op"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(data: bytes, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        wire.decode(data)
    assert said in str(caught.value)


@row("OPM-12")
def test_sizes_are_bounded() -> None:
    with pytest.raises(GraphError, match="too large"):
        wire.decode(bytes((64 << 20) + 1))
    with pytest.raises(GraphError, match="too large"):
        wire.decode(b"\x0a\x00" * 100_001)
    deep = b""
    for _ in range(200):
        deep = msg(3, msg(2, msg(3, deep)))
    with pytest.raises(GraphError):
        wire.decode(hand.definition(hand.source("local://x"), rest=deep))


@row("OPM-13")
def test_what_no_one_here_can_do_is_refused() -> None:
    def asking(name: str, wanted: int) -> bytes:
        said = hand.metadata(IMAGE, msg(5, text(1, name), num(2, wanted)))
        return hand.definition(IMAGE, rest=said)

    wire.decode(asking("exec.mount.cache.sharing", 1))
    wire.decode(asking("mind.reading", 0))
    with pytest.raises(GraphError, match=r"mind\.reading is not supported"):
        wire.decode(asking("mind.reading", 1))


@row("OPM-13")
def test_what_a_vertex_needs_is_said() -> None:
    mounts = (ops.Mount(dest="/c", type="cache", id="c"), ops.Mount(dest="/t", type="tmpfs", size_bytes=1))
    copy = ops.Copy(src="/", dest="/", include_patterns=("a",))
    first = replace(run(SH, *mounts, network="host"), meta=VertexMeta(ignore_cache=True))
    second = Vertex(
        op=ops.FileOp(actions=(ops.FileAction(action=copy, input=0, secondary=0, output=0),)),
        inputs=(Edge(first.digest),),
    )
    data = wire.encode(Definition(vertices=(BUSYBOX, first, second), head=Edge(second.digest)))
    message = messages()["Definition"].FromString(data)
    names = [str(Digest.of(op)) for op in ops_of(data)]
    needs = [sorted(message.metadata[name].caps) for name in names]
    assert "source.image" in needs[0]
    wanted = {"exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.tmpfs.size", "exec.meta.network"}
    assert wanted | {"meta.ignorecache"} <= set(needs[1])
    assert "file.copy.includeexcludepatterns" in needs[2]
    assert needs[3] == ["constraints", "platform"]
