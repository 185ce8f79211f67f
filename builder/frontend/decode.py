"""Nodes → instructions: flags, argument counts and forms are checked here (sections 2, 5, 10 and 11).

Nothing is expanded yet, so whatever depends on a variable's value is checked later, in ``convert``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from builder.frontend.devices import parse_device
from builder.frontend.durations import parse_duration
from builder.frontend.errors import BadFlag, DockerfileError, SyntaxProblem, suggestion
from builder.frontend.flags import NO_FLAGS, Flags, Kind, parse_flags
from builder.frontend.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Origin,
    Pairs,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.frontend.lines import Heredoc, parse_heredoc
from builder.frontend.mounts import check_mounts
from builder.frontend.nodes import Node
from builder.frontend.parts import ARGUMENTS, END, KEYWORD, Part, argument, text, value_of
from builder.frontend.source import Span
from builder.oci.config import HealthCheck


def decode(node: Node, escape: str, filename: str) -> Instruction:
    """The instruction that ``node`` spells; raises DockerfileError with its lines."""
    at = Origin(
        Span(filename=filename, start=node.first, end=node.last), node.typed, node.text, node.comments
    )
    try:
        if node.name == "onbuild":
            return _onbuild(node, at, escape, filename)
        make, known = _DECODERS[node.name]
        ignored = node.name in _FLAGS_IGNORED or node.kind.upper() == "NONE"
        return make(node, at, NO_FLAGS if ignored else parse_flags(node.flags, known, escape))
    except DockerfileError as error:
        if not error.spans:
            error.locate(at)
            error.args = (f"dockerfile parse error on line {node.first}: {error.message}",)
            error.message = error.args[0]
        raise


def _from(node: Node, at: Origin, flags: Flags) -> From:
    words = node.args
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        message = "FROM requires either one or three arguments"
        raise SyntaxProblem(message, part=ARGUMENTS if words else END)
    platform = flags.text("platform") or None
    if len(words) == 1:
        return From(at, words[0], platform=platform)
    stage = words[2].lower()
    if not re.fullmatch(r"[a-z][a-z0-9\-_.]*", stage):
        raise SyntaxProblem(
            f'invalid name for build stage: "{words[2][:120]}", '
            "name can't start with a number or contain symbols",
            part=argument(2),
        )
    return From(at, words[0], stage, platform, words[1], words[2])


def _run(node: Node, at: Origin, flags: Flags) -> Run:
    command = _command(node)
    if not command.args:
        raise SyntaxProblem("RUN requires at least one argument", part=END)
    network, security = flags.text("network"), flags.text("security")
    if network not in ("", "default", "none", "host"):
        raise SyntaxProblem(
            f'invalid network mode "{network}"{suggestion(network, ("default", "none", "host"))}',
            part=value_of("network"),
        )
    if security not in ("", "sandbox", "insecure"):
        raise SyntaxProblem(
            f'security "{security}" is not valid{suggestion(security, ("sandbox", "insecure"))}',
            part=value_of("security"),
        )
    mounts = flags.list("mount")
    sources = check_mounts(mounts)
    devices = tuple(parse_device(device) for device in flags.list("device"))
    return Run(at, command, mounts, sources, network, security, devices)


def _copy(node: Node, at: Origin, flags: Flags) -> Copy:
    if flags.text("checksum"):
        raise SyntaxProblem("checksum can't be specified for COPY", part=Part("flag", name="checksum"))
    if "$" in flags.text("from"):
        raise BadFlag(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from "
            "global scope as a workaround",
            part=value_of("from"),
        )
    sources, heredocs, dest = _sources(node)
    return Copy(
        at,
        sources,
        dest,
        heredocs,
        flags.text("chown"),
        flags.text("chmod"),
        bool(flags.switch("link")),
        flags.list("exclude"),
        flags.text("from"),
        bool(flags.switch("parents")),
    )


def _add(node: Node, at: Origin, flags: Flags) -> Add:
    sources, heredocs, dest = _sources(node)
    return Add(
        at,
        sources,
        dest,
        heredocs,
        flags.text("chown"),
        flags.text("chmod"),
        bool(flags.switch("link")),
        flags.list("exclude"),
        flags.switch("keep-git-dir"),
        flags.text("checksum"),
        flags.switch("unpack"),
    )


def _sources(node: Node) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Source paths, here-documents and the destination of COPY and ADD."""
    name = node.name.upper()
    bodies = {heredoc.word: heredoc for heredoc in node.heredocs}
    args = node.args if node.form == "json" else _whole(node.args, bodies)
    if len(args) < 2:
        raise SyntaxProblem(
            f"{name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            part=END,
        )
    *sources, dest = args
    if dest in bodies or (node.form != "json" and bodies and parse_heredoc(dest)):
        raise SyntaxProblem(f"{name} cannot accept a heredoc as a destination", part=text(dest))
    if not bodies or node.form == "json":
        return tuple(sources), (), dest
    paths = tuple(source for source in sources if source not in bodies)
    return paths, tuple(bodies[source] for source in sources if source in bodies), dest


