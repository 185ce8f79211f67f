"""Names of steps (NAM rows)."""

from __future__ import annotations

import pytest

from builder.oci.platform import Platform
from tests.support.buildlab import Lab
from tests.support.dockerfiles import ARM64, FakeResolver, base_image, converted, names
from tests.support.rows import row


def steps(text, resolver=None, **changes):
    return [name.partition("@")[0] for name in names(converted(text, resolver, **changes))]


@row("NAM-01")
def test_prefixes() -> None:
    assert steps("FROM a\nRUN x\n") == ["[1/2] FROM docker.io/library/a:latest", "[2/2] RUN x"]
    two = steps("FROM a AS one\nRUN x\nFROM b\nCOPY --from=one p q\n")
    assert {
        "[one 1/2] FROM docker.io/library/a:latest",
        "[one 2/2] RUN x",
        "[stage-1 2/2] COPY --from=one p q",
    } <= {*two}
    many = steps("FROM a\n" + "RUN x\n" * 9)
    assert (many[0], many[1], many[-1]) == (
        "[ 1/10] FROM docker.io/library/a:latest",
        "[ 2/10] RUN x",
        "[10/10] RUN x",
    )
    assert steps("FROM a\nRUN x\n", multi_platform=True)[1] == "[linux/amd64 2/2] RUN x"


@row("NAM-02")
def test_totals() -> None:
    triggers = FakeResolver({"docker.io/library/a:latest": base_image(on_build=("RUN t", "ENV a=b"))})
    text = "FROM a\nENV a=b\nRUN x\nCOPY p q\nADD p q\nWORKDIR /w\nUSER u\n"
    assert steps(text, triggers)[0] == "[1/6] FROM docker.io/library/a:latest"
    assert [name for name in steps("FROM scratch\nCOPY p q\nWORKDIR /w\n") if "internal" not in name] == [
        "[1/2] COPY p q",
        "[2/2] WORKDIR /w",
    ]
    (first,) = names(converted("FROM a AS build\n"))
    assert first.startswith("[1/1] FROM docker.io/library/a:latest@sha256:")
    auto = steps("FROM scratch\nCOPY --from=img p q\n")
    assert auto[0] == "FROM docker.io/library/img:latest", "no prefix where there is no total"


@row("NAM-02")
def test_a_workdir_that_is_no_step() -> None:
    assert steps("FROM a\nWORKDIR /\nRUN x\n")[-1] == "[2/3] RUN x"


@row("NAM-03")
@pytest.mark.parametrize(
    ("target", "shown"),
    [(ARM64, "linux/amd64->arm64"), (Platform("linux", "arm", "v7"), "linux/amd64->arm/v7"),
     (Platform("windows", "amd64"), "linux/amd64->windows/amd64"), (Platform("linux", "amd64"), "linux/amd64")],
)  # fmt: skip
def test_cross_builds(target: Platform, shown: str) -> None:
    text = "FROM --platform=$BUILDPLATFORM a\nARG TARGETOS TARGETARCH TARGETVARIANT\nRUN x\n"
    assert steps(text, platform=target, multi_platform=True)[-1] == f"[{shown} 2/2] RUN x"


@row("NAM-03")
def test_cross_builds_by_one_variable() -> None:
    for names_, shown in (("TARGETPLATFORM", "->arm/v7"), ("TARGETARCH", "->arm/v7"), ("TARGETOS", "")):
        text = f"FROM --platform=$BUILDPLATFORM a\nARG {names_}\nRUN x\n"
        made = steps(text, platform=Platform("linux", "arm", "v7"), multi_platform=True)[-1]
        assert made == f"[linux/amd64{shown} 2/2] RUN x"


@row("NAM-04")
def test_what_is_shown_of_an_instruction() -> None:
    text = "FROM a\nARG v=one\nrun echo \"$v\" '$v' ${un} \\\n  more\n"
    assert steps(text)[-1] == "[2/2] RUN echo \"one\" '$v' ${un}   more"
    assert steps('FROM a\nARG v=one\ncopy "$v" $un b\nworkdir /$v\n')[-2:] == [
        "[2/3] COPY one  b",
        "[3/3] WORKDIR /one",
    ]
    assert steps("FROM a\nrun\techo hi  there\n")[-1] == "[2/2] RUN\techo hi  there"
    secret = steps("FROM a\nENV T=x\nRUN --mount=type=secret,id=t,env=T echo $T\n")[-1]
    assert secret.endswith("echo ****")


@row("NAM-05")
def test_link() -> None:
    copy, merge = converted("FROM a\nCOPY --link p q\n").definition.vertices[-2:]
    assert (copy.name, merge.name) == ("[2/2] COPY --link p q", "LINK COPY --link p q")
    assert copy.meta.progress_group == merge.meta.progress_group != ""


@row("NAM-06")
def test_internal_steps() -> None:
    found = steps("FROM a\nCOPY p <<EOF /d/\ntext\nEOF\n")
    assert "[internal] load build context" in found
    assert "[internal] preparing inline document" in found


@row("NAM-06", "CTX-02", "CTX-11")
@pytest.mark.root
def test_internal_steps_of_a_build(lab: Lab) -> None:
    other = lab.context({"x": ""})
    lab.quick(
        "FROM busybox\nCOPY a /\nCOPY --from=other x /\n",
        {"a": "", ".dockerignore": "b\n"},
        build_contexts=(("other", str(other)),),
    )
    seen = {event.name for event in lab.watcher.events if getattr(event, "name", "")}
    assert {
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load metadata for docker.io/library/busybox:latest",
        "[internal] load build context",
        "[context other] load from client",
    } <= seen


@row("NAM-07")
def test_what_a_step_says_of_its_origin() -> None:
    found = converted("FROM a\n\nRUN x \\\n y\nrun z\n").definition.vertices
    run, other = found[-2:]
    assert run.meta.command == "RUN x  y"
    assert (run.meta.source.filename, run.meta.source.start, run.meta.source.end) == ("Dockerfile", 3, 4)
    assert other.meta.command == "run z"
    assert found[0].meta.command == "FROM a"
