"""In which order stages may need each other."""

from __future__ import annotations

from builder.frontend.convert.state import StageState
from builder.frontend.errors import CircularStages, UnknownStage
from builder.frontend.instructions import Copy, Instruction, Origin, Run
from builder.frontend.mounts import mount_field
from builder.frontend.parts import Part, argument, value_of


def check_cycles(order: list[StageState]) -> None:
    """Refuse stages that need each other; every one of them is shown (FRM-08). Raises CircularStages."""
    done: set[int] = set()
    for start in order:
        path: list[StageState] = []
        stack: list[tuple[StageState, bool]] = [(start, False)]
        on_path: set[int] = set()
        while stack:
            stage, leaving = stack.pop()
            if leaving:
                path.pop()
                on_path.discard(id(stage))
                done.add(id(stage))
                continue
            if id(stage) in on_path:
                raise _circular(path[path.index(stage) :])
            if id(stage) in done:
                continue
            path.append(stage)
            on_path.add(id(stage))
            stack.append((stage, True))
            needs = [*stage.sources.values(), *([stage.base] if stage.base else [])]
            stack.extend((need, False) for need in needs)


def check_order(order: list[StageState]) -> None:
    """A stage is used only after it is defined (CPY-03, MNT-05); raises UnknownStage."""
    for stage in order:
        for instruction in stage.instructions:
            late = [
                name
                for name in _names(instruction)
                if name in stage.sources and not _before(stage.sources[name], stage)
            ]
            if not late or stage.replaced is not None:
                continue
            name = late[0]
            if isinstance(instruction, Run):
                target = mount_field(instruction.mounts[instruction.mount_sources.index(name)], "target")
                message = (
                    f'cannot mount from stage "{name}" to "{target}", '
                    "stage needs to be defined before current command"
                )
            else:
                message = (
                    f'cannot copy from stage "{name}", '
                    f'it needs to be defined before current stage "{stage.stage.label}"'
                )
            raise UnknownStage(message, at=instruction.at, part=_source_part(instruction, name))


def _circular(circle: list[StageState]) -> CircularStages:
    """The error for stages each of which needs the next, and the last the first: told from where the file
    begins to go wrong, with the line of every need.
    """
    first = min(range(len(circle)), key=lambda index: circle[index].stage.number)
    circle = circle[first:] + circle[:first]
    needs = [_need(one, other) for one, other in zip(circle, [*circle[1:], circle[0]], strict=True)]
    message = f"circular dependency detected on stage: {circle[0].stage.label}"
    at, part = needs[0]
    return CircularStages(
        message, spans=tuple(dict.fromkeys(need.span for need, _ in needs)), part=part.of(at.text)
    )


def _need(stage: StageState, other: StageState) -> tuple[Origin, Part]:
    """Where ``stage`` needs ``other``."""
    if stage.base is not other:
        for instruction in stage.instructions:
            for name in _names(instruction):
                if name and stage.sources.get(name) is other:
                    return instruction.at, _source_part(instruction, name)
    return stage.stage.base.at, argument(0)


def _source_part(instruction: Instruction, name: str) -> Part:
    """Where COPY or RUN names a stage or an image."""
    if isinstance(instruction, Run):
        return Part("field-value", instruction.mount_sources.index(name), "from")
    return value_of("from")


def _names(instruction: Instruction) -> tuple[str, ...]:
    if isinstance(instruction, Copy):
        return (instruction.from_,)
    return instruction.mount_sources if isinstance(instruction, Run) else ()


def _before(one: StageState, other: StageState) -> bool:
    return one.auto or one.stage.number < other.stage.number