def _whole(args: tuple[str, ...], bodies: Iterable[str]) -> tuple[str, ...]:
    """Arguments with the words of here-documents in one piece: ``<<"a b"`` is one word (HDC-01)."""
    found = list(args)
    for word in bodies:
        parts = word.split()
        for start in range(len(found) - len(parts) + 1 if len(parts) > 1 else 0):
            if found[start : start + len(parts)] == parts:
                found[start : start + len(parts)] = [word]
                break
    return tuple(found)


def _command(node: Node) -> Command:
    if node.form == "json":
        return Command(node.args, shell=False)
    return Command(node.args, True, node.heredocs)


def _cmd(node: Node, at: Origin, _flags: Flags) -> Cmd:
    return Cmd(at, _command(node))


def _entrypoint(node: Node, at: Origin, _flags: Flags) -> Entrypoint:
    return Entrypoint(at, _command(node))


def _shell(node: Node, at: Origin, _flags: Flags) -> Shell:
    if not node.args:
        raise SyntaxProblem("SHELL requires at least one argument", part=ARGUMENTS)
    if node.form != "json":
        raise SyntaxProblem("SHELL requires the arguments to be in JSON form", part=ARGUMENTS)
    return Shell(at, node.args)


def _env(node: Node, at: Origin, _flags: Flags) -> Env:
    return Env(at, _pairs(node), node.form == "legacy")


def _label(node: Node, at: Origin, _flags: Flags) -> Label:
    return Label(at, _pairs(node), node.form == "legacy")


def _pairs(node: Node) -> Pairs:
    """SYN-09."""
    name = node.name.upper()
    if not node.args:
        raise SyntaxProblem(f"{name} requires at least one argument", part=END)
    if node.form == "legacy":
        key, value = node.args[0].split(None, 1)
        return ((key, value),)
    if "=" not in node.args[0]:
        raise SyntaxProblem(f"{name} must have two arguments", part=argument(0))
    pairs: list[tuple[str, str]] = []
    for index, word in enumerate(node.args):
        key, equals, value = word.partition("=")
        if not equals:
            raise SyntaxProblem(
                f'Syntax error - can\'t find = in "{word[:200]}". Must be of the form: name=value',
                part=argument(index),
            )
        if not key:
            raise SyntaxProblem(f"{name} names can not be blank", part=argument(index))
        pairs.append((key, value))
    return tuple(pairs)


def _arg(node: Node, at: Origin, _flags: Flags) -> Arg:
    if not node.args:
        raise SyntaxProblem("ARG requires at least one argument", part=END)
    items: list[tuple[str, str | None]] = []
    for index, word in enumerate(node.args):
        key, equals, value = word.partition("=")
        if not key:
            raise SyntaxProblem("ARG names can not be blank", part=argument(index))
        items.append((key, value if equals else None))
    return Arg(at, tuple(items))


def _expose(node: Node, at: Origin, _flags: Flags) -> Expose:
    if not node.args:
        raise SyntaxProblem("EXPOSE requires at least one argument", part=END)
    return Expose(at, tuple(sorted(node.args)))


def _volume(node: Node, at: Origin, _flags: Flags) -> Volume:
    if not node.args:
        raise SyntaxProblem("VOLUME requires at least one argument", part=ARGUMENTS)
    for index, path in enumerate(node.args):
        if not path.strip():
            raise SyntaxProblem("VOLUME specified can not be an empty string", part=argument(index))
    return Volume(at, tuple(path.strip() for path in node.args))


def _one(node: Node) -> str:
    if not node.args:
        raise SyntaxProblem(f"{node.name.upper()} requires exactly one argument", part=END)
    return node.args[0]


def _user(node: Node, at: Origin, _flags: Flags) -> User:
    return User(at, _one(node))


