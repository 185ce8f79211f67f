"""Build contexts and named contexts (CTX rows)."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pybuild
from builder.errors import PybuildError
from builder.exporter.types import OutputSpec
from builder.frontend.errors import BadOption
from builder.sources.contexttree import ContextTree
from builder.sources.named import parse_named
from tests.support.buildlab import Built, Lab
from tests.support.dockerfiles import FakeResolver, converted, names, ops
from tests.support.rows import row

root_only = pytest.mark.root


def archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@row("CTX-01")
@root_only
def test_where_the_dockerfile_is(lab: Lab) -> None:
    lower = lab.context({"dockerfile": "FROM scratch\nCOPY a /lower\n", "a": ""})
    assert Built(lab, lab.build(lower)).names() == ["lower"]
    context = lab.context(
        {"a": "", "in/D": "FROM scratch\nCOPY a /in\n", "Dockerfile": "FROM scratch\nCOPY a /main\n"}
    )
    (context / "link").symlink_to("in/D")
    assert Built(lab, lab.build(context)).names() == ["main"]
    assert Built(lab, lab.build(context, dockerfile=str(context / "in/D"))).names() == ["in"]
    assert Built(lab, lab.build(context, dockerfile=str(context / "link"))).names() == ["in"]
    outside = lab.context({"D": "FROM scratch\nCOPY a /outside\n"})
    assert Built(lab, lab.build(context, dockerfile=str(outside / "D"))).names() == ["outside"]
    with pytest.raises(PybuildError, match="failed to read dockerfile"):
        lab.build(lower, dockerfile=str(lower / "Other"))


@row("CTX-02")
@root_only
def test_internal_steps(lab: Lab) -> None:
    context = lab.context({"a": "", ".dockerignore": "b\n", "in/D": "FROM scratch\nCOPY a /\n"})
    lab.build(context, dockerfile=str(context / "in/D"))
    seen = {event.name for event in lab.watcher.events if getattr(event, "name", "")}
    assert {
        "[internal] load build definition from D",
        "[internal] load .dockerignore",
        "[internal] load build context",
    } <= seen


@row("CTX-03")
@root_only
def test_forms(lab: Lab, site: tuple[str, Path], repository: tuple[str, str]) -> None:
    url, root = site
    assert lab.quick("FROM scratch\nCOPY a /\n", {"a": ""}).names() == ["a"]
    assert Built(lab, lab.build(f"{repository[0]}#main:sub")).names() == ["b"]
    files = {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}
    (root / "ctx.tar").write_bytes(archive(files))
    assert Built(lab, lab.build(f"{url}/ctx.tar")).names() == ["a"]
    assert Built(lab, lab.build("-", stdin=io.BytesIO(archive(files)))).names() == ["a"]
    alone = Built(lab, lab.build("-", stdin=io.BytesIO(b"FROM busybox\nENV only=1\n")))
    assert "only=1" in alone.config.env


@row("CTX-04")
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=lambda f: f.__name__
)
@root_only
def test_downloads(lab: Lab, site: tuple[str, Path], pack: Callable[[bytes], bytes]) -> None:
    url, root = site
    (root / "any").write_bytes(pack(archive({"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "1"})))
    assert Built(lab, lab.build(f"{url}/any")).names() == ["Dockerfile", "a"]
    (root / "file").write_text("FROM scratch\nCOPY . /\n")
    assert Built(lab, lab.build(f"{url}/file")).names() == ["context"], "the file is the Dockerfile"


@row("CTX-05", "CTX-06")
@root_only
def test_remote_contexts(lab: Lab, repository: tuple[str, str]) -> None:
    url, _ = repository
    assert Built(lab, lab.build(f"{url}#v1:sub")).names() == ["b"]
    whole = Built(lab, lab.build(f"{url}#v1"))
    assert whole.names() == [".dockerignore", "Dockerfile", "a", "sub"], "the ignore file does not count"
    kept = lab.build(f"{url}#v1", build_args=(("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),))
    assert ".git" in Built(lab, kept).names()
    local = Built(lab, lab.build(f"{url}#v1", dockerfile_data=b"FROM scratch\nCOPY a /from-local\n"))
    assert local.names() == ["from-local"]


@row("CTX-07")
def test_what_is_replaced() -> None:
    def sources(text, contexts, **changes):
        found = converted(text, FakeResolver(contexts=contexts), **changes)
        return [op.identifier.partition("@")[0] for op in ops(found, "SourceOp")]

    local = ("local", "local://n")
    assert sources("FROM a AS n\nRUN x\nFROM scratch\nCOPY --from=n p q\n", {"n": local}) == ["local://n"]
    for name in ("n", "n:latest", "docker.io/library/n", "docker.io/library/n:latest", "library/n"):
        assert sources(f"FROM {name}\nRUN x\n", {"n": local}) == ["local://n"], name
    assert sources("FROM n:1\nRUN x\n", {"n": local}) == ["docker-image://docker.io/library/n:1"]
    assert sources("FROM scratch\nRUN --mount=from=n,target=/t x\n", {"n": local}) == ["local://n"]
    upper = "FROM a AS Big\nRUN x\nFROM scratch\nCOPY --from=BIG p q\n"
    assert parse_named("Big", "docker-image://x").name == "big", "names of stages have no case"
    assert sources(upper, {"big": local}) == ["local://n"]
    assert sources("FROM scratch\nCOPY --from=BIG p q\n", {"big": local}) == ["local://n"]
    own = {"n::linux/amd64": ("local", "local://own"), "n": local}
    assert sources("FROM n\nRUN x\n", own) == ["local://own"]
    assert sources("FROM scratch\nCOPY p q\n", {"scratch": local, "context": local}) == ["local://context"]
    for name in ("scratch", "context"):
        with pytest.raises(PybuildError, match=f"{name} cannot be replaced"):
            parse_named(name, "docker-image://x")


@row("CTX-07")
@root_only
def test_a_context_for_one_platform(lab: Lab) -> None:
    one, other = lab.context({"x": "any"}), lab.context({"x": "arm"})
    result = lab.build(
        lab.context(),
        "FROM scratch\nCOPY --from=n x /\n",
        platforms=("linux/amd64", "linux/arm64"),
        build_contexts=(("n", str(one)), ("n::linux/arm64", str(other))),
    )
    assert Built(lab, result, "linux/amd64").read("x") == "any"
    assert Built(lab, result, "linux/arm64").read("x") == "arm"


@row("CTX-08", "CTX-09")
@root_only
def test_sources(lab: Lab, site: tuple[str, Path], repository: tuple[str, str], tmp_path: Path) -> None:
    url, root = site
    (root / "plain.txt").write_text("page")
    lab.quick('FROM busybox\nENV IMAGE=1\nCMD ["from-image"]\nRUN echo i > /i\n', tags=("ctx:1",))
    layout = tmp_path / "layout"
    lab.build(lab.context(), "FROM ctx:1\nENV LAYOUT=1\n",
              outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),))  # fmt: skip
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    local = lab.context({"f": "local", "hidden": "", ".dockerignore": "hidden\n"})

    def stage(value: str, tail: str = "") -> Built:
        text = f"FROM nowhere.invalid/x AS n\nRUN false\nFROM n\nENV own=1\n{tail}"
        return lab.quick(text, {"g": ""}, build_contexts=(("n", value),))

    image = stage("docker-image://ctx:1")
    assert ("IMAGE=1" in image.config.env, image.config.cmd, image.read("i")) == (
        True,
        ("from-image",),
        "i\n",
    )
    assert "LAYOUT=1" in stage(f"oci-layout://{layout}@{digest}").config.env
    tree = stage(str(local))
    assert (tree.read("f"), tree.has("hidden"), tree.config.cmd) == ("local", False, None)
    assert [item.partition("=")[0] for item in tree.config.env] == ["PATH", "own"]
    git = stage(f"{repository[0]}#v1")
    assert (git.read("a"), git.config.cmd) == ("one", None)
    assert stage(f"{url}/plain.txt").read("context") == "page"
    assert stage("docker-image://scratch", "COPY g /\n").names() == ["g"]
    assert stage(str(local), "COPY g /\nWORKDIR /w\n").names() == [".dockerignore", "f", "g", "w"]
    assert stage(str(local), "COPY --link g /\n").names() == [".dockerignore", "f", "g"]
    assert tree.layers == sum(not entry.empty_layer for entry in tree.config.history) == 1


@row("CTX-10")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "invalid context specifier  for n"),
        ("ftp://h/x", "unsupported context source ftp for n"),
        ("target:other", "unsupported context source target for n"),
        ("oci-layout://@sha256:" + "a" * 64, "has no name"),
        ("ftp://", "unsupported context source ftp for n"),
        ("docker-image://A:b:c", "invalid context specifier docker-image://A:b:c for n"),
        ("docker-image://", "invalid context specifier docker-image:// for n"),
        ("oci-layout:///p@sha256:xy", "invalid context specifier oci-layout:///p@sha256:xy for n"),
        ("https://h/r.git?tag=a&branch=b", "invalid git context https://h/r.git?tag=a&branch=b"),
    ],
)
def test_bad_sources(value: str, message: str) -> None:
    with pytest.raises(PybuildError) as caught:
        parse_named("n", value)
    assert message in caught.value.message


@pytest.fixture
def client(lab: Lab) -> Iterator[pybuild.Client]:
    """The Python API over the laboratory's store."""
    with pybuild.Client(lab.store.root) as made:
        yield made


