"""FROM and stages: rows FRM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.errors import PybuildError
from builder.frontend.errors import DockerfileError
from builder.oci.config import DEFAULT_PATH, HealthCheck, History
from builder.oci.platform import Platform
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import (
    AMD64,
    ARM64,
    FakeResolver,
    base_image,
    converted,
    execs,
    names,
    ops,
    rules,
)
from tests.support.rows import row

LIBRARY = "docker.io/library/"


def bases(conversion: Any) -> list[str]:
    """The images that a definition takes, by familiar name."""
    found = [op.identifier.partition("@")[0] for op in ops(conversion, "SourceOp")]
    return [name.removeprefix(f"docker-image://{LIBRARY}") for name in found]


def problem(text: str, resolver: FakeResolver | None = None, **options: Any) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        converted(text, resolver, **options)
    return caught.value


def message(text: str, **options: Any) -> str:
    return problem(text, **options).message.removeprefix("dockerfile parse error on line 1: ")


@row("FRM-01")
def test_from_sees_global_arguments_only() -> None:
    text = "ARG v=1 p=linux/arm64\nFROM --platform=$p a:$v AS x\nARG v=2\nFROM b:${v}\nCOPY --from=x c d\n"
    found = converted(text)
    assert sorted(bases(found)) == ["a:1", "b:1"]
    platforms = {vertex.platform for vertex in found.definition.vertices}
    assert {AMD64, ARM64} <= platforms
    assert message("FROM a\nARG v=1\nENV v=2\nFROM $v\n") == "base name ($v) should not be blank"


@row("FRM-02")
def test_stage_names() -> None:
    found = converted("FROM a AS Build-1_x.y\nRUN one\nFROM build-1_X.y\nCOPY --from=BUILD-1_x.y a b\n")
    assert bases(found) == ["a:latest"]
    assert [op.meta.args[2] for op in execs(found)] == ["one"]
    for name in ("1a", "a$b", "-a", "a/b", "é"):
        expected = (
            f'invalid name for build stage: "{name}", name can\'t start with a number or contain symbols'
        )
        assert message(f"FROM a AS {name}\n") == expected


@row("FRM-03")
def test_what_a_base_name_means() -> None:
    text = "FROM one AS a\nRUN own\nFROM a AS b\nRUN b\n"
    contexts = {"a": ("image", f"docker-image://{LIBRARY}ctx:1")}
    found = converted(text, FakeResolver(contexts=contexts))
    assert bases(found) == ["ctx:1"], "(1) a named context replaces the stage of its name"
    assert [op.meta.args[2] for op in execs(found)] == ["b"]
    assert bases(converted(text)) == ["one:latest"], "(2) an earlier stage"
    found = converted("FROM busybox AS scratch\nFROM scratch\n")
    assert bases(found) == ["busybox:latest"], "(2) comes before (3)"
    assert converted("FROM scratch\n").definition.head is None, "(3)"
    contexts = {"alpine": ("image", f"docker-image://{LIBRARY}ctx:1")}
    for name in ("alpine", "alpine:latest", f"{LIBRARY}alpine"):
        found = converted(f"FROM {name}\n", FakeResolver(contexts=contexts))
        assert bases(found) == ["ctx:1"], "(4) a named context of the image's name"
    found = converted("FROM alpine:3\n", FakeResolver(contexts=contexts))
    assert bases(found) == ["alpine:3"], "(5) an image"
    (source,) = ops(converted("FROM example.com/a/b\n"), "SourceOp")
    assert source.identifier.startswith("docker-image://example.com/a/b:latest@sha256:")
    assert bases(converted("FROM late\nFROM x AS late\n", target="late")) == ["x:latest"]
    assert bases(converted("FROM late AS y\nFROM x AS late\nFROM y\n")) == ["late:latest"], (
        "not a later stage"
    )


@row("FRM-04")
def test_duplicate_stage_names() -> None:
    text = "FROM a AS x\nRUN 1\nFROM x AS x\nRUN 2\nFROM x\nFROM b AS x\nRUN 3\n"
    found = converted(text, target="x")
    assert [op.meta.args[2] for op in execs(found)] == ["3"]
    found = converted(
        text.replace("FROM b", "COPY --from=x c d\nFROM b").replace("FROM x\n", "FROM x AS mid\n"),
        target="mid",
    )
    assert [op.meta.args[2] for op in execs(found)] == ["1", "2"]
    assert [name for name, _ in rules(converted(text))] == ["DuplicateStageName"] * 2


@row("FRM-05")
def test_stage_labels_in_names() -> None:
    assert names(converted("FROM a AS x\nRUN r\n"))[-1] == "[2/2] RUN r"
    found = converted("FROM a AS x\nFROM a\nRUN r\nFROM x\nCOPY --from=1 a b\n")
    assert {"[stage-1 2/2] RUN r", "[stage-2 1/1] COPY --from=1 a b"} <= set(names(found))


@row("FRM-06")
def test_only_what_the_target_needs_is_asked_for() -> None:
    text = (
        "FROM one AS base\nFROM two AS copied\nFROM three AS mounted\nFROM four AS unused\n"
        "FROM base\nCOPY --from=copied a b\nRUN --mount=from=mounted,target=/m c\n"
    )
    resolver = FakeResolver(missing=(f"{LIBRARY}four:latest",))
    assert sorted(bases(converted(text, resolver))) == ["one:latest", "three:latest", "two:latest"]
    assert sorted(ref for ref, _, _ in resolver.asked) == [
        f"{LIBRARY}{name}:latest" for name in ("one", "three", "two")
    ]
    assert sorted(converted(text, all_stages=True).stages) == [
        "base",
        "copied",
        "mounted",
        "stage-4",
        "unused",
    ]


@row("FRM-06")
@pytest.mark.root
def test_a_check_is_offline(lab: Lab, command: Runner) -> None:
    """Better than asked: nothing is contacted, and every stage is still checked."""
    root = lab.context(
        {"Dockerfile": "FROM nowhere.invalid/image AS Big\nRUN a\nFROM busybox\nWORKDIR rel\n"}
    )
    found = command.run("build", "--call=check,format=json", root, status=1)
    assert [item["ruleName"] for item in json.loads(found.out)["warnings"]] == [
        "StageNameCasing",
        "WorkdirRelativePath",
    ]
    lab.write(root, {"Dockerfile": "FROM nowhere.invalid/image AS big\nRUN a\nFROM busybox\nWORKDIR /abs\n"})
    command.run("build", "--check", root, status=0)


@row("FRM-07")
def test_targets() -> None:
    text = "FROM a AS build\nFROM b AS test\nFROM c\n"
    assert converted(text).target == "stage-2"
    assert converted(text, target="BUILD").target == "build"
    assert message(text, target="tset") == 'target stage "tset" could not be found (did you mean test?)'
    for name in ("0", "2", "stage-2", "nothing-like-it"):
        assert message(text, target=name) == f'target stage "{name}" could not be found'


@row("FRM-08")
def test_what_cannot_be_a_base() -> None:
    assert message("FROM ${v}\n") == "base name (${v}) should not be blank"
    assert message("FROM a:b:c\n").startswith('failed to parse stage name "a:b:c": ')
    assert message("FROM --platform=$p a\n") == "empty platform value from expression $p"
    assert message("FROM --platform=a/b/c/d a\n").startswith("failed to parse platform a/b/c/d")
    for unused in ("FROM ${v} AS b", "FROM --platform=$p x AS b", "FROM --platform=a/b/c/d x", "FROM x${"):
        assert problem(f"FROM a\n{unused}\nFROM c\n").spans[0].start == 2, "also where nobody needs it"
    found = problem(
        "FROM x AS a\nCOPY --from=c y z\nFROM a AS b\nFROM x AS c\nRUN --mount=from=b,target=/b d\n"
    )
    assert found.message == "circular dependency detected on stage: a"
    assert [span.start for span in found.spans] == [2, 5, 3], "every line by which one needs the next"
    found = problem("FROM x\nFROM x AS a\nCOPY y z\nCOPY --from=A y z\nFROM a\n")
    assert found.message == "circular dependency detected on stage: a"
    assert [span.start for span in found.spans] == [4]
    typed = message("ARG MY_OS=linux MY_ARCH\nFROM --platform=$MY_OS/${MYARCH} a\n")
    assert typed.startswith("failed to parse platform $MY_OS/${MYARCH}: ")
    assert typed.endswith(" (did you mean MY_ARCH?)")
    expected = "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)"
    assert message("FROM --platform=$BULIDPLATFORM a\n") == expected
    expected = "base name (${IMGE}) should not be blank (did you mean IMAGE?)"
    assert message("ARG IMAGE=a\nFROM ${IMGE}\n") == expected


@row("FRM-09")
def test_bases_are_pinned_and_asked_for_together() -> None:
    resolver = FakeResolver()
    found = converted("FROM a AS x\nFROM b:2\nCOPY --from=x c d\nCOPY --from=e c d\n", resolver)
    refs = [f"{LIBRARY}{name}" for name in ("a:latest", "b:2", "e:latest")]
    assert sorted(ref for ref, _ in resolver.prefetched) == refs
    for op in ops(found, "SourceOp"):
        if op.identifier.startswith("docker-image"):
            assert "@sha256:" in op.identifier
    digests = {image.ref: str(image.digest) for image in found.bases}
    assert sorted(digests) == refs
    assert f"[stage-1 1/3] FROM {refs[1]}@{digests[refs[1]]}" in names(found)


@row("FRM-09")
@pytest.mark.root
def test_the_step_that_resolves_a_base(lab: Lab) -> None:
    lab.quick("FROM busybox\nRUN true\n")
    order = lab.watcher.ran() + lab.watcher.cached()
    assert f"[internal] load metadata for {LIBRARY}busybox:latest" in order


@row("FRM-10")
def test_an_image_that_cannot_be_had() -> None:
    missing = (f"{LIBRARY}buid:latest", f"{LIBRARY}ubunut:latest")
    for name, hint in (("buid", "build"), ("ubunut", "ubuntu")):
        with pytest.raises(PybuildError) as caught:
            converted(f"FROM a AS build\nFROM {name}\n", FakeResolver(missing=missing))
        assert name in caught.value.message
        assert caught.value.hint == f"did you mean {hint}?"
        assert f"failed to resolve source metadata for {LIBRARY}{name}:latest" in caught.value.context
        assert caught.value.first_line == 2


@row("FRM-11")
def test_what_is_inherited() -> None:
    base = base_image(
        env=("PATH=/p", "a=b"),
        entrypoint=("e",),
        cmd=("c",),
        workdir="/w",
        user="u",
        exposed_ports=("1/tcp",),
        volumes=("/v",),
        labels=(("l", "m"),),
        shell=("s", "-x"),
        stop_signal="SIGINT",
        healthcheck=HealthCheck(test=("NONE",)),
        on_build=("ENV trigger=1",),
        created="2001-01-01T00:00:00Z",
    )
    found = converted("FROM a\nRUN r\n", FakeResolver({f"{LIBRARY}a:latest": base}))
    config = found.config
    for field in ("entrypoint", "cmd", "workdir", "user", "exposed_ports", "volumes", "labels", "shell"):
        assert getattr(config, field) == getattr(base, field), field
    assert (config.stop_signal, config.healthcheck) == (base.stop_signal, base.healthcheck)
    assert config.env == ("PATH=/p", "a=b", "trigger=1")
    assert config.on_build == ()
    assert config.created is None
    assert config.history[0] == base.history[0]
    (op,) = execs(found)
    assert (op.meta.args, op.meta.cwd, op.meta.user) == (("s", "-x", "r"), "/w", "u")
    odd = FakeResolver({f"{LIBRARY}a:latest": base_image(workdir="x/../w/")})
    found = converted("FROM a\nRUN r\n", odd)
    assert (found.config.workdir, execs(found)[0].meta.cwd) == ("/w", "/w")


@row("FRM-12")
def test_path_is_always_there() -> None:
    bare = FakeResolver({f"{LIBRARY}a:latest": base_image(env=("a=b",))})
    assert converted("FROM a\n", bare).config.env == ("a=b", f"PATH={DEFAULT_PATH}")
    assert DEFAULT_PATH == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert converted("FROM a\n").config.env == ("PATH=/usr/bin:/bin",)
    scratch = converted("FROM scratch\n").config
    assert (scratch.env, scratch.workdir) == ((f"PATH={DEFAULT_PATH}",), "/")
    windows = Platform("windows", "amd64")
    resolver = FakeResolver({f"{LIBRARY}a:latest": base_image(platform=windows, env=())})
    assert converted("FROM a\n", resolver, platform=windows).config.env == ()


@row("FRM-13")
def test_an_image_without_layers() -> None:
    empty = base_image(diff_ids=(), history=(History(created_by="x", empty_layer=True),), user="u")
    resolver = FakeResolver({f"{LIBRARY}a:latest": empty})
    found = converted("FROM a\n", resolver)
    assert found.definition.head is None
    assert found.config.user == "u"
    assert execs(converted('FROM a\nRUN ["/x"]\n', resolver))[0].mounts[0].input == -1
    assert bases(converted("FROM b\nRUN x\n", resolver)) == ["b:latest"]


@row("FRM-14")
def test_a_stage_continues_another() -> None:
    found = converted(
        "FROM a AS one\nARG v=1\nENV e=f\nUSER u\nRUN first\nONBUILD RUN trigger\n"
        "FROM one AS two\nRUN second $v\nFROM two\nRUN third\n"
    )
    assert [op.meta.args[2] for op in execs(found)] == ["first", "trigger", "second $v", "third"]
    last = execs(found)[-1].meta
    assert (last.user, last.env[1:]) == ("u", ("v=1", "e=f"))


@row("FRM-15")
def test_the_platform_of_a_stage() -> None:
    resolver = FakeResolver()
    converted("FROM a\n", resolver, platform=ARM64, platform_explicit=True)
    converted("FROM --platform=linux/s390x a\n", resolver)
    assert [platform for _, platform, _ in resolver.asked] == ["linux/arm64", "linux/s390x"]
    other = FakeResolver({f"{LIBRARY}a:latest": base_image(ARM64)})
    assert converted("FROM a\nRUN r\n", other, supported_platforms=(AMD64, ARM64)).platform == ARM64
    assert converted("FROM a\nRUN r\n", other, supported_platforms=(AMD64,)).platform == AMD64
    explicit = converted("FROM a\n", other, supported_platforms=(AMD64, ARM64), platform_explicit=True)
    assert explicit.platform == AMD64


@row("FRM-16")
def test_a_base_of_another_platform_is_only_linted() -> None:
    resolver = FakeResolver({f"{LIBRARY}a:latest": base_image(ARM64)})
    found = converted("FROM a\nRUN r\n", resolver, platform_explicit=True)
    assert rules(found) == [("InvalidBaseImagePlatform", 1)]
    assert found.warnings[0].message == (
        'Base image a was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    )


@row("FRM-17")
def test_reserved_names_are_legal() -> None:
    for name in ("scratch", "context"):
        found = converted(f"FROM a AS {name}\n")
        assert rules(found) == [("ReservedStageName", 1)]
        expected = f'Stage name should not use the same name as reserved stage "{name}"'
        assert found.warnings[0].message == expected
    found = converted("FROM a\nCOPY --from=scratch x y\n")
    (action,) = ops(found, "FileOp")[0].actions
    assert action.secondary == -1
