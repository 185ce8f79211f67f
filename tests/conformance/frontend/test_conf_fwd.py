"""External frontends (FWD rows)."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.build.options import with_options
from builder.build.request import BuildRequest
from builder.frontend.errors import DockerfileError
from tests.support.cli import Runner
from tests.support.dockerfiles import converted
from tests.support.rows import row


@row("FWD-01")
@pytest.mark.parametrize(
    "name",
    [
        "docker/dockerfile",
        "docker/dockerfile:1",
        "docker/dockerfile:1.7-labs",
        "docker/dockerfile-upstream:master",
        "docker.io/docker/dockerfile:1",
        "docker/dockerfile:1@sha256:" + "a" * 64,
        "dockerfile.v0",
    ],
)
def test_the_dockerfile_frontend_is_built_in(name: str) -> None:
    assert converted(f"# syntax={name}\nFROM a\nRUN x\n").definition.head is not None
    assert converted("FROM a\nRUN x\n", build_args=(("BUILDKIT_SYNTAX", name),)).definition.head is not None


@row("FWD-01", "FWD-02")
@pytest.mark.parametrize("name", ["example.com/front:1", "crazy-max/dockerfile", "tonistiigi/dockerfile:x"])
def test_others_are_reported(name: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        converted(f"# syntax={name} --flag\nFROM a\n")
    assert caught.value.message == f"frontend {name} is not supported"
    assert caught.value.code == "unsupported-frontend"
    assert "BUILDKIT_SYNTAX" in str(caught.value.hint)
    assert "other images are not run" in caught.value.context[0]
    assert [(span.start, span.end) for span in caught.value.spans] == [(1, 1)]
    assert caught.value.source_lines[0] == f"# syntax={name} --flag"


@row("FWD-02")
def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(DockerfileError) as caught:
        converted("# check=skip=all\n# syntax=docker/dokerfile:1\nFROM a\n")
    assert "did you mean docker/dockerfile?" in str(caught.value.hint)
    assert caught.value.spans[0].start == 2


@row("FWD-02")
@pytest.mark.root
def test_the_line_is_shown(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("# syntax=example.com/front:1\n{ not: a Dockerfile }\n")
    told = command.run("build", tmp_path, status=1).err
    assert "Dockerfile:1" in told
    assert "   1 | >>> # syntax=example.com/front:1" in told


@row("FWD-02")
def test_capabilities_that_are_wanted() -> None:
    request = BuildRequest(context=".")
    for wanted in ("moby.buildkit.frontend.odd", "moby.buildkit.frontend.odd+forward"):
        with pytest.raises(
            DockerfileError, match=r"unsupported frontend capability moby\.buildkit\.frontend\.odd$"
        ):
            with_options(request, [("frontend.caps", f"moby.buildkit.frontend.inputs,{wanted}")])


@row("FWD-03")
def test_capabilities(command: Runner) -> None:
    told = command.run("version", "--format={{json .FrontendCapabilities}}").out
    for capability in ("inputs", "subrequests", "contexts", "gitquerystring"):
        assert f"moby.buildkit.frontend.{capability}" in told
