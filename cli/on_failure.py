"""What ``build`` does about failures: which it goes on after, and what it offers when it has failed."""

from __future__ import annotations

import sys

from builder.errors import Cancelled, PybuildError, SeveralFailed, StepFailed, UsageError
from cli.app import App
from cli.flags import Args, many, number, switch, text
from cli.units import duration_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypedDict

    from builder.build import BuildRequest, BuildResult
    from builder.build.rescue import Rescue

    class _Options(TypedDict):
        keep_going: bool
        retries: int
        step_timeout_s: float


FLAGS = (
    switch("keep-going", "k", "After a failure, run all that does not need the failed step"),
    text("on-error", "", 'What to do when a step fails ("shell": open a shell in it)', metavar="action"),
    many("output-on-failure", "", "Copy files out of a failed build (STAGE:/path=dest)"),
    number("retry", "", "How often RUN steps and sources are tried again"),
    text("step-timeout", "", "How long the command of a RUN step may take (such as 10m)", metavar="duration"),
)


def request_options(args: Args) -> _Options:
    """What the flags say to the build itself. Raises UsageError."""
    timeout = args.text("step-timeout")
    seconds = duration_seconds(timeout, "--step-timeout") if timeout else 0.0
    if args.number("retry") < 0:
        raise UsageError("--retry must not be negative", hint="it is how often a step is tried again, like 3")
    if timeout and not seconds:
        raise UsageError("--step-timeout must be more than 0", hint="leave it out for no limit")
    return {
        "keep_going": args.on("keep-going"),
        "retries": args.number("retry"),
        "step_timeout_s": seconds,
    }


def attended(
    app: App, args: Args, request: BuildRequest, build: Callable[[BuildRequest], BuildResult]
) -> BuildResult | int:
    """Build. When it fails, bring out the files and open the shell that were asked for; tell its warnings.

    An exit status in place of a result: the failure has been told already.
    """
    try:
        return _attended(app, args, request, build)
    except PybuildError as error:
        quiet = args.on("quiet") or (args.text("progress") or app.settings.progress) == "quiet"
        if getattr(error, "warnings", ()) and not quiet:
            from cli.render.warnings import summary

            app.note(summary(error, expand=app.debug))
        raise


def _attended(
    app: App, args: Args, request: BuildRequest, build: Callable[[BuildRequest], BuildResult]
) -> BuildResult | int:
    action = args.text("on-error")
    if action not in ("", "shell"):
        raise UsageError(f"unknown --on-error action {action!r}", hint="shell is known")
    if not action and not args.many("output-on-failure"):
        return build(request)
    import secrets
    from dataclasses import replace

    from builder.build.rescue import Rescue

    wanted = [Rescue.parse(item) for item in args.many("output-on-failure")]
    if action and request.stdin is not None:
        raise UsageError("--on-error=shell reads standard input, which is the context or the Dockerfile here")
    request = replace(request, build_id=request.build_id or secrets.token_hex(8))
    try:
        return build(request)
    except Cancelled:
        raise
    except PybuildError as error:
        for item in wanted:
            _bring(app, request.build_id, item)
        if not action or not _has_tree(error):
            raise
        return _shell(app, request, error)


def _bring(app: App, build_id: str, wanted: Rescue) -> None:
    from builder.build.rescue import rescue
    from cli.render.text import printable

    try:
        step = rescue(app.store, build_id, wanted)
    except PybuildError as error:
        hint = f" ({error.hint})" if error.hint else ""
        app.note(f"WARNING: --output-on-failure {printable(wanted.dest)}: {printable(error.message)}{hint}")
        return
    app.note(f"pybuild: {printable(wanted.dest)} is /{printable(wanted.path)} of {printable(step)}")


def _has_tree(error: PybuildError) -> bool:
    failures = error.failures if isinstance(error, SeveralFailed) else (error,)
    return any(isinstance(failure, StepFailed) for failure in failures)


def _shell(app: App, request: BuildRequest, error: PybuildError) -> int:
    """Tell the failure first: it is why somebody wants to look."""
    from builder.build.failed import find_step
    from cli.render.errors import report
    from cli.step_shell import run_shell

    status = report(error, debug=app.debug, form=app.error_format, stream=sys.stderr)
    step = find_step(app.store, request.build_id)
    run_shell(app, step, secrets=request.secrets, ssh=request.ssh)
    return status
