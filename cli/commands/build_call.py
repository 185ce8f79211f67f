"""``build --check`` and ``build --call`` (rows SUB-02, SUB-03, SUB-05)."""

from __future__ import annotations

import json
import sys
from typing import Any

from builder.errors import UsageError
from cli.app import App
from cli.flags import Args
from cli.render.snippet import Place, snippet
from cli.render.tables import table
from cli.render.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.build.check import Checked, Target

_KNOWN = ("check", "targets")


def call(app: App, args: Args) -> int:
    """Answer the question and return the exit status: 1 when a check found something."""
    from builder.build.check import check, targets
    from cli.commands.build import request_from
    from cli.render.progress import make_progress

    what, as_json, offline = _asked(args)
    request = request_from(app, args)
    with make_progress("quiet", app.settings, sys.stderr) as progress:
        if what == "targets":
            found = targets(app.store, request, on_event=progress)
            app.say(json.dumps(_targets_json(found), indent=2) if as_json else _targets_text(found))
            return 0
        checked = check(app.store, request, on_event=progress, offline=offline)
    if as_json:
        app.say(json.dumps(_check_json(checked), indent=2))
    else:
        app.say(_check_text(checked))
    return 1 if checked.warnings or checked.error is not None else 0


def _asked(args: Args) -> tuple[str, bool, bool]:
    """The question, and its options: ``format=json``, and ``offline`` for a check that asks no registry."""
    text = "check" if args.on("check") else args.text("call")
    what, *options = text.split(",")
    what = {"lint": "check"}.get(what.removeprefix("frontend."), what.removeprefix("frontend."))
    if what not in _KNOWN:
        raise UsageError(f"--call={what} is not known", hint=f"known are build, {', '.join(_KNOWN)}")
    given = dict(option.partition("=")[::2] for option in options)
    form = given.get("format", "text")
    if form not in ("text", "json"):
        raise UsageError(f"unknown format {form!r} for --call", hint="text or json")
    return what, form == "json", given.get("offline", "false") in ("", "1", "true")


def _check_text(checked: Checked) -> str:
    lines: list[str] = []
    for warning in checked.warnings:
        lines += ["", f"WARNING: {warning.rule}" + (f" - {warning.url}" if warning.url else "")]
        lines.append(printable(warning.message))
        span = warning.span
        lines += snippet(Place(span.filename, span.start, span.end, checked.source.lines))
    if checked.error is not None:
        from cli.render.errors import error_text

        lines += ["", error_text(checked.error).rstrip("\n")]
    if not lines:
        return "Check complete, no warnings found."
    count = len(checked.warnings)
    head = f"Check complete, {count} warning{'s' if count != 1 else ''} found"
    return "\n".join([f"{head} and an error!" if checked.error else f"{head}!", *lines])


def _check_json(checked: Checked) -> dict[str, Any]:
    import base64

    out: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": warning.rule,
                "description": warning.detail,
                "url": warning.url,
                "detail": warning.message,
                "location": _location(warning.span.start, warning.span.end),
            }
            for warning in checked.warnings
        ],
        "sources": [
            {
                "filename": checked.source.filename,
                "language": "Dockerfile",
                "data": base64.b64encode(checked.source.data).decode("ascii"),
            }
        ],
    }
    if checked.error is not None:
        span = checked.error.span
        out["buildError"] = {"message": checked.error.message}
        if span is not None:
            out["buildError"]["location"] = _location(span.start, span.end)
    return out


def _location(start: int, end: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": start}, "end": {"line": end}}], "sourceIndex": 0}


def _targets_text(found: tuple[Target, ...]) -> str:
    rows = [("TARGET", "DESCRIPTION")]
    for target in found:
        name = f"{target.name} (default)".strip() if target.default else target.name
        rows.append((name, target.description))
    return table(rows, least=0).rstrip("\n")


def _targets_json(found: tuple[Target, ...]) -> dict[str, Any]:
    rows = []
    for target in found:
        row: dict[str, Any] = {
            "name": target.name,
            "default": target.default,
            "description": target.description,
            "base": target.base,
            "platform": target.platform,
            "location": _location(target.start, target.end),
        }
        rows.append({key: value for key, value in row.items() if value})
    return {"targets": rows}


__all__ = ["call"]
