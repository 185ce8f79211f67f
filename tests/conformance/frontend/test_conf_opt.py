"""Options of a build (OPT rows): flags of build, build arguments, and ``key=value`` as other clients say it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.build.options import with_options
from builder.build.request import BuildRequest
from builder.errors import PybuildError
from builder.frontend.syntax import CAPABILITIES
from builder.llb.ops import Ulimit
from runtime.spec import Limits
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import FakeResolver, converted, execs, history, ops
from tests.support.rows import row
from tests.support.scanners import attested, make_scanner

root_only = pytest.mark.root
REQUEST = BuildRequest(context=".")


def refused(command: Runner, tmp_path: Path, *words: str) -> str:
    """What build says of flags that it does not accept."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    return command.run("build", *words, tmp_path, status=None).err


@row("OPT-01")
def test_target() -> None:
    text = "FROM a AS One\nRUN 1\nFROM b AS two\nRUN 2\n"
    assert [op.meta.args[2] for op in execs(converted(text, target="oNE"))] == ["1"]
    assert [op.meta.args[2] for op in execs(converted(text))] == ["2"]


@row("OPT-02")
@root_only
def test_filename(lab: Lab) -> None:
    context = lab.context({"sub/Other": "FROM scratch\nCOPY a /other\n", "a": ""})
    assert Built(lab, lab.build(context, dockerfile=str(context / "sub/Other"))).names() == ["other"]


@row("OPT-03", "OPT-04")
def test_arguments_and_labels() -> None:
    found = converted(
        "FROM a\nARG v=1\nLABEL x=file y=file\nRUN r\n",
        build_args=(("v", "2"), ("unused", "3")),
        labels=(("x", "flag"), ("z", "")),
    )
    assert history(found)[-1] == "RUN |1 v=2 /bin/sh -c r # buildkit"
    assert found.unused_build_args == ("unused",)
    assert dict(found.config.labels) == {"x": "flag", "y": "file", "z": ""}


