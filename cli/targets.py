"""Verbs over several things: one after the other, each outcome told, and a summary (row CLI-07)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from builder.errors import PybuildError
from cli.app import App


class SomeFailed(PybuildError):
    """The verb failed for some of its targets; each was told already."""

    code = "some-failed"


def each(app: App, targets: Iterable[str], act: Callable[[str], str | None], verb: str, noun: str) -> int:
    """``act`` on every target; what it returns is printed, None = the target's name."""
    from cli.render.errors import error_text

    failed: list[PybuildError] = []
    names: list[str] = []
    for target in targets:
        try:
            said = act(target)
        except PybuildError as error:
            failed.append(error)
            names.append(target)
            app.note(error_text(error).rstrip("\n"))
            continue
        if said != "":
            app.say(target if said is None else said)
    if not failed:
        return 0
    if len(failed) > 1:
        app.note(f"Error: failed to {verb} {noun}: [{' '.join(names)}]")
    return max(error.exit_status for error in failed)
