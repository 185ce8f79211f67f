"""Cache keys: what they are made of, in the form that travels between machines and in what a build does."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from builder.cache import basekeys
from builder.cache.basekeys import InputRule, base_digest, base_json, input_rules, root_key
from builder.cache.cachegraph import GraphBuilder
from builder.errors import GraphError
from builder.llb.definition import Edge, Vertex
from builder.llb.ops import (
    ChownOpt,
    Copy,
    DiffOp,
    ExecMeta,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    MkDir,
    Mount,
    PassthroughOp,
    SecretEnv,
    SourceOp,
    UserOpt,
)
from builder.oci.digest import ChainId, Digest
from builder.oci.platform import Platform
from tests.support.rows import row

AMD64 = Platform("linux", "amd64")
A, B = (Vertex(op=SourceOp(identifier=f"docker-image://{name}")) for name in "ab")
ROOT = Mount(dest="/", input=0, output=0)


def sha256(text: str | bytes) -> str:
    return "sha256:" + hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def step(*mounts: Mount, meta: dict[str, Any] | None = None, inputs: int = 2, **more: Any) -> Vertex:
    op = ExecOp(
        meta=ExecMeta(args=("/bin/sh", "-c", "a && b"), **(meta or {})), mounts=mounts or (ROOT,), **more
    )
    return Vertex(op=op, inputs=(Edge(A.digest), Edge(B.digest))[:inputs], platform=AMD64)


def files(*actions: FileAction, inputs: int = 2) -> Vertex:
    return Vertex(op=FileOp(actions=actions), inputs=(Edge(A.digest), Edge(B.digest))[:inputs])


def copied(src: str, *, output: int = 0, **more: Any) -> FileAction:
    return FileAction(action=Copy(src=src, dest="/d", **more), input=0, secondary=1, output=output)


@row("CKY-01")
def test_root_keys() -> None:
    name = "sha256:" + "a" * 64
    assert root_key(name, 2) == sha256(f"{name}@2")
    assert basekeys.content_key(name) == sha256(f"{name}@-1")


@row("CKY-02", "CKY-03")
def test_exec() -> None:
    wanted = (
        '{"Type":"buildkit.exec.v0","Exec":{"meta":{"args":["/bin/sh","-c","a \\u0026\\u0026 b"],"cwd":"/"}},'
        '"OS":"linux","Arch":"amd64"}'
    )
    assert base_json(step()).decode() == wanted
    assert base_digest(step()) == sha256(wanted)
    assert base_json(step(replace(ROOT, readonly=True))).count(b'"mounts"') == 1
    varied = Vertex(op=step().op, platform=Platform("linux", "arm64", "v8", "10", ("x",)))
    assert base_json(varied).endswith(
        b'"OS":"linux","Arch":"arm64","Variant":"v8","OSVersion":"10","OSFeatures":["x"]}'
    )
    one = step(meta={"extra_hosts": (("h", "1.2.3.4"),), "proxy_env": (("http_proxy", "http://p"),)})
    two = step(meta={"extra_hosts": (("h", "5.6.7.8"),)})
    assert base_digest(one) == base_digest(two)
    assert b"1.2.3.4" not in base_json(one)
    assert b"http://p" not in base_json(one)
    bind = Mount(dest="/m", input=1, readonly=True)
    assert base_digest(step(ROOT, replace(bind, selector="x"))) == base_digest(step(ROOT, bind))
    assert b'"mounts":[{"dest":"/","input":0' not in base_json(step(ROOT, bind))
    assert json.loads(base_json(step(ROOT, bind)))["Exec"]["mounts"] == [
        {"dest": "/"},
        {"input": 1, "dest": "/m", "output": -1, "readonly": True},
    ]


@row("CKY-02", "CKY-05")
def test_cache_mounts() -> None:
    def key(**more: Any) -> str:
        return base_digest(step(ROOT, Mount(dest="/c", type="cache", **more)))

    assert key(id="own") == key(id="other") == key(id="/c", sharing="locked"), "left out"
    assert len({key(id="/c"), key(id="space//c"), key(id="own")}) == 3, "the default id stays"
    body = json.loads(base_json(step(ROOT, Mount(dest="/c", type="cache", id="/c"))))
    assert body["Exec"]["mounts"][1] == {
        "input": -1,
        "dest": "/c",
        "output": -1,
        "mountType": 3,
        "cacheOpt": {"ID": "/c"},
    }


@row("CKY-04")
def test_inputs_of_exec() -> None:
    def rule(*mounts: Mount) -> InputRule:
        return input_rules(step(ROOT, *mounts))[1]

    bind = Mount(dest="/m", input=1, selector="sub")
    assert input_rules(step())[0] == InputRule(selector=sha256("/"), by_content=False)
    assert rule(bind) == InputRule(selector=sha256("/sub"), by_content=True)
    assert rule(bind, replace(bind, dest="/n", selector="/b/")) == InputRule(
        selector=sha256("/sub\0/b"), by_content=True
    )
    assert rule(replace(bind, output=1)).by_content is False, (
        "what it writes would hide what was not selected"
    )
    assert rule(replace(bind, output=1, readonly=True)).by_content is True
    assert rule(replace(bind, output=1, selector="")).by_content is True
    assert rule(replace(bind, content_cache="off")).by_content is False
    assert input_rules(step(replace(ROOT, content_cache="on")))[0].by_content is True
    with pytest.raises(GraphError, match="invalid mount cache content"):
        rule(replace(bind, output=1, content_cache="on"))


@row("CKY-04")
def test_paths_below_others_count_once() -> None:
    from builder.solver.planning import copies_of

    mounts = [
        Mount(dest=f"/{n}", input=1, selector=path) for n, path in enumerate(("/b/c", "b", "a", "a", "bb"))
    ]
    assert [copy.src for copy in copies_of(step(ROOT, *mounts), 1)] == ["/a", "/b", "/bb"]


@row("CKY-05")
def test_secrets_are_names() -> None:
    body = base_json(step(ROOT, Mount(dest="/s", type="secret", id="token", mode=0o400), secret_env=(SecretEnv(id="token", name="T"),)))  # fmt: skip
    assert json.loads(body)["Exec"]["mounts"][1]["secretOpt"] == {"ID": "token", "mode": 256}
    assert json.loads(body)["Exec"]["secretenv"] == [{"ID": "token", "name": "T"}]
    assert input_rules(step(ROOT, Mount(dest="/t", type="tmpfs", input=1)))[1] == InputRule()


@row("CKY-06")
def test_files() -> None:
    action = '{"src":"f","dest":"/d","mode":-1,"timestamp":-1}'
    wanted = f'{{"Type":"buildkit.file.v0","Actions":["{base64.b64encode(action.encode()).decode()}"]}}'
    assert base_json(files(copied("/deep/f"))).decode() == wanted
    assert base_digest(files(copied("/other/f"))) == sha256(wanted)
    assert base_digest(files(copied("/deep/g"))) != sha256(wanted)
    inside = FileAction(action=Copy(src="/deep/f", dest="/d"), input=0, secondary=2, output=0)
    two = files(replace(copied("/x/f"), output=-1), replace(inside, input=2))
    assert b'"src":"/deep/f"' in base64.b64decode(json.loads(base_json(two))["Actions"][1]), "not an input's"
    chain = files(replace(copied("/x/f"), output=-1), FileAction(action=MkDir(path="/m"), input=3, output=0))
    assert "indexes" in json.loads(base_json(chain)), "not the chain that is usual"
    usual = files(replace(copied("/x/f"), output=-1), FileAction(action=MkDir(path="/m"), input=2, output=0))
    assert "indexes" not in json.loads(base_json(usual))
    swapped = [
        files(replace(copied(a), output=-1), replace(copied(b), input=2))
        for a, b in (("/x/f", "/y/f"), ("/y/f", "/x/f"))
    ]
    assert base_digest(swapped[0]) != base_digest(swapped[1]), "the one that comes last wins"


@row("CKY-07")
def test_inputs_of_files() -> None:
    rules = input_rules(files(replace(copied("/a"), output=-1), replace(copied("/b"), input=2)))
    assert rules == (InputRule(), InputRule(selector=sha256("/b\0/a"), by_content=True))
    both = FileAction(action=Copy(src="/a", dest="/b"), input=0, secondary=0, output=0)
    assert input_rules(files(both)) == (InputRule(), InputRule())
    owner = ChownOpt(user=UserOpt(name="app", input=1), group=UserOpt(name="app", input=1))
    named = input_rules(files(FileAction(action=MkDir(path="/m", owner=owner), input=0, output=0)))
    assert named[1].selector == sha256("/etc/passwd\0/etc/group")


@row("CKY-08")
def test_sources() -> None:
    assert basekeys.source_digest("x") == sha256("buildkit.source.v0:x")
    digest, chain = Digest.of(b"manifest"), ChainId(Digest.of(b"chain"))
    first, second = basekeys.image_keys(digest, chain, Platform("linux", "arm64", "v8"))
    assert first == sha256(f'{{"Digest":"{digest}","OS":"linux","Arch":"arm64","Variant":"v8"}}')
    assert second == str(chain)
    assert basekeys.image_keys(None, chain, AMD64) == (str(chain),)


@row("CKY-10")
def test_merge_diff_passthrough() -> None:
    def digest(op: Any) -> str:
        return base_digest(Vertex(op=op, inputs=(Edge(A.digest), Edge(B.digest))))

    assert digest(MergeOp(inputs=(0, 1))) == sha256("buildkit.merge.v0")
    both, one = DiffOp(lower=0, upper=1), DiffOp(lower=-1, upper=1)
    assert digest(both) != digest(one)
    assert digest(PassthroughOp(id="x", outputs=(0,))) != digest(PassthroughOp(id="x", outputs=(1,)))
    merge = Vertex(op=MergeOp(inputs=(0, 1)), inputs=(Edge(A.digest), Edge(B.digest)))
    assert input_rules(merge) == (InputRule(), InputRule())


@row("CKY-09")
def test_local_keys_are_never_written() -> None:
    builder = GraphBuilder()
    assert builder.add("random:" + "f" * 64, (), [((), 1)]) is None
    assert builder.config().records == ()
