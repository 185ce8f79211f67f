"""``build --check`` and ``build --call`` (rows SUB-01…SUB-07)."""

from __future__ import annotations

import json
import sys
from typing import Any

from builder.errors import UsageError
from builder.frontend.errors import suggestion
from cli.app import App
from cli.flags import Args
from cli.render.snippet import Place, snippet
from cli.render.tables import table
from cli.render.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.build.check import Checked, Target
    from builder.frontend.convert import Outline
    from builder.frontend.errors import DockerfileError
    from builder.frontend.source import SourceFile

SUBREQUESTS = (
    ("frontend.outline", "1.0.0", "List all parameters current build target supports"),
    ("frontend.targets", "1.0.0", "List all targets current build supports"),
    ("frontend.lint", "1.0.0", "Lint a Dockerfile"),
    ("frontend.convertllb", "0.1.0", "Show the build graph of a Dockerfile as JSON"),
    ("frontend.subrequests.describe", "1.0.0", "List available subrequest types"),
)
_ALIASES = {"check": "lint", "describe": "subrequests.describe"}


def call(app: App, args: Args) -> int:
    """Answer the question and return the exit status: 1 when a check found something."""
    from cli.commands.build import request_from
    from cli.render.progress import check_mode, make_progress

    what, as_json = _asked(args)
    if what == "subrequests.describe":
        app.say(_json(_describe_json()) if as_json else _describe_text())
        return 0
    from builder.build.check import check, definitions, parameters, targets

    check_mode(args.text("progress") or app.settings.progress)
    request = request_from(app, args)
    with make_progress("quiet", app.settings, sys.stderr) as progress:
        if what == "targets":
            source, found, wrong = targets(app.store, request, on_event=progress)
            answer = _targets_json(source, found) if as_json else _targets_text(found)
            return _partly(app, answer, wrong)
        if what == "outline":
            source, outline, wrong = parameters(app.store, request, on_event=progress)
            answer = _outline_json(source, outline) if as_json else _outline_text(outline)
            return _partly(app, answer, wrong)
        if what == "convertllb":
            from builder.llb.serialize import graph_json

            for definition in definitions(app.store, request, on_event=progress):
                app.say(_json(graph_json(definition)))
            return 0
        checked = check(app.store, request, on_event=progress)
    app.say(_json(_check_json(checked)) if as_json else _check_text(checked))
    return 1 if checked.warnings or checked.error is not None else 0


def _partly(app: App, answer: dict[str, Any] | str, wrong: DockerfileError | None) -> int:
    """Say what is known, and what is wrong with the rest of the file (SUB-07)."""
    if isinstance(answer, str):
        app.say(answer)
        if wrong is not None:
            from cli.render.errors import error_text

            app.note(error_text(wrong).rstrip("\n"))
    else:
        app.say(_json(answer if wrong is None else {**answer, "buildError": _error_json(wrong)}))
    return 0 if wrong is None else 1


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _asked(args: Args) -> tuple[str, bool]:
    text = "check" if args.on("check") else args.text("call")
    typed, *options = text.split(",")
    what = typed.removeprefix("frontend.")
    what = _ALIASES.get(what, what)
    known = [name.removeprefix("frontend.") for name, _, _ in SUBREQUESTS]
    if what not in known:
        hint = suggestion(what, ["build", "check", *known]).strip(" ()")
        raise UsageError(
            f"unsupported subrequest {typed}",
            hint=hint or "known are build, check, outline, targets, convertllb, subrequests.describe",
        )
    form = "text"
    for option in options:
        key, _, value = option.partition("=")
        if key != "format":
            raise UsageError(f"unknown option {key!r} for --call", hint="known is format=text|json")
        form = value
    if form not in ("text", "json"):
        raise UsageError(f"unknown format {form!r} for --call", hint="text or json")
    return what, form == "json"


def _describe_json() -> list[dict[str, str]]:
    return [
        {"name": name, "version": version, "type": "rpc", "description": description}
        for name, version, description in SUBREQUESTS
    ]


def _describe_text() -> str:
    rows = [(name.removeprefix("frontend."), *rest) for name, *rest in SUBREQUESTS]
    return table([("NAME", "VERSION", "DESCRIPTION"), *rows], least=0).rstrip("\n")


def _check_text(checked: Checked) -> str:
    lines: list[str] = []
    for warning in checked.warnings:
        lines += ["", f"WARNING: {warning.rule}" + (f" - {warning.url}" if warning.url else "")]
        lines.append(printable(warning.message))
        if warning.hint:
            lines.append(f"hint: {printable(warning.hint)}")
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
                "data": _encoded(checked.source),
            }
        ],
    }
    if checked.error is not None:
        out["buildError"] = _error_json(checked.error)
    return out


def _error_json(error: DockerfileError) -> dict[str, Any]:
    out: dict[str, Any] = {"message": error.message}
    if error.spans:
        ranges = [_range(span.start, span.end) for span in error.spans]
        out["location"] = {"ranges": ranges, "sourceIndex": 0}
    return out


def _encoded(source: SourceFile) -> str:
    import base64

    return base64.b64encode(source.data).decode("ascii")


def _range(start: int, end: int) -> dict[str, Any]:
    return {"start": {"line": start}, "end": {"line": end}}


def _location(start: int, end: int) -> dict[str, Any]:
    return {"ranges": [_range(start, end)], "sourceIndex": 0}


def _targets_text(found: tuple[Target, ...]) -> str:
    rows = [("TARGET", "DESCRIPTION")]
    for target in found:
        name = f"{target.name} (default)".strip() if target.default else target.name
        rows.append((name, target.description))
    return table(rows, least=0).rstrip("\n")


def _targets_json(source: SourceFile, found: tuple[Target, ...]) -> dict[str, Any]:
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
    return {"targets": rows, "sources": [_encoded(source)]}


def _outline_text(outline: Outline) -> str:
    parts: list[str] = []
    if outline.name or outline.description:
        head = [("TARGET:", outline.name or "(default)")]
        if outline.description:
            head.append(("DESCRIPTION:", outline.description))
        width = max(len(label) for label, _ in head) + 1
        parts.append("".join(f"{label:<{width}}{printable(text, keep='')}\n" for label, text in head))
    if outline.args:
        rows = [(arg.name, arg.value or "", arg.description) for arg in outline.args]
        parts.append(table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows], least=0))
    for title, needs in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if needs:
            flags = [(need.name, "true" if need.required else "") for need in needs]
            parts.append(table([(title, "REQUIRED"), *flags], least=0))
    return "\n".join(parts)


def _outline_json(source: SourceFile, outline: Outline) -> dict[str, Any]:
    out: dict[str, Any] = {"name": outline.name, "description": outline.description}
    out["args"] = [
        _filled(
            name=arg.name,
            description=arg.description,
            value=arg.value,
            location=_location(arg.span.start, arg.span.end),
        )
        for arg in outline.args
    ]
    for key, needs in (("secrets", outline.secrets), ("ssh", outline.ssh)):
        out[key] = [
            _filled(
                name=need.name,
                required=need.required,
                location=_location(need.span.start, need.span.end),
            )
            for need in needs
        ]
    out["sources"] = [_encoded(source)]
    return _filled(**out)


def _filled(**values: Any) -> dict[str, Any]:
    """Without what is empty."""
    return {key: value for key, value in values.items() if value}


__all__ = ["call"]
