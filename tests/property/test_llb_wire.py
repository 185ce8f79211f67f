"""Definitions survive the way through the wire form; nothing that comes in breaks more than itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import GraphError
from builder.frontend.convert import convert
from builder.frontend.parser import parse
from builder.llb import ops, serialize, wire
from builder.llb.definition import Definition, Edge, LinuxResources, SourceRange, Vertex, VertexMeta
from builder.llb.wire_schema import MESSAGES, messages
from builder.oci.platform import Platform
from builder.solver.runnable import runnable
from tests.support import goldens
from tests.support import protohand as hand

pytestmark = pytest.mark.property
GOLDEN = Path(__file__).parents[1] / "golden" / "dockerfiles"

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
names = words.filter(bool)
paths = words.map(lambda text: f"/{text}")
texts = st.lists(words, max_size=3).map(tuple)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
uint32 = st.integers(0, (1 << 32) - 1)
pairs = st.dictionaries(words, words, max_size=3).map(lambda found: tuple(sorted(found.items())))
platforms = st.sampled_from([Platform("linux", "amd64"), Platform("linux", "arm", "v7"), Platform("windows", "amd64", "", "10", ("f",))])  # fmt: skip


def owners(limit: int) -> st.SearchStrategy[ops.ChownOpt | None]:
    by_name = st.builds(ops.UserOpt, name=names, input=st.integers(-1, limit - 1))
    one = st.none() | by_name | st.builds(ops.UserOpt, id=uint32)
    return st.none() | st.builds(ops.ChownOpt, user=one, group=one)


def mounts(inputs: int) -> st.SearchStrategy[ops.Mount]:
    place = {
        "dest": paths,
        "input": st.integers(-1, inputs - 1),
        "selector": words,
        "output": st.just(-1),
        "readonly": st.booleans(),
        "content_cache": st.sampled_from(["default", "on", "off"]),
        "result_id": words,
    }
    file = {"id": words, "uid": uint32, "gid": uint32, "mode": uint32, "optional": st.booleans()}
    return st.one_of(
        st.builds(ops.Mount, **place),
        st.builds(ops.Mount, type=st.just("tmpfs"), size_bytes=st.integers(0, 1 << 62), **place),
        st.builds(ops.Mount, type=st.just("cache"), id=words, sharing=st.sampled_from(["shared", "private", "locked"]), **place),
        st.builds(ops.Mount, type=st.sampled_from(["secret", "ssh"]), **place, **file),
    )  # fmt: skip


def execs(inputs: int) -> st.SearchStrategy[ops.ExecOp]:
    proxies = st.sampled_from(
        [(), (("HTTP_PROXY", "p"), ("http_proxy", "p"), ("NO_PROXY", "n"), ("no_proxy", "n"))]
    )
    meta = st.builds(
        ops.ExecMeta,
        args=st.lists(words, min_size=1, max_size=3).map(tuple),
        env=texts,
        cwd=words,
        user=words,
        proxy_env=proxies,
        extra_hosts=st.lists(st.tuples(words, words), max_size=2).map(tuple),
        hostname=words,
        ulimits=st.lists(
            st.builds(ops.Ulimit, name=st.sampled_from(["nofile", "core"]), soft=int64, hard=int64),
            max_size=2,
        ).map(tuple),
        cgroup_parent=words,
        valid_exit_codes=st.lists(int32, min_size=1, max_size=3).map(tuple),
        remove_mount_stubs_recursive=st.booleans(),
    )
    device = names.filter(lambda text: not text.endswith(ops.REQUIRED))
    return st.builds(
        ops.ExecOp,
        meta=meta,
        mounts=st.lists(mounts(inputs), max_size=3).map(
            lambda found: (ops.Mount(dest="/", input=inputs - 1, output=0), *found)
        ),
        network=st.sampled_from(["sandbox", "host", "none"]),
        security=st.sampled_from(["sandbox", "insecure"]),
        secret_env=st.lists(
            st.builds(ops.SecretEnv, id=words, name=names.filter(lambda n: "=" not in n), optional=st.booleans()), max_size=2
        ).map(tuple),
        devices=st.lists(device | device.map(lambda text: text + ops.REQUIRED), max_size=2).map(tuple),
    )  # fmt: skip


def actions(limit: int) -> st.SearchStrategy[ops.Action]:
    owner = owners(limit)
    return st.one_of(
        st.builds(ops.Copy, src=words, dest=words, owner=owner, mode=int32, mode_str=words, follow_symlink=st.booleans(), dir_contents=st.booleans(), attempt_unpack=st.booleans(), create_dest_path=st.booleans(), allow_wildcard=st.booleans(), allow_empty_wildcard=st.booleans(), timestamp_ns=int64, include_patterns=texts, exclude_patterns=texts, always_replace=st.booleans(), required_paths=texts),
        st.builds(ops.MkFile, path=words, data=st.binary(max_size=9), mode=int32, owner=owner, timestamp_ns=int64),
        st.builds(ops.MkDir, path=words, mode=int32, make_parents=st.booleans(), owner=owner, timestamp_ns=int64),
        st.builds(ops.Rm, path=words, allow_not_found=st.booleans(), allow_wildcard=st.booleans()),
        st.builds(ops.Symlink, old_path=words, new_path=words, owner=owner, timestamp_ns=int64),
    )  # fmt: skip


@st.composite
def file_ops(draw: st.DrawFn, inputs: int) -> ops.FileOp:
    count = draw(st.integers(1, 3))
    made = []
    for index in range(count):
        position = st.integers(-1, inputs + index - 1)
        made.append(
            ops.FileAction(
                action=draw(actions(inputs + index)),
                input=draw(position),
                secondary=draw(position),
                output=0 if index == count - 1 else -1,
            )
        )
    return ops.FileOp(actions=tuple(made))


metas = st.builds(
    VertexMeta,
    name=words,
    command=words,
    description=st.dictionaries(words.map(lambda text: f"x{text}"), words, max_size=2).map(
        lambda found: tuple(sorted(found.items()))
    ),
    ignore_cache=st.booleans(),
    export_cache=st.booleans(),
    source=st.none() | st.builds(SourceRange, filename=words, start=st.just(2), end=st.integers(2, 9)),
    resources=st.none() | st.builds(LinuxResources, memory_bytes=int64, cpuset_cpus=words),
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Graphs in the normal form that DIG-04 asks for."""
    vertices: dict[object, Vertex] = {}
    last = None
    for number in range(draw(st.integers(1, 5))):
        known = list(vertices.values())
        given_ = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)) if known else []
        count = len(given_)
        kind = (
            draw(st.sampled_from(["source", "exec", "file", "merge", "diff", "build", "pass"]))
            if count
            else "source"
        )
        platform = None
        op: ops.Op
        match kind:
            case "source":
                scheme = draw(st.sampled_from(["docker-image", "local", "git", "https"]))
                op = ops.SourceOp(identifier=f"{scheme}://{draw(words)}{number}", attrs=draw(pairs))
                platform = draw(platforms) if scheme == "docker-image" else draw(st.none() | platforms)
            case "exec":
                op, platform = draw(execs(count)), draw(platforms)
            case "file":
                op = draw(file_ops(count))
            case "merge":
                op = ops.MergeOp(inputs=tuple(range(count)))
            case "diff":
                op = ops.DiffOp(lower=draw(st.integers(-1, count - 1)), upper=count - 1)
            case "build":
                op = ops.BuildOp(inputs=(("x", 0),), attrs=draw(pairs))
            case _:
                op = ops.PassthroughOp(id=draw(names), outputs=(0,))
        edges = tuple(Edge(vertex.digest) for vertex in given_)
        vertex = Vertex(op=op, inputs=edges, platform=platform, constraints=draw(texts), meta=draw(metas))
        last = vertices.setdefault(vertex.digest, vertex)
    assert last is not None
    return Definition.of(vertices, Edge(last.digest))  # type: ignore[arg-type]


