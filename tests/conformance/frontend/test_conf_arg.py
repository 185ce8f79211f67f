"""Arguments, the environment, labels, the maintainer: rows ARG, ENV, LBL, MNT-00."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.build.options import with_options
from builder.build.request import BuildRequest
from builder.errors import PybuildError
from builder.oci.platform import Platform
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import converted, execs, history, ops, rules
from tests.support.rows import row


def envs(text: str, **options: Any) -> list[tuple[str, ...]]:
    """The environment of every RUN, without PATH."""
    return [op.meta.env[1:] for op in execs(converted(text, **options))]


def images(text: str, **options: Any) -> list[str]:
    found = ops(converted(text, **options), "SourceOp")
    return [op.identifier.removeprefix("docker-image://docker.io/library/").partition("@")[0] for op in found]


@row("ARG-01")
def test_global_scope() -> None:
    text = "ARG v=1\nARG w=$v$BUILDOS\nFROM a:$w\nRUN $v\nENV x=$v\nRUN r\n"
    assert images(text) == ["a:1linux"]
    assert envs(text) == [(), ("x=",)]


@row("ARG-02")
def test_global_values_are_declared_again() -> None:
    assert envs("ARG v=1\nFROM a\nARG v\nRUN r\n") == [("v=1",)]
    assert envs("ARG v=1\nFROM a\nARG v=2\nRUN r\n") == [("v=2",)]
    assert envs("ARG v\nFROM a\nARG v\nRUN r\n") == [()]
    assert envs("ARG v=1\nFROM a AS b\nARG v\nFROM a\nCOPY --from=b x y\nRUN r\n") == [()]


@row("ARG-03")
def test_which_value_counts() -> None:
    text = "ARG v=global\nFROM a\nARG v\nRUN r\nARG v=default\nRUN r\n"
    assert envs(text) == [("v=global",), ("v=default",)]
    assert envs(text, build_args=(("v", "given"),)) == [("v=given",)] * 2
    found = converted("FROM a\nRUN r\n", build_args=(("v", "given"),))
    assert execs(found)[0].meta.env[1:] == ()
    assert found.unused_build_args == ("v",)


@row("ARG-04")
def test_an_argument_counts_from_its_line_on() -> None:
    text = "FROM a\nENV e=1\nRUN r\nARG v=$e w=x$v z\nRUN r\n"
    first, second = envs(text)
    assert first == ("e=1",)
    assert set(second) == {"e=1", "v=1", "w=x1"}


@row("ARG-05")
def test_arguments_are_environment_but_not_config() -> None:
    found = converted("FROM a\nARG v=1\nRUN r\nLABEL l=$v\n")
    assert execs(found)[0].meta.env[1:] == ("v=1",)
    assert found.config.env == ("PATH=/usr/bin:/bin",)
    assert dict(found.config.labels) == {"l": "1"}
    assert history(found)[1] == "RUN |1 v=1 /bin/sh -c r # buildkit"


@row("ARG-05")
@pytest.mark.root
def test_arguments_are_part_of_the_key(lab: Lab) -> None:
    text = "FROM busybox\nRUN echo before > /b\nARG v\nRUN echo $v > /v\n"
    assert lab.quick(text, build_args=(("v", "1"),)).read("v") == "1\n"
    assert lab.quick(text, build_args=(("v", "2"),)).read("v") == "2\n"
    assert [name.partition("] ")[2] for name in lab.steps_run()] == ["RUN echo 2 > /v"]
    lab.quick(text, build_args=(("v", "1"),))
    assert lab.steps_run() == []


@row("ARG-06")
def test_env_wins_over_arg() -> None:
    text = "FROM a\nENV v=env\nARG v\nRUN r\nARG v=arg\nRUN r\nENV v=again\nRUN r\n"
    assert envs(text) == [("v=env",), ("v=arg",), ("v=again",)]
    assert envs(text, build_args=(("v", "given"),)) == [("v=given",), ("v=given",), ("v=again",)]
    assert converted(text).config.env[1:] == ("v=again",)
    child = "FROM a AS b\nENV v=env\nARG v=arg w=2\nFROM b\nRUN r $v\nWORKDIR /$v\n"
    assert envs(child) == [("v=env", "w=2")], "a stage begins with the ENV of its base"
    assert history(converted(child))[-2:] == ["RUN |2 v=env w=2 /bin/sh -c r $v # buildkit", "WORKDIR /env"]


@row("ARG-07")
@pytest.mark.root
def test_arguments_from_the_caller_s_environment(lab: Lab, command: Runner) -> None:
    names = "abcd"
    text = "FROM scratch\n" + "".join(f"ARG {n}=default\nLABEL {n}=$" + f"{n}\n" for n in names)
    root = lab.context({"Dockerfile": text})
    command.run(
        "build",
        "-t",
        "conf-arg",
        "--build-arg",
        "a",
        "--build-arg",
        "b",
        "--build-arg",
        "c=",
        root,
        env={"a": "own"},
    )
    (found,) = json.loads(command.run("inspect", "conf-arg").out)
    assert found["Config"]["Labels"] == {"a": "own", "b": "default", "c": "", "d": "default"}


@row("ARG-08")
def test_arguments_are_inherited() -> None:
    text = "FROM a AS b\nARG v=1 w\nFROM b\nRUN r\nARG w=2\nRUN r\n"
    assert envs(text) == [("v=1",), ("v=1", "w=2")]


@row("ARG-09")
def test_platform_arguments() -> None:
    arm = Platform("linux", "arm", "v7")
    names = [
        f"{side}{part}"
        for side in ("BUILD", "TARGET")
        for part in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
    ]
    text = f"FROM --platform=$BUILDPLATFORM a AS last\nRUN r\nARG {' '.join(names)} TARGETSTAGE\nRUN r\n"
    first, second = envs(text, platform=arm)
    assert first == ()
    assert dict(item.split("=", 1) for item in second) == {
        "BUILDPLATFORM": "linux/amd64", "BUILDOS": "linux", "BUILDOSVERSION": "", "BUILDARCH": "amd64",
        "BUILDVARIANT": "", "TARGETPLATFORM": "linux/arm/v7", "TARGETOS": "linux", "TARGETOSVERSION": "",
        "TARGETARCH": "arm", "TARGETVARIANT": "v7", "TARGETSTAGE": "last",
    }  # fmt: skip
    text = "FROM a AS first\nARG TARGETSTAGE TARGETARCH\nRUN r\nFROM first\n"
    assert envs(text) == [("TARGETSTAGE=default", "TARGETARCH=amd64")]
    assert envs(text, target="first")[0][0] == "TARGETSTAGE=first"
    assert envs(text, build_args=(("TARGETARCH", "mine"),))[0][1] == "TARGETARCH=mine"


@row("ARG-10")
@pytest.mark.root
def test_proxy_arguments(lab: Lab) -> None:
    text = "FROM busybox\nRUN env | grep -i _proxy= | sort > /p\n"
    given = (
        ("HTTP_PROXY", "http://1"),
        ("no_proxy", "x"),
        ("ALL_PROXY", "a"),
        ("ftp_proxy", "f"),
        ("HTTPS_PROXY", "s"),
    )
    built = lab.quick(text, build_args=given)
    both = {f"{n}={v}" for name, v in given for n in (name.lower(), name.upper())}
    assert set(built.read("p").split()) == both
    assert "http://1" not in json.dumps(built.json)
    assert lab.quick(text, build_args=(("HTTP_PROXY", "other"),)).id == built.id
    assert lab.steps_run() == []
    declared = "FROM busybox\nARG HTTP_PROXY\nRUN echo $HTTP_PROXY > /p\n"
    assert lab.quick(declared, build_args=(("HTTP_PROXY", "one"),)).read("p") == "one\n"
    second = lab.quick(declared, build_args=(("HTTP_PROXY", "two"),))
    assert second.read("p") == "two\n"
    assert "HTTP_PROXY=two" in "".join(second.history())


@row("ARG-11")
def test_arguments_that_are_no_environment() -> None:
    text = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=a,b v=1\nRUN r\n"
    assert envs(text) == [("v=1",)]
    assert envs(text, build_args=(("BUILDKIT_SBOM_SCAN_STAGE", "false"),)) == [("v=1",)]


@row("ARG-12")
def test_arguments_for_the_frontend() -> None:
    def build(text: str, name: str, value: str) -> Any:
        found = converted(text, build_args=((name, value),))
        assert found.unused_build_args == ()
        return found

    foreign = "# syntax=example.com/other\nFROM a\n"
    build(foreign, "BUILDKIT_SYNTAX", "dockerfile.v0")
    build(foreign, "BUILDKIT_SYNTAX", "docker/dockerfile:1")
    with pytest.raises(PybuildError, match=r"frontend example\.com/other is not supported"):
        build("FROM a\n", "BUILDKIT_SYNTAX", "example.com/other")
    text = "# check=error=true\nFROM a AS B\n"
    assert rules(build(text, "BUILDKIT_DOCKERFILE_CHECK", "skip=JSONArgsRecommended")) == [
        ("StageNameCasing", 2)
    ]
    found = build("FROM a\nRUN --mount=type=cache,target=/c r\n", "BUILDKIT_CACHE_MOUNT_NS", "ns")
    assert execs(found)[0].mounts[1].id == "ns//c"
    found = build("FROM a\nRUN r\n", "BUILDKIT_SANDBOX_HOSTNAME", "box")
    assert execs(found)[0].meta.hostname == "box"
    found = converted("FROM a\nRUN r\n", hostname="h", build_args=(("BUILDKIT_SANDBOX_HOSTNAME", "box"),))
    assert execs(found)[0].meta.hostname == "box", "the argument wins over the option"
    assert build("FROM a\n", "SOURCE_DATE_EPOCH", "1234").epoch == 1234
    for name in ("BUILDKIT_INLINE_CACHE", "BUILDKIT_BUILD_NAME", "BUILDKIT_CONTEXT_KEEP_GIT_DIR"):
        build("FROM a\n", name, "1")


@row("ARG-12")
@pytest.mark.root
def test_an_index_of_one_platform(lab: Lab) -> None:
    root = lab.context({"Dockerfile": "FROM busybox\n"})
    kinds = {}
    for value in ("0", "1"):
        result = lab.build(root, build_args=(("BUILDKIT_MULTI_PLATFORM", value),))
        kinds[value] = result.metadata["containerimage.descriptor"]["mediaType"].rpartition(".image.")[2]
    assert kinds == {"0": "manifest.v1+json", "1": "index.v1+json"}
    with pytest.raises(PybuildError, match="invalid boolean value for multi-platform: maybe"):
        lab.build(root, build_args=(("BUILDKIT_MULTI_PLATFORM", "maybe"),))


@row("ARG-12")
@pytest.mark.root
def test_a_git_context_keeps_its_directory(lab: Lab, repository: tuple[str, str]) -> None:
    url, _ = repository
    for value, kept in (("0", False), ("1", True), ("TRUE", True)):
        result = lab.build(f"{url}#v1", build_args=(("BUILDKIT_CONTEXT_KEEP_GIT_DIR", value),))
        from tests.support.buildlab import Built

        assert Built(lab, result).has(".git") is kept


@row("ARG-12")
@pytest.mark.root
def test_an_inline_cache(lab: Lab) -> None:
    from tests.support.buildlab import Built
    from tests.support.machines import inline_records

    root = lab.context({"Dockerfile": "FROM busybox\nRUN echo a > /a\n"})
    built = Built(lab, lab.build(root, build_args=(("BUILDKIT_INLINE_CACHE", "1"),)))
    assert [item["layers"][0]["layer"] for item in inline_records(built.json) if "layers" in item] == [1]
    plain = Built(lab, lab.build(root, build_args=(("BUILDKIT_INLINE_CACHE", "0"),)))
    assert "moby.buildkit.cache.v0" not in plain.json
    with pytest.raises(PybuildError, match="invalid boolean value for BUILDKIT_INLINE_CACHE"):
        lab.build(root, build_args=(("BUILDKIT_INLINE_CACHE", "perhaps"),))


@row("ARG-13")
def test_removed_switches() -> None:
    for value in ("1", "t", "TRUE"):
        with pytest.raises(PybuildError, match='support for "BUILDKIT_DISABLE_FILEOP" was removed'):
            converted("FROM a\n", build_args=(("BUILDKIT_DISABLE_FILEOP", value),))
    assert converted("FROM a\n", build_args=(("BUILDKIT_DISABLE_FILEOP", "0"),)).bases
    request = BuildRequest(context=".")
    with pytest.raises(PybuildError, match='support for "override-copy-image" was removed') as caught:
        with_options(request, [("override-copy-image", "docker.io/x/copy")])
    assert caught.value.hint
    assert with_options(request, [("override-copy-image", "")]).request == request


@row("ENV-01")
def test_env_replaces_in_place() -> None:
    found = converted("FROM a\nENV a=1 b=2\nENV c=3 a=4 A=5\n")
    assert found.config.env == ("PATH=/usr/bin:/bin", "a=4", "b=2", "c=3", "A=5")
    assert converted("FROM a\nENV a=1\nENV PATH=/x:$PATH\n").config.env == ("PATH=/x:/usr/bin:/bin", "a=1")


@row("ENV-02")
@pytest.mark.root
def test_env_persists(lab: Lab) -> None:
    lab.quick("FROM busybox\nENV X= Y=1\n", tags=("conf-env:1",))
    built = lab.quick('FROM conf-env:1\nRUN echo "${X-unset}:$Y" > /e\n')
    assert built.read("e") == ":1\n"
    assert built.json["config"]["Env"][-2:] == ["X=", "Y=1"]


@row("LBL-01")
def test_labels() -> None:
    text = "FROM a\nLABEL a=1 b=2\nLABEL a=3\n"
    assert dict(converted(text).config.labels) == {"a": "3", "b": "2"}
    assert dict(converted(text, labels=(("b", "x"), ("c", "y"))).config.labels) == {
        "a": "3",
        "b": "x",
        "c": "y",
    }


@row("MNT-00")
def test_maintainer() -> None:
    found = converted("FROM a\nMAINTAINER Some Body <s@example.com>\n")
    assert found.config.author == "Some Body <s@example.com>"
    assert found.config.to_json()["author"] == "Some Body <s@example.com>"
    assert rules(found) == [("MaintainerDeprecated", 2)]
