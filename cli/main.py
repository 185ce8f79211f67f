"""The entry point: finds the verb, reads its flags, runs it, and turns the outcome into an exit status.

Only the wanted verb's module is imported. Exit statuses: 0; 1 a build or a verb failed; 2 wrong usage; 3 a
source denied by policy; 70 a bug; 125, 126, 127 and the command's own status for run, exec and start; 130
interrupted; 141 the reader of our output went away.
"""

from __future__ import annotations

import sys

from builder.errors import PybuildError, UsageError
from cli.commands import GROUPS, find, module_of
from cli.flags import COMMON, Args, Command, parse, switch
from cli.lean import import_pathlib, leave, postpone_methods, start_lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.app import App

_GLOBAL = Command(
    "",
    "[OPTIONS] COMMAND",
    "",
    lambda _app, _args: 0,
    flags=(*COMMON, switch("version", "v")),
    words=(0, None),
    interspersed=False,
)
_ENGINE_FAILED = 125
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status is returned, never raised.

    Without ``argv`` the process is ours: it takes its own arguments and ends as soon as all is written.
    """
    if argv is not None:
        return _run(list(argv), own=False)
    start_lean()
    if sys.getfilesystemencoding() != "utf-8":
        _start_again()
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from cli import stdio

        stdio.fill()
    status = _run(sys.argv[1:], own=True)
    leave(status)
    return status


def _start_again() -> None:
    """With UTF-8: names in an image are the same whatever the caller's locale."""
    import os

    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _run(words: list[str], *, own: bool) -> int:
    try:
        status = _guarded(words, own=own)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _silence_stdout()
        return _PIPE_CLOSED
    except OSError as error:  # what was left to write cannot be written
        _silence_stdout()
        return _unwritten(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _guarded(words: list[str], *, own: bool) -> int:
    call = _Call(None if own else words)
    try:
        return call.run(words)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        if _reader_left(error):
            raise BrokenPipeError from error
        from cli.render.errors import report

        sys.stdout.flush()
        return report(error, debug=call.debug, form=call.error_format, stream=sys.stderr)


def _reader_left(error: BaseException) -> bool:
    """Whether ``error`` came from writing to a pipe that nobody reads any more."""
    link: BaseException | None = error
    for _ in range(20):
        if link is None:
            return False
        if isinstance(link, BrokenPipeError):
            return True
        link = link.__cause__
    return False


class _Call:
    """One command line on its way; what error reporting needs is known as soon as it has been read."""

    def __init__(self, given: list[str] | None) -> None:
        self.debug = False
        self.error_format = "text"
        self._given = given

    def run(self, words: list[str]) -> int:
        args = parse(_GLOBAL, words)
        self._note(args)
        if args.on("version"):
            from cli.commands.version import short_version

            sys.stdout.write(f"{short_version()}\n")
            return 0
        if not args.words or args.on("help") or args.words == ("help",):
            from cli.help import main_help

            sys.stdout.write(f"{main_help()}\n")
            return 0
        rest = list(args.words)
        if rest[0] == "help":
            rest = [*rest[1:], "--help"]
        found = find(rest)
        if found is None:
            return _unknown(rest)
        verb, taken = found
        command = _load(verb)
        own = parse(command, rest[taken:])
        self._note(own)
        if own.on("help"):
            from cli.help import command_help

            sys.stdout.write(f"{command_help(command)}\n")
            return 0
        return self._carry_out(command, args, own)

    def _note(self, args: Args) -> None:
        self.debug = self.debug or args.on("debug")
        chosen = args.text("error-format")
        if chosen not in ("", "text", "json"):
            raise UsageError(f"unknown error format {chosen!r}", hint="text and json are known")
        self.error_format = chosen or self.error_format

    def _carry_out(self, command: Command, outer: Args, own: Args) -> int:
        if self._given is None:
            import_pathlib()
            postpone_methods()
        from cli.app import App
        from cli.process import WITHOUT_RIGHTS, enter_namespace, prepare, with_room
        from cli.settings import Settings

        settings = Settings.load(
            root=own.text("root") or outer.text("root"),
            config_dir=own.text("config") or outer.text("config"),
        )
        self.debug = self.debug or settings.traced
        if command.name not in WITHOUT_RIGHTS:
            inside = enter_namespace(settings, command.name, self._given)
            if inside is not None:
                return inside
            prepare()
        _prepare_output()
        app: App
        with (
            with_room(settings, command.name),
            App(settings, debug=self.debug, error_format=self.error_format) as app,
        ):
            try:
                return command.run(app, own)
            except PybuildError as error:
                error.exit_status = _status_for(command, error)
                raise


def _status_for(command: Command, error: PybuildError) -> int:
    """125 is what run, create and exec end with when it is not the command's own status; for them only."""
    if error.code == "not-a-tty":
        return 1
    if command.usage_status == _ENGINE_FAILED:
        return _ENGINE_FAILED if error.exit_status in (1, 2) and command.name != "exec" else error.exit_status
    if error.exit_status == _ENGINE_FAILED:
        return 2 if error.code == "invalid-option" else 1
    return error.exit_status


def _load(verb: str) -> Command:
    from importlib import import_module

    commands: tuple[Command, ...] = import_module(module_of(verb)).COMMANDS
    return next(command for command in commands if command.name == verb)


def _unknown(words: list[str]) -> int:
    from cli.commands import SUMMARIES
    from cli.help import group_help
    from cli.suggest import did_you_mean

    first = words[0]
    group = " ".join(words[:2]) if " ".join(words[:2]) in GROUPS else first
    if group in GROUPS:
        rest = words[1 + group.count(" ") :]
        if not rest or rest[0] in ("--help", "-h"):
            sys.stdout.write(f"{group_help(group)}\n")
            return 0
        hint = did_you_mean(rest[0], GROUPS[group])
        raise UsageError(
            f"'{group} {rest[0]}' is not a pybuild command{hint}", hint=f"See 'pybuild {group} --help'"
        )
    verbs = (*(name for name in SUMMARIES if " " not in name), *GROUPS)
    raise UsageError(
        f"'{first}' is not a pybuild command{did_you_mean(first, verbs)}", hint="See 'pybuild --help'"
    )


def _prepare_output() -> None:
    """Names from images and archives may hold any bytes; they must not break a listing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _unwritten(error: OSError) -> int:
    try:
        sys.stderr.write(f"pybuild: cannot write to standard output: {error.strerror}\n")
        sys.stderr.flush()
    except OSError:
        pass
    return 1


def _silence_stdout() -> None:
    """The interpreter flushes stdout at its end; with the reader gone that must go nowhere."""
    import os

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)


if __name__ == "__main__":
    raise SystemExit(main())
