"""``pybuild doctor``: what this machine allows, and the one setting that would lift each limit."""

from __future__ import annotations

import sys

from cli.app import App
from cli.flags import Args, Command, text
from cli.probes import Finding, run_probes

_SIGNS = {"ok": ("ok", "32"), "note": ("--", "33"), "bad": ("!!", "31")}


def run(app: App, args: Args) -> int:
    """Print every finding; exit 1 when something essential is missing."""
    findings = list(run_probes(app.settings.root))
    if args.text("format"):
        from cli.render.format import formatted

        app.say(formatted(args.text("format"), [finding._asdict() for finding in findings]))
    else:
        color = app.settings.color and sys.stdout.isatty()
        width = max(len(finding.topic) for finding in findings) + 2
        for finding in findings:
            app.say(_line(finding, width, color=color))
    return 1 if any(finding.level == "bad" for finding in findings) else 0


def _line(finding: Finding, width: int, *, color: bool) -> str:
    sign, code = _SIGNS[finding.level]
    sign = f"\x1b[{code}m{sign}\x1b[0m" if color else sign
    line = f" {sign}  {finding.topic:<{width}}{finding.text}"
    return f"{line}\n     {'':<{width}}to lift it: {finding.remedy}" if finding.remedy else line


COMMANDS = (
    Command(
        "doctor",
        "[OPTIONS]",
        "Check what this machine allows, and say what would lift each limit",
        run,
        flags=(text("format", "f", "Template, or json"),),
    ),
)
