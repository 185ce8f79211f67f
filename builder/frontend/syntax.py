"""Which frontend a Dockerfile asks for (rows DIR-05, FWD-01)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from builder.frontend.errors import BadOption, suggestion
from builder.frontend.lines import DIRECTIVES
from builder.frontend.parts import directive
from builder.frontend.source import SourceFile

CAPABILITIES = tuple(
    f"moby.buildkit.frontend.{name}" for name in ("inputs", "subrequests", "contexts", "gitquerystring")
)
"""What the frontend that is built in can do, by the names that others know (FWD-03)."""

BUILT_IN = ("", "dockerfile.v0", "gateway.v0")
"""Names of the frontend that is no image."""


def requested(source: SourceFile, build_args: Mapping[str, str]) -> tuple[str, int]:
    """The frontend that a build asks for (ARG-12, DIR-05), "" for none, and the line that does; 0 = none."""
    given = build_args.get("BUILDKIT_SYNTAX")
    return (given, 0) if given else _syntax(source.data) or ("", 0)


def detect_syntax(data: bytes) -> str | None:
    """The frontend that a Dockerfile asks for by ``# syntax=`` (DIR-05), without parsing the rest."""
    found = _syntax(data)
    return found[0] if found else None


def check_syntax(source: SourceFile) -> None:
    """Accept the file if it is for this frontend; raises BadOption that points at its line."""
    found = _syntax(source.data)
    if found is None:
        return
    value, line = found
    try:
        check_frontend(value)
    except BadOption as error:
        error.source, error.spans = source, (source.span(line, line),)
        error.part = directive(value.split(None, 1)[0])
        raise


def _syntax(data: bytes) -> tuple[str, int] | None:
    """The frontend asked for, and the line that does so."""
    text = SourceFile("", data).text
    lines = list(enumerate(text.split("\n"), 1))
    if lines[0][1].startswith("#!"):
        lines.pop(0)
    for mark in ("#", "//"):
        for number, line in lines:
            stripped = line.strip()
            name, equals, value = stripped.removeprefix(mark).partition("=")
            known = name.strip().lower()
            if not stripped.startswith(mark) or not equals or known not in DIRECTIVES:
                break
            if known == "syntax" and value.strip():
                return value.strip(), number
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        named = found.get("syntax") if isinstance(found, dict) else None
        if isinstance(named, str) and named:
            return named, next((number for number, line in lines if '"syntax"' in line), 1)
    return None


def is_ours(ref: str) -> bool:
    """Whether a reference names the Dockerfile frontend, in any version and from any registry."""
    return ref in BUILT_IN or _repository(ref) in ("docker/dockerfile", "docker/dockerfile-upstream")


def _repository(ref: str) -> str:
    """The last two elements of a reference's name."""
    head, _, last = ref.partition("@")[0].rpartition("/")
    return f"{head.rpartition('/')[2]}/{last.partition(':')[0]}"


def check_frontend(cmdline: str) -> None:
    """Accept the Dockerfile frontend in any version, which is this one; raises BadOption for another."""
    ref = cmdline.split(None, 1)[0] if cmdline.strip() else ""
    if not is_ours(ref):
        raise BadOption(
            f"frontend {ref} is not supported",
            context=("the frontend is part of this builder and reads Dockerfiles; other images are not run",),
            code="unsupported-frontend",
            hint=_other_frontend_hint(_repository(ref)),
        )


def _other_frontend_hint(repository: str) -> str:
    meant = suggestion(repository, ("docker/dockerfile", "docker/dockerfile-upstream")).strip(" ()")
    advice = "remove the syntax line, or build with --build-arg BUILDKIT_SYNTAX=docker/dockerfile"
    return f"{meant}; or {advice}" if meant else f"if the file is a Dockerfile, {advice}"


def check_capabilities(text: str) -> None:
    """``frontend.caps``: what a client needs of the frontend (FWD-02, FWD-03); raises BadOption."""
    for item in filter(None, text.split(",")):
        name = item.partition("+")[0]
        if name not in CAPABILITIES:
            raise BadOption(f"unsupported frontend capability {name[:200]}", code="unsupported-frontend")