@settings(deadline=None)
@given(definitions())
def test_out_and_back(definition: Definition) -> None:
    data = wire.encode(definition)
    loaded = wire.decode(data).definition
    assert [vertex.digest for vertex in loaded.vertices] == [vertex.digest for vertex in definition.vertices]
    assert (loaded, loaded.head) == (definition, definition.head)
    for before, after in zip(definition.vertices, loaded.vertices, strict=True):
        assert before.meta.name == after.meta.name
        assert before.meta.source == after.meta.source
        assert before.meta.resources == after.meta.resources
    assert wire.encode(loaded) == data
    lines = [json.loads(line) for line in serialize.dump_lines(data)]
    assert [line["Digest"] for line in lines[:-1]] == list(wire.wire_digests(definition).values())
    assert serialize.to_dot(data).count(" -> ") >= len(lines) - 1
    runnable(loaded)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_every_golden_dockerfile_out_and_back(path: Path) -> None:
    options, resolver = goldens.settings(path.parent)
    definition = convert(parse(path.read_bytes()), options, resolver).definition
    data = wire.encode(definition, {"Dockerfile": path.read_bytes()})
    if definition.head is None:
        assert data == b""
        return
    loaded = wire.decode(data)
    assert [vertex.digest for vertex in loaded.definition.vertices] == [v.digest for v in definition.vertices]
    assert [vertex.meta for vertex in loaded.definition.vertices if not vertex.meta.fallback] == [
        replace(before.meta, arguments=())  # which variables are arguments is not in the wire form
        for before, after in zip(definition.vertices, loaded.definition.vertices, strict=True)
        if not after.meta.fallback
    ]
    files = {file.filename: file.data for file in loaded.files}
    assert wire.encode(loaded.definition, files) == data


