"""What a target takes from whoever builds it: arguments, secrets and ssh agents (row SUB-04)."""

from __future__ import annotations

from typing import NamedTuple

from builder.frontend.convert.state import BuildState, StageState, Wanted
from builder.frontend.declared import description
from builder.frontend.errors import ExpansionProblem
from builder.frontend.instructions import Arg
from builder.frontend.source import Span
from builder.frontend.words import expand


class OutlineArg(NamedTuple):
    """A build argument that the target uses; ``value`` is what it is now, None = nothing."""

    name: str
    description: str
    value: str | None
    span: Span


class OutlineNeed(NamedTuple):
    """A secret or an ssh agent."""

    name: str
    required: bool
    span: Span


class Outline(NamedTuple):
    """A target and its parameters, each sorted by line; ``name`` is "" for an unnamed stage."""

    name: str
    description: str
    args: tuple[OutlineArg, ...]
    secrets: tuple[OutlineNeed, ...]
    ssh: tuple[OutlineNeed, ...]


def outline_of(build: BuildState, target: StageState) -> Outline:
    """The outline of a stage that was converted, and of all that it depends on."""
    stages = _reached(target)
    args: dict[str, OutlineArg] = {}
    from_outside: list[str] = []
    for stage in stages:
        for text in (stage.stage.base.image, stage.stage.base.platform or ""):
            from_outside += _names_in(build, text)
        for name, value, default, instruction in stage.declared:
            if default is None and name in build.global_names:
                from_outside.append(name)
            elif name not in args:
                at = instruction.at
                args[name] = OutlineArg(name, description(name, at.comments), value, at.span)
    _add_globals(build, from_outside, args)
    base = target.stage.base.at
    wanted = [item for stage in stages for item in stage.wanted]
    return Outline(
        target.stage.name,
        description(target.stage.name, base.comments),
        tuple(sorted(args.values(), key=lambda arg: arg.span.start)),
        _needs(wanted, "secret"),
        _needs(wanted, "ssh"),
    )


def _reached(target: StageState) -> list[StageState]:
    """The target, then its base, then what it copies from; each once."""
    found: dict[int, StageState] = {}
    stack = [target]
    while stack:
        stage = stack.pop()
        if id(stage) in found:
            continue
        found[id(stage)] = stage
        stack += [*reversed(stage.sources.values()), *([stage.base] if stage.base is not None else [])]
    return list(found.values())


def _add_globals(build: BuildState, names: list[str], args: dict[str, OutlineArg]) -> None:
    """Global arguments by name, and those that their defaults use; predefined ones are none of the file's."""
    defined: dict[str, tuple[Arg, str | None]] = {}
    for instruction in build.table.global_args:
        for name, default in instruction.items:
            defined[name] = (instruction, default)
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen or name not in defined:
            continue
        seen.add(name)
        instruction, default = defined[name]
        at = instruction.at
        value = build.global_env.get(name)
        args.setdefault(name, OutlineArg(name, description(name, at.comments), value, at.span))
        names += _names_in(build, default or "")


def _names_in(build: BuildState, text: str) -> list[str]:
    """The variables that a text may use, also those of a default that is not needed now."""
    if "$" not in text:
        return []
    names: set[str] = set()
    for env in (build.global_env, {}):
        try:
            found = expand(text, env, build.escape)
        except ExpansionProblem:
            continue
        names |= found.matched | found.unmatched
    return sorted(names)


def _needs(wanted: list[Wanted], kind: str) -> tuple[OutlineNeed, ...]:
    found: dict[str, OutlineNeed] = {}
    for item in wanted:
        if item.kind != kind:
            continue
        known = found.get(item.id)
        if known is None:
            found[item.id] = OutlineNeed(item.id, item.required, item.span)
        elif item.required and not known.required:
            found[item.id] = known._replace(required=True)
    return tuple(sorted(found.values(), key=lambda need: need.span.start))