@row("OPT-05")
@root_only
def test_platforms(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETPLATFORM\nLABEL p=$TARGETPLATFORM\n")
    out = tmp_path / "out.tar"
    command.build(tmp_path, "--platform=linux/arm64,linux/arm/v7", f"--output=type=oci,dest={out}")
    import tarfile

    with tarfile.open(out) as tar:
        names = [name for name in tar.getnames() if name.startswith("blobs/sha256/")]
        blobs = [json.loads(tar.extractfile(name).read()) for name in names]  # type: ignore[union-attr]
    labels = [blob["config"]["Labels"]["p"] for blob in blobs if "rootfs" in blob]
    assert sorted(labels) == ["linux/arm/v7", "linux/arm64"]


@row("OPT-06")
def test_no_cache() -> None:
    text = "FROM a AS One\nRUN 1\nFROM b AS two\nCOPY --from=one p q\nRUN 2\n"

    def anew(wanted):
        return [v.name.split("] ")[1] for v in converted(text, no_cache=wanted).definition.vertices
                if v.meta.ignore_cache]  # fmt: skip

    assert anew(False) == []
    assert anew(True) == ["RUN 1", "COPY --from=one p q", "RUN 2"]
    assert anew(("ONE",)) == ["RUN 1"]
    assert anew(("one", "two")) == ["RUN 1", "COPY --from=one p q", "RUN 2"]


@row("OPT-07")
def test_contexts() -> None:
    from builder.llb.ops import SourceOp

    main = SourceOp(identifier="git://h/r.git", attrs=(("git.fullurl", "https://h/r.git"),))
    found = converted("FROM scratch\nCOPY p q\n", context=main)
    assert [op.identifier for op in ops(found, "SourceOp")] == ["git://h/r.git"]
    contexts = {"n::linux/amd64": ("local", "local://mine"), "n": ("local", "local://any")}
    found = converted("FROM scratch\nCOPY --from=n p q\n", FakeResolver(contexts=contexts))
    assert [op.identifier for op in ops(found, "SourceOp")] == ["local://mine"]


@row("OPT-08")
@root_only
def test_multi_platform(lab: Lab) -> None:
    context = lab.context({"f": "", "Dockerfile": "FROM scratch\nCOPY f /\n"})

    def made(value: str, *platforms: str) -> str:
        result = lab.build(context, build_args=(("BUILDKIT_MULTI_PLATFORM", value),), platforms=platforms)
        image = lab.store.images.resolve(str(result.digest)) or lab.store.images.resolve(str(result.image_id))
        assert image is not None
        return str(json.loads(lab.store.blobs.read(image.manifest.digest, 1 << 20))["mediaType"])

    assert made("1", "linux/amd64").endswith("index.v1+json")
    assert made("false", "linux/amd64").endswith("manifest.v1+json")
    with pytest.raises(PybuildError, match="invalid boolean value for multi-platform: maybe"):
        made("maybe")
    wanted = "conflicting config: returning multiple target platforms is not allowed"
    with pytest.raises(PybuildError, match=wanted):
        made("0", "linux/amd64", "linux/arm64")


@row("OPT-09")
def test_resolve_mode() -> None:
    for mode, attr in (("default", ""), ("pull", "pull"), ("local", "local")):
        resolver = FakeResolver()
        found = converted("FROM a\nRUN x\n", resolver, resolve_mode=mode)
        assert resolver.asked[0][2] == mode
        assert ops(found, "SourceOp")[0].attr("image.resolvemode") == attr
    with pytest.raises(PybuildError, match="invalid image-resolve-mode: never"):
        converted("FROM a\n", resolve_mode="never")


@row("OPT-10")
@root_only
def test_hosts(lab: Lab, command: Runner, tmp_path: Path) -> None:
    built = lab.quick(
        "FROM busybox\nRUN cat /etc/hosts > /seen\n", extra_hosts=(("Some.Host", "10.1.2.3"), ("six", "::1"))
    )
    lines = [line.split() for line in built.read("seen").splitlines()]
    assert ["10.1.2.3", "some.host"] in lines
    assert ["::1", "six"] in lines
    assert "invalid key-value pair nothing" in refused(command, tmp_path, "--add-host=nothing")
    assert "failed to parse IP 1.2.3" in refused(command, tmp_path, "--add-host=a=1.2.3")


@row("OPT-11")
@root_only
def test_network_mode(lab: Lab, command: Runner, tmp_path: Path) -> None:
    for mode in ("none", "host", "sandbox"):
        assert execs(converted("FROM a\nRUN x\n", network_mode=mode))[0].network == mode
    assert lab.quick("FROM busybox\nRUN ls /sys/class/net > /n\n", network="none").read("n").split() == ["lo"]
    assert "invalid netmode foo" in refused(command, tmp_path, "--network=foo")
    with pytest.raises(PybuildError, match="invalid netmode foo"):
        lab.quick("FROM scratch\n", network="foo")


@row("OPT-12", "OPT-13")
@root_only
def test_sizes_and_limits(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN df -k /dev/shm | tail -1 > /shm || df -k /dev/shm > /shm; ulimit -n > /soft; ulimit -Hn > /hard\n",
        shm_size_bytes=8 << 20,
        ulimits=(Ulimit(name="nofile", soft=100, hard=200),),
    )
    assert "8192" in built.read("shm")
    assert (built.read("soft"), built.read("hard")) == ("100\n", "200\n")
    (op,) = execs(
        converted("FROM a\nRUN x\n", shm_size_bytes=5, ulimits=(Ulimit(name="core", soft=1, hard=2),))
    )
    assert [mount.size_bytes for mount in op.mounts if mount.dest == "/dev/shm"] == [5]
    assert op.meta.ulimits == (Ulimit(name="core", soft=1, hard=2),)


@row("OPT-14")
@root_only
def test_hostname_and_cgroup(lab: Lab) -> None:
    assert lab.quick("FROM busybox\nRUN hostname > /h\n", hostname="my-host").read("h") == "my-host\n"
    (op,) = execs(converted("FROM a\nRUN x\n", hostname="h", cgroup_parent="/c"))
    assert (op.meta.hostname, op.meta.cgroup_parent) == ("h", "/c")


@row("OPT-15")
@root_only
def test_resources(command: Runner, tmp_path: Path) -> None:
    from builder.llb.definition import LinuxResources

    text = "FROM a\nRUN x\n"
    limited = LinuxResources(memory_bytes=1 << 30, memory_swap_bytes=-1, cpu_shares=5)
    one, other = converted(text), converted(text, resources=limited)
    assert other.definition.vertices[-1].meta.resources == limited
    assert one.definition.vertices[-1].digest == other.definition.vertices[-1].digest, (
        "no part of the cache key"
    )
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    command.build(tmp_path, "--memory=64m", "--memory-swap=-1", "--cpu-shares=10", "--cpuset-cpus=0")
    assert "invalid memory" in refused(command, tmp_path, "--memory=lots")
    assert "cpu-shares" in refused(command, tmp_path, "--cpu-shares=many")


@row("OPT-15")
def test_resources_as_options() -> None:
    options = {"memory": "1073741824", "memswap": "-1", "cpushares": "5", "cpuperiod": "100000", "cpuquota": "50000",
               "cpusetcpus": "0,2-3", "cpusetmems": "0"}  # fmt: skip
    limits = with_options(REQUEST, options.items()).request.limits
    assert limits == Limits(
        memory_bytes=1 << 30,
        memory_swap_bytes=-1,
        cpu_shares=5,
        cpu_period_us=100_000,
        cpu_quota_us=50_000,
        cpuset_cpus="0,2-3",
        cpuset_mems="0",
    )
    for key in options:
        with pytest.raises(PybuildError) as caught:
            with_options(REQUEST, [(key, "odd")])
        assert caught.value.message == f"invalid {key} value: odd"


@row("OPT-16")
@root_only
def test_attestations_that_are_turned_off(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    off = ("--provenance=false", "--sbom=false"), ("--attest=type=provenance,disabled=true",)
    for words in off:
        assert "attestation" not in command.build(tmp_path, "--no-cache", *words).err
    assert "exporting attestation manifest" in command.build(tmp_path, "--provenance").err


@row("OPT-16")
@root_only
def test_attestations(lab: Lab, tmp_path: Path) -> None:
    """CSV attributes; the last request of a type counts."""
    context = lab.context({"Dockerfile": "FROM scratch\nLABEL a=b\nCOPY Dockerfile /\n"})
    scanner = make_scanner(lab, "opt-16")
    found = attested(lab, context, tmp_path / "o", scanner, "type=provenance,mode=min,version=v0.2")
    kinds = [item["predicateType"] for item in found.statements()]
    assert kinds == ["https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"]
    off = attested(lab, context, tmp_path / "p", "type=provenance", "type=provenance,disabled=true")
    assert "layers" in off.root


@row("OPT-17")
@root_only
def test_cache_imports(command: Runner, tmp_path: Path) -> None:
    """As BuildKit's frontend is told them: a JSON list, and the older list of references."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY f /f\n")
    (tmp_path / "f").write_text(str(tmp_path))
    command.build(tmp_path, f"--export-cache=type=local,dest={tmp_path / 'cache'}")
    other = Runner(tmp_path / "other")
    imports = f'[{{"Type":"local","Attrs":{{"src":"{tmp_path / "cache"}"}}}}]'
    words = ("--frontend=dockerfile.v0", f"--local=context={tmp_path}", f"--local=dockerfile={tmp_path}")
    shown = other.run("build", "--progress=plain", *words, f"--opt=cache-imports={imports}").err
    assert f"importing cache manifest from local:{tmp_path / 'cache'}" in shown
    assert "[1/1] COPY f /f\n" in shown
    assert "CACHED" in shown
    (tmp_path / "f").write_text("changed")
    shown = other.run("build", "--progress=plain", *words, "--opt=cache-from=localhost:1/a,localhost:1/b").err
    assert shown.count("ERROR: GET http://localhost:1/v2/") == 2, "two imports that fail are no failure"


@row("OPT-18")
@root_only
def test_where_the_inputs_are(lab: Lab, repository: tuple[str, str]) -> None:
    url, _ = repository
    here = lab.context(
        {"Dockerfile": "FROM scratch\nCOPY b /mine\n", "other/b": "", "other/D": "FROM scratch\nCOPY . /\n"}
    )
    locals_ = {"context": str(here), "dockerfile": str(here), "else": str(here / "other")}

    def built(*options: tuple[str, str]) -> Built:
        request = with_options(BuildRequest(context="."), options, locals_=locals_).request
        return Built(lab, lab.run(replace(request, network="none")))

    remote = ("context", f"{url}#v1")
    assert built(remote).names() == [".dockerignore", "Dockerfile", "a", "sub"]
    assert built(remote, ("contextsubdir", "sub"), ("dockerfilekey", "dockerfile")).names() == ["mine"]
    assert built(remote, ("contextsubdir", "/../sub/.")).names() == ["Dockerfile", "b"], (
        "the Dockerfile is that of the whole"
    )
    for bad in ("none", "a", "../.."):
        if bad == "../..":
            assert built(remote, ("contextsubdir", bad)).names()[-1] == "sub", "nothing is above the context"
            continue
        with pytest.raises(PybuildError, match="no such directory in the context"):
            built(remote, ("contextsubdir", bad))
    assert built(("contextkey", "else"), ("dockerfilekey", "else"), ("filename", "D")).names() == ["D", "b"]
    same = built(("contextkey", "else"), ("local-sessionid:else", "s"), ("sharedkey:localdir:else", "k"))
    assert same.names() == ["mine"]


@row("OPT-18")
@root_only
def test_the_config_of_an_input(lab: Lab) -> None:
    made = lab.build(lab.context(), "FROM busybox\nENV own=1\nRUN echo f > /f\n")
    given = {"architecture": "amd64", "os": "linux", "config": {"Env": ["given=1"], "Cmd": ["c"]}}
    metadata = {"containerimage.config": base64.b64encode(json.dumps(given).encode()).decode()}
    options = [("context:base", "input:k"), ("input-metadata:k", json.dumps(metadata))]
    request = with_options(
        BuildRequest(context=str(lab.context()), dockerfile_data=b"FROM base\nENV more=1\n"),
        options,
        inputs={"k": str(made.digest)},
    ).request
    built = Built(lab, lab.run(replace(request, network="none")))
    assert (built.read("f"), built.config.cmd) == ("f\n", ("c",))
    assert [item.partition("=")[0] for item in built.config.env] == ["given", "PATH", "more"]


@row("OPT-19")
@root_only
def test_subrequests(command: Runner, tmp_path: Path) -> None:
    assert "unsupported subrequest nonsense" in refused(command, tmp_path, "--call=nonsense")
    (tmp_path / "Dockerfile").write_text("FROM scratch AS one\n")
    assert "one (default)" in command.run("build", "--call=frontend.targets", tmp_path).out


@row("OPT-20")
def test_frontend_by_argument() -> None:
    fine = [
        ("source", "docker/dockerfile:1"),
        ("cmdline", "docker/dockerfile:1 x"),
        ("frontend.caps", CAPABILITIES[0]),
    ]
    assert with_options(REQUEST, fine).request == REQUEST
    with pytest.raises(PybuildError, match=r"frontend example\.com/other is not supported"):
        with_options(REQUEST, [("source", "example.com/other")])
    converted("FROM a\n", build_args=(("BUILDKIT_SYNTAX", "docker/dockerfile:1"),))
    with pytest.raises(PybuildError, match=r"frontend example\.com/other is not supported"):
        converted("FROM a\n", build_args=(("BUILDKIT_SYNTAX", "example.com/other"),))


@row("OPT-21")
@root_only
def test_where_the_sources_come_from_changes_nothing(lab: Lab, repository: tuple[str, str]) -> None:
    url, commit = repository
    by_tag, by_commit = lab.build(f"{url}#v1"), lab.build(f"{url}#{commit}")
    assert by_tag.image_id == by_commit.image_id