def refused_or_read(data: bytes) -> None:
    for read in (wire.decode, lambda given_: list(serialize.dump_lines(given_)), serialize.to_dot):
        try:
            read(data)
        except GraphError:
            pass


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    refused_or_read(data)
    refused_or_read(hand.definition(data))


@settings(deadline=None)
@given(definitions(), st.data())
def test_damaged_definitions(definition: Definition, data: st.DataObject) -> None:
    good = bytearray(wire.encode(definition))
    refused_or_read(bytes(good[: data.draw(st.integers(0, len(good)))]))
    for _ in range(3):
        good[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused_or_read(bytes(good))


@settings(deadline=None)
@given(st.data())
def test_any_op_that_the_messages_can_hold(data: st.DataObject) -> None:
    local = hand.source("local://x")
    op = messages()["Op"]()
    kind = data.draw(st.sampled_from(sorted(field.name for field in op.DESCRIPTOR.oneofs[0].fields)))
    fill(getattr(op, kind), data, depth=0)
    op.inputs.add(digest=hand.digest(local), index=data.draw(st.integers(-1, 1)))
    refused_or_read(hand.definition(local, op.SerializeToString()))


def fill(message: object, data: st.DataObject, *, depth: int) -> None:
    """Set some fields of a message to anything."""
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        if depth > 4 or not data.draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.message_type is not None:
            part = getattr(message, field.name)
            fill(part.add() if field.is_repeated else part, data, depth=depth + 1)
            continue
        value = data.draw(
            st.sampled_from(
                {9: ["", "/", "x", "\0"], 12: [b"", b"\xff"], 8: [True]}.get(field.type, [0, 1, 2, 99])
            )
        )
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def test_the_table_has_no_number_twice() -> None:
    for name, text in MESSAGES.items():
        numbers = [item.split()[0] for item in text.split(",")]
        assert len(set(numbers)) == len(numbers), name
