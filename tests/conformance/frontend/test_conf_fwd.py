"""External frontends (FWD rows)."""

from __future__ import annotations

import pytest

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
    assert caught.value.hint


@row("FWD-03")
def test_capabilities(command: Runner) -> None:
    told = command.run("version", "--format={{json .FrontendCapabilities}}").out
    for capability in ("inputs", "subrequests", "contexts", "gitquerystring"):
        assert f"moby.buildkit.frontend.{capability}" in told
