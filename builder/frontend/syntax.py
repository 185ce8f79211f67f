"""Which frontend a Dockerfile asks for (rows DIR-05, FWD-01)."""

from __future__ import annotations

import json

from builder.frontend.errors import BadOption
from builder.frontend.lines import DIRECTIVES
from builder.frontend.source import SourceFile

CAPABILITIES = tuple(
    f"moby.buildkit.frontend.{name}" for name in ("inputs", "subrequests", "contexts", "gitquerystring")
)
"""What the frontend that is built in can do, by the names that others know (FWD-03)."""


def detect_syntax(data: bytes) -> str | None:
    """The frontend that a Dockerfile asks for by ``# syntax=`` (DIR-05), without parsing the rest."""
    text = SourceFile("", data).text
    lines = text.split("\n")
    if lines and lines[0].startswith("#!"):
        lines.pop(0)
    for mark in ("#", "//"):
        for line in lines:
            stripped = line.strip()
            name, equals, value = stripped.removeprefix(mark).partition("=")
            known = name.strip().lower()
            if not stripped.startswith(mark) or not equals or known not in DIRECTIVES:
                break
            if known == "syntax" and value.strip():
                return value.strip()
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        named = found.get("syntax") if isinstance(found, dict) else None
        return named if isinstance(named, str) and named else None
    return None


def check_frontend(cmdline: str) -> None:
    """Accept the Dockerfile frontend in any version, which is this one; raises BadOption for another."""
    ref = cmdline.split(None, 1)[0] if cmdline.strip() else ""
    if ref in ("", "dockerfile.v0", "gateway.v0"):
        return
    name = ref.partition("@")[0]
    head, _, last = name.rpartition("/")
    repository = f"{head.rpartition('/')[2]}/{last.partition(':')[0]}"
    if repository not in ("docker/dockerfile", "docker/dockerfile-upstream"):
        raise BadOption(
            f"frontend {ref} is not supported",
            code="unsupported-frontend",
            hint="remove the syntax line, or name docker/dockerfile",
        )