@row("CTX-08", "CTX-09")
@root_only
def test_the_result_of_another_build(lab: Lab, client: pybuild.Client) -> None:
    base = client.build(
        {"Dockerfile": 'FROM busybox\nENV made=1\nCMD ["c"]\nRUN echo f > /f\n'}, tags=["in:1"]
    )
    text = "FROM base AS n\nENV more=1\nFROM scratch AS files\nCOPY --from=base /f /copied\n"
    child = Built(lab, client.build({"Dockerfile": text}, target="n", build_contexts={"base": base}))
    assert (child.read("f"), child.config.cmd) == ("f\n", ("c",))
    assert child.config.env[-2:] == ("made=1", "more=1")
    files = Built(lab, client.build({"Dockerfile": text}, build_contexts={"base": base}))
    assert files.names() == ["copied"]
    both = client.build({"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV arch=$TARGETARCH\nCOPY Dockerfile /\n"},
                        platforms=["linux/amd64", "linux/arm64"])  # fmt: skip
    arm = client.build(
        {"Dockerfile": "FROM base\n"}, platforms=["linux/arm64"], build_contexts={"base": both}
    )
    assert "arch=arm64" in Built(lab, arm).config.env


@row("CTX-10")
@root_only
def test_an_input_that_nobody_gave(lab: Lab, client: pybuild.Client, tmp_path: Path) -> None:
    with pytest.raises(PybuildError, match="invalid input other for n"):
        lab.build(lab.context(), "FROM n\n", build_contexts=(("n", "input:other"),))
    tree = client.build(
        {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, outputs=[f"type=local,dest={tmp_path}/o"]
    )
    with pytest.raises(PybuildError, match="the build for the named context n made no image"):
        client.build({"Dockerfile": "FROM n\n"}, build_contexts={"n": tree})


@row("CTX-10")
def test_a_layout_without_a_tag(tmp_path: Path) -> None:
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "size": 1,
        "digest": "sha256:" + "a" * 64,
    }
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry, entry]}))
    with pytest.raises(PybuildError, match=f'oci-layout reference "{tmp_path}" has no digest'):
        parse_named("n", f"oci-layout://{tmp_path}")