def _workdir(node: Node, at: Origin, _flags: Flags) -> Workdir:
    return Workdir(at, _one(node))


def _stopsignal(node: Node, at: Origin, _flags: Flags) -> StopSignal:
    return StopSignal(at, _one(node))


def _maintainer(node: Node, at: Origin, _flags: Flags) -> Maintainer:
    return Maintainer(at, _one(node))


def _healthcheck(node: Node, at: Origin, flags: Flags) -> Healthcheck:
    """MET-09."""
    kind = node.kind.upper()
    if not kind:
        raise SyntaxProblem("HEALTHCHECK requires at least one argument", part=END)
    if kind == "NONE":
        if node.args:
            raise SyntaxProblem("HEALTHCHECK NONE takes no arguments", part=ARGUMENTS)
        return Healthcheck(at, HealthCheck(test=("NONE",)))
    if kind != "CMD":
        raise SyntaxProblem(f'Unknown type "{node.kind}" in HEALTHCHECK (try CMD)', part=Part("type"))
    if not node.args:
        raise SyntaxProblem("Missing command after HEALTHCHECK CMD", part=END)
    test = ("CMD", *node.args) if node.form == "json" else ("CMD-SHELL", *node.args)
    check = HealthCheck(
        test=test,
        interval_ns=_interval(flags, "interval"),
        timeout_ns=_interval(flags, "timeout"),
        start_period_ns=_interval(flags, "start-period"),
        start_interval_ns=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )
    return Healthcheck(at, check)


def _interval(flags: Flags, name: str) -> int:
    given = flags.text(name)
    if not given:
        return 0
    part = value_of(name)
    value = parse_duration(given, part)
    if value != 0 and value < 1_000_000:
        message = f'Interval "{name}" cannot be less than 1ms'
        raise SyntaxProblem(message, hint=f"--{name} is {given[:80]}", part=part)
    return value


def _retries(given: str) -> int:
    if not given:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", given):
        raise SyntaxProblem(f'--retries: invalid number "{given[:80]}"', part=value_of("retries"))
    value = int(given)
    if value < 0:
        raise SyntaxProblem(f"--retries cannot be negative ({value})", part=value_of("retries"))
    return value


def _onbuild(node: Node, at: Origin, escape: str, filename: str) -> Onbuild:
    """ONB-01, ONB-03, HDC-10."""
    parse_flags(node.flags, {}, escape)
    child = node.child
    if child is None:
        raise SyntaxProblem("ONBUILD requires at least one argument", part=END)
    if child.name == "onbuild":
        message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
        raise SyntaxProblem(message, part=KEYWORD.of(child.text))
    if child.name in ("from", "maintainer"):
        message = f"{child.name.upper()} isn't allowed as an ONBUILD trigger"
        raise SyntaxProblem(message, part=KEYWORD.of(child.text))
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return Onbuild(at, child.text + bodies, decode(child, escape, filename))


_Decoder = tuple[Callable[[Node, Origin, Flags], Instruction], Mapping[str, Kind]]
_FLAGS_IGNORED = frozenset({"arg", "stopsignal"})
"""SYN-07; so are those of HEALTHCHECK NONE."""
_DECODERS: dict[str, _Decoder] = {
    "from": (_from, {"platform": "text"}),
    "run": (_run, {"mount": "list", "network": "text", "security": "text", "device": "list"}),
    "copy": (
        _copy,
        {
            "from": "text",
            "chown": "text",
            "chmod": "text",
            "link": "switch",
            "exclude": "list",
            "parents": "switch",
            "checksum": "text",
        },
    ),
    "add": (
        _add,
        {
            "chown": "text",
            "chmod": "text",
            "link": "switch",
            "keep-git-dir": "switch",
            "checksum": "text",
            "unpack": "switch",
            "exclude": "list",
        },
    ),
    "cmd": (_cmd, {}),
    "entrypoint": (_entrypoint, {}),
    "shell": (_shell, {}),
    "env": (_env, {}),
    "label": (_label, {}),
    "arg": (_arg, {}),
    "expose": (_expose, {}),
    "volume": (_volume, {}),
    "user": (_user, {}),
    "workdir": (_workdir, {}),
    "stopsignal": (_stopsignal, {}),
    "maintainer": (_maintainer, {}),
    "healthcheck": (
        _healthcheck,
        {
            "interval": "text",
            "timeout": "text",
            "start-period": "text",
            "start-interval": "text",
            "retries": "text",
        },
    ),
}
