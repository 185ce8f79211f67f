"""``pybuild explain``: why the steps of a build had to run."""

from __future__ import annotations

import json
import time
from typing import Any

from builder.errors import UsageError
from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.render.text import ago, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.build.report import BuildReport, StepReport

_CAUSES = 10
FLAGS = (
    switch("all", "a", "Show the steps that did not run, too"),
    text("format", "", '"text" or "json"', default="text"),
    switch("list", "l", "List the builds on record"),
)


def run(app: App, args: Args) -> int:
    """Explain the last build, or the one that was named; with a step, only that one."""
    from builder.build.report import find_report, reports

    form = args.text("format")
    if form not in ("text", "json"):
        raise UsageError(f"unknown format {form!r}", hint="text or json")
    if args.on("list"):
        found = reports(app.store)
        app.say(
            json.dumps([_head_json(report) for report in found], indent=2) if form == "json" else _list(found)
        )
        return 0
    build, step = _asked(app, args.words)
    report = find_report(app.store, build)
    steps = report.find_steps(step) if step else report.steps
    if form == "json":
        app.say(json.dumps(_json(report, steps), indent=2))
    else:
        app.say("\n".join(_text(report, steps, every=args.on("all") or bool(step))))
    return 0


def _asked(app: App, words: tuple[str, ...]) -> tuple[str, str]:
    """The build and the step that are meant; one word may be either, a short number is a step."""
    first, second = (*words, "", "")[:2]
    if first == "last":
        return "", second
    if second or not first:
        return first, second
    short = first.isdigit() and len(first) < 4
    if short or not (first.startswith("^") or app.store.builds.get(first)):
        return "", first
    return first, ""


def print_build(app: App, build_id: str | None, *, total_steps: int = 0) -> None:
    """What ``build --explain`` says on stderr in the end."""
    from builder.build.report import find_report

    if build_id is None:
        app.note(f"\nNothing had to run: {_count(total_steps)} and all inputs are as they were.")
        return
    try:
        report = find_report(app.store, build_id)
    except UsageError:
        return  # it failed before it began
    app.note("\n" + "\n".join(_text(report, report.steps, every=False)))


def _list(reports: tuple[BuildReport, ...]) -> str:
    from cli.render.tables import table

    now = time.time_ns()
    rows = [["BUILD", "STARTED", "STATUS", "RAN", "CACHED", "CONTEXT"]]
    for report in reports:
        states = [step.status for step in report.steps]
        ran, cached = len([s for s in states if s in ("ran", "failed")]), states.count("cached")
        started = ago(report.created_ns, now)
        rows.append([report.id, started, report.status, str(ran), str(cached), printable(report.context)])
    return table(rows).rstrip("\n")


def _text(report: BuildReport, steps: tuple[StepReport, ...], *, every: bool) -> list[str]:
    lines = [f"Build {report.id} of {printable(report.context)}, {ago(report.created_ns, time.time_ns())}"]
    shown = [step for step in steps if every or _is_worth_telling(step)]
    for step in shown:
        lines += ["", f"{_mark(step)} {printable(step.name)}"]
        texts = [printable(cause.text, keep="") for cause in step.causes]
        hidden = 0 if every or len(texts) <= _CAUSES + 1 else len(texts) - _CAUSES
        lines += [f"    because {text}" for text in texts[:1]]
        lines += [f"        and {text}" for text in texts[1 : len(texts) - hidden]]
        if hidden:
            lines.append(f"        and for {hidden} more reasons: pybuild explain {report.id} {_word(step)}")
    cached = sum(step.status == "cached" and not _is_internal(step) for step in report.steps)
    if not shown and not cached and report.status != "completed":
        lines += ["", "It ended before a step ran."]
    elif not shown:
        lines += ["", f"Nothing had to run: {_count(cached)} came from the cache."]
    elif cached and not every:
        lines += ["", f"{_count(cached)} came from the cache."]
    return lines


def _is_worth_telling(step: StepReport) -> bool:
    """Internal steps only when they fail: what made them run is said where they are used."""
    return step.status == "failed" or (step.status == "ran" and not _is_internal(step))


def _is_internal(step: StepReport) -> bool:
    return step.name.startswith("[internal]")


def _word(step: StepReport) -> str:
    """What names a step on the command line."""
    import shlex

    return str(step.number) if step.number else shlex.quote(printable(step.name))


def _count(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"


def _mark(step: StepReport) -> str:
    if step.status in ("ran", "failed"):
        return f"{step.status} ({step.duration_ns / 1e9:.1f}s):"
    return f"{'not reached' if step.status == 'waiting' else step.status}:"


def _head_json(report: BuildReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "status": report.status,
        "startedNs": report.created_ns,
        "completedNs": report.completed_ns,
        "context": report.context,
        "dockerfile": report.dockerfile,
        "target": report.target,
        "tags": list(report.tags),
        "image": report.image_id,
        "error": report.error,
    }


def _json(report: BuildReport, steps: tuple[StepReport, ...]) -> dict[str, Any]:
    return {
        **_head_json(report),
        "steps": [
            {
                "name": step.name,
                "key": step.key,
                "status": step.status,
                "durationNs": step.duration_ns,
                "causes": [{**cause.to_json(), "text": cause.text} for cause in step.causes],
            }
            for step in steps
        ],
    }


COMMANDS = (
    Command(
        "explain",
        "[OPTIONS] [BUILD|last] [STEP]",
        "Say why the steps of a build had to run",
        run,
        flags=FLAGS,
        words=(0, 2),
    ),
)