@row("CTX-10")
def test_bad_references() -> None:
    with pytest.raises(BadOption, match="invalid context specifier A:b:c for n"):
        converted("FROM n\n", FakeResolver(contexts={"n": ("image", "docker-image://A:b:c")}))
    with pytest.raises(BadOption, match="invalid git context /x"):
        converted("FROM n\n", FakeResolver(contexts={"n": ("git", "/x")}))


@row("CTX-11")
@root_only
def test_step_names(lab: Lab, tmp_path: Path) -> None:
    lab.quick("FROM busybox\nENV X=1\n", tags=("nam:1",))
    layout = tmp_path / "layout"
    lab.build(lab.context(), "FROM nam:1\n", outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),))
    other = lab.context({"x": "", ".dockerignore": "y\n"})
    lab.quick(
        "FROM scratch\nCOPY --from=one /bin/sh /1\nCOPY --from=two x /2\nCOPY --from=three /bin/sh /3\n",
        build_contexts=(
            ("one", "docker-image://nam:1"),
            ("two", str(other)),
            ("three", f"oci-layout://{layout}"),
        ),
    )
    seen = {event.name.partition("@")[0] for event in lab.watcher.events if getattr(event, "name", "")}
    assert {
        "[context one] load metadata for docker.io/library/nam:1",
        "[context one] docker.io/library/nam:1",
        "[context two] load .dockerignore",
        "[context two] load from client",
        "[context three] OCI load from client",
    } <= seen


@row("CTX-12")
def test_only_what_is_used() -> None:
    contexts = {"n": ("local", "local://n")}

    def wanted(text):
        found = converted(text, FakeResolver(contexts=contexts))
        return [op.attr("local.followpaths") for op in ops(found, "SourceOp") if op.identifier == "local://n"]

    assert wanted("FROM scratch\nCOPY --from=n b c/ /\nRUN --mount=from=n,source=d,target=/t x\n") == [
        '["b","c","d"]'
    ]
    assert wanted("FROM a AS u\nCOPY --from=n unused /\nFROM scratch\nCOPY --from=n b /\n") == ['["b"]']
    assert wanted("FROM n\nRUN x\n") == [""]
    assert names(converted("FROM n\n", FakeResolver(contexts=contexts)))[0] == "[context n] load from client"


@row("CTX-13")
@root_only
def test_unchanged_files_are_not_read_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "FROM scratch\nCOPY big /big\nCOPY small /small\n"
    context = lab.context({"big": "x" * 100_000, "small": "1", "Dockerfile": text})
    os.chown(context / "big", 5, 6)
    os.utime(context / "big", (1_000_000_000, 1_000_000_000))
    time.sleep(0.05)  # a file that has just changed is not trusted to stay
    built = Built(lab, lab.build(context))
    assert (built.stat("big").st_uid, built.stat("big").st_gid) == (0, 0)
    opened: list[str] = []
    real = ContextTree.open

    def noted(self: ContextTree, path: str) -> int:
        opened.append(path)
        return real(self, path)

    monkeypatch.setattr(ContextTree, "open", noted)
    (context / "small").write_text("22")
    again = Built(lab, lab.build(context))
    assert again.read("small") == "22"
    assert "small" in opened
    assert "big" not in opened
