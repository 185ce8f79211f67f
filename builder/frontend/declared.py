"""Hints about variables that are declared, but not where they are used (rows ARG-01, ARG-02, ARG-04)."""

from __future__ import annotations

from builder.frontend.errors import suggestion
from builder.frontend.instructions import Arg
from builder.frontend.platformargs import PLATFORM_ARGS
from builder.frontend.source import Span
from builder.frontend.stages import Stage, StageTable


def undeclared_hint(table: StageTable, name: str, span: Span, stage: Stage) -> str:
    """Why a stage does not know a variable at ``span``, "" when nothing declares it."""
    late = _line(stage.instructions, name, after=span.end)
    if late:
        return _late(name, late)
    line = _line(table.global_args, name)
    if line:
        return f"ARG {name} on line {line} is for FROM only: declare it again in this stage, with ARG {name}"
    if name in PLATFORM_ARGS:
        return f"declare it in this stage, with ARG {name}"
    for other in table.stages:
        line = _line(other.instructions, name)
        if line:
            return (
                f"ARG {name} on line {line} is of another stage: declare it in this one, too, with ARG {name}"
            )
    return ""


def late_global_hint(table: StageTable, name: str, span: Span) -> str:
    """Why the default of a global ARG, at ``span``, does not know a variable; "" = nothing declares it."""
    line = _line(table.global_args, name, after=span.end)
    return _late(name, line) if line else ""


def no_value_hint(name: str) -> str:
    """What is to be done about an ARG that is declared and has no value."""
    return f"ARG {name} has no value: give it a default, or build with --build-arg {name}=…"


def _late(name: str, line: int) -> str:
    return f"ARG {name} is declared on line {line}, after its use: move it up"


def undeclared_in_from_hint(table: StageTable, name: str) -> str:
    """Why a FROM does not know a variable, "" when nothing declares it."""
    for stage in table.stages:
        line = _line(stage.instructions, name)
        if line:
            return (
                f"ARG {name} is declared on line {line}, inside a stage: FROM sees only what stands before "
                "the first FROM"
            )
    return ""


def unused_hint(table: StageTable, name: str) -> str:
    """What a build argument that had no use may have meant."""
    declared = list(table.global_args)
    declared += [item for stage in table.stages for item in stage.instructions if isinstance(item, Arg)]
    names = {known for item in declared for known, _ in item.items}
    if name in names:
        return f"ARG {name} is declared, but the target does not use it"
    similar = suggestion(name, sorted(names)).strip(" ()")
    return f"{name}: {similar}" if similar else ""


def description(name: str, comments: tuple[str, ...]) -> str:
    """What the comments above a stage or an argument say about it: the line that begins with its name
    (LEX-12).
    """
    for comment in comments:
        word, _, rest = comment.partition(" ")
        if name and word.lower() == name.lower():
            return rest.strip()
    return ""


def _line(instructions: tuple[object, ...], name: str, after: int = 0) -> int:
    for item in instructions:
        if (
            isinstance(item, Arg)
            and item.at.span.start > after
            and any(name == known for known, _ in item.items)
        ):
            return item.at.span.start
    return 0
