"""Sources that are none of the definition's: frontends, scanners, imported caches, the Dockerfile (POL-03)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.errors import InvalidValue, PybuildError
from builder.exporter.types import OutputSpec
from builder.frontend.errors import BadOption
from builder.remotecache.spec import CacheSpec
from builder.solver.progress import VertexEvent, WarningEvent
from builder.sources.policy import Policy, SourceDenied
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row
from tests.support.scanners import make_scanner

pytestmark = pytest.mark.root
FRONTEND = "docker-image://docker.io/docker/dockerfile:1"
TEXT = "# syntax=docker/dockerfile:1 extra words\nFROM scratch\nCOPY a /\n"


def policy(action: str, identifier: str, new: str = "") -> Policy:
    one: dict[str, Any] = {"action": action, "selector": {"identifier": identifier}}
    if new:
        one["updates"] = {"identifier": new}
    return Policy.parse(json.dumps({"rules": [one]}).encode())


def seen(lab: Lab) -> str:
    events = lab.watcher.events
    told = [event.name for event in events if isinstance(event, VertexEvent)]
    return "\n".join(told + [event.short for event in events if isinstance(event, WarningEvent)])


@row("POL-03")
def test_a_frontend(lab: Lab) -> None:
    def build(found: Policy, text: str = TEXT, **args: str) -> None:
        lab.quick(text, {"a": ""}, source_policies=(found,), build_args=tuple(args.items()))

    deny = policy("DENY", "docker-image://docker.io/docker/dockerfile*")
    with pytest.raises(SourceDenied) as caught:
        build(deny)
    assert caught.value.message.startswith(f'source "{FRONTEND}" denied by policy')
    assert (caught.value.filename, caught.value.first_line, caught.value.exit_status) == ("Dockerfile", 1, 3)
    build(deny, "FROM scratch\nCOPY a /\n")
    build(deny, BUILDKIT_SYNTAX="dockerfile.v0")
    with pytest.raises(SourceDenied, match="dockerfile-upstream:master"):
        build(deny, "FROM scratch\n", BUILDKIT_SYNTAX="docker/dockerfile-upstream:master")
    build(policy("CONVERT", FRONTEND, "docker-image://mirror.invalid/frontend:1"))  # nothing of it is fetched
    foreign = TEXT.replace("docker/dockerfile:1", "mirror.invalid/own:2")
    with pytest.raises(BadOption, match=r"frontend mirror\.invalid/own:2 is not supported"):
        build(deny, foreign)
    own = "docker-image://mirror.invalid/own:2"
    build(policy("CONVERT", own, FRONTEND), foreign)
    with pytest.raises(BadOption, match=r"frontend mirror\.invalid/more is not supported"):
        build(policy("CONVERT", own, "docker-image://mirror.invalid/more"), foreign)


@row("POL-03")
def test_a_denied_frontend_is_not_forgotten(lab: Lab) -> None:
    context = lab.context({"a": "", "Dockerfile": TEXT})
    for _ in range(2):
        lab.build(context, source_policies=(policy("ALLOW", "*"),))
        with pytest.raises(SourceDenied):
            lab.build(context, source_policies=(policy("DENY", FRONTEND),))


@row("POL-03")
def test_the_dockerfile(lab: Lab) -> None:
    context = lab.context({"Dockerfile": "FROM busybox\n"})
    with pytest.raises(SourceDenied, match="local://dockerfile"):
        lab.build(context, source_policies=(policy("DENY", "local://*"),))
    lab.build(context, source_policies=(policy("DENY", "local://context"),))
    with pytest.raises(InvalidValue, match="policy converts local://dockerfile to local://context"):
        lab.build(context, source_policies=(policy("CONVERT", "local://dockerfile", "local://context"),))


@row("POL-03")
def test_a_scanner(lab: Lab, tmp_path: Path) -> None:
    asked = make_scanner(lab, "every-scanner")
    context = lab.context({"a": "", "Dockerfile": "FROM scratch\nCOPY a /\n"})
    output = OutputSpec.parse(f"type=oci,tar=false,dest={tmp_path}/o")
    deny = policy("DENY", "docker-image://docker.io/library/every-scanner:*")
    with pytest.raises(SourceDenied, match="every-scanner"):
        lab.build(context, attest=(asked,), outputs=(output,), source_policies=(deny,))
    with pytest.raises(SourceDenied, match="every-scanner:latest@sha256:"):
        pinned = policy("DENY", "docker-image://docker.io/library/every-scanner:*@sha256:*")
        lab.build(context, attest=(asked,), outputs=(output,), source_policies=(pinned,))
    assert not (tmp_path / "o").exists()
    new = "docker-image://docker.io/library/every-scanner:latest"
    lab.build(context, attest=("type=sbom,generator=nowhere.invalid/s",), outputs=(output,),
              source_policies=(policy("CONVERT", "docker-image://nowhere.invalid/s:latest", new),))  # fmt: skip
    assert (tmp_path / "o/index.json").exists()


@row("POL-03")
def test_an_imported_cache(lab: Lab) -> None:
    imports = CacheSpec.parse("type=registry,ref=127.0.0.1:1/c:x") + CacheSpec.parse("127.0.0.1:1/plain")
    text = "FROM busybox\nRUN echo cache-by-policy\n"
    with pytest.raises(SourceDenied) as caught:
        lab.quick(text, cache_from=imports, source_policies=(policy("DENY", "docker-image://*/c:*"),))
    assert '"docker-image://127.0.0.1:1/c:x" denied by policy' in caught.value.message
    with pytest.raises(SourceDenied, match=r"127\.0\.0\.1:1/plain:latest"):
        lab.quick(text, cache_from=imports, source_policies=(policy("DENY", "docker-image://*plain*"),))
    assert not lab.steps_run(), "nothing ran, and nothing was asked for"
    moved = policy("CONVERT", "docker-image://127.0.0.1:1/c:*", "docker-image://127.0.0.2:1/other:${1}")
    lab.quick(text, cache_from=imports[:1], source_policies=(moved,))
    assert "127.0.0.2:1/other:x" in seen(lab)
    assert "127.0.0.1" not in seen(lab)
    with pytest.raises(PybuildError, match="which is no image"):
        away = policy("CONVERT", "docker-image://127.0.0.1:1/c:*", "https://h/x")
        lab.quick(text, cache_from=imports, source_policies=(away,))


@row("POL-03")
def test_a_user_sees_which_line(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("#syntax=docker/dockerfile:1.7-labs\nFROM scratch\n")
    rules = {
        "rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}],
    }
    (tmp_path / "p.json").write_text(json.dumps(rules))
    said = command.build(tmp_path, f"--source-policy-file={tmp_path}/p.json", status=3).err
    assert "   1 | >>> #syntax=docker/dockerfile:1.7-labs" in said.splitlines()
    assert 'source "docker-image://docker.io/docker/dockerfile:1.7-labs" denied by policy' in said
