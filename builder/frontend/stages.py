"""The stage table: which instructions belong to which stage, and what a stage name means (section 5)."""

from __future__ import annotations

from typing import NamedTuple

from builder.frontend.errors import EmptyDockerfile, SyntaxProblem, UnknownStage, suggestion
from builder.frontend.instructions import Arg, From, Instruction
from builder.frontend.parser import Dockerfile
from builder.frontend.parts import KEYWORD


class Stage(NamedTuple):
    """One FROM and what follows it; ``name`` is "" for an unnamed stage, ``label`` what to call it."""

    number: int
    name: str
    label: str
    base: From
    instructions: tuple[Instruction, ...]


class StageTable(NamedTuple):
    """All stages in file order, and the ARGs before the first of them."""

    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, dockerfile: Dockerfile) -> StageTable:
        """Cut a Dockerfile into stages; raises DockerfileError."""
        global_args: list[Arg] = []
        groups: list[tuple[From, list[Instruction]]] = []
        for instruction in dockerfile.instructions:
            if isinstance(instruction, From):
                groups.append((instruction, []))
            elif groups:
                groups[-1][1].append(instruction)
            elif isinstance(instruction, Arg):
                global_args.append(instruction)
            else:
                span = instruction.at.span
                raise SyntaxProblem(
                    f"dockerfile parse error on line {span.start}: no build stage in current context",
                    at=instruction.at,
                    part=KEYWORD,
                    hint="the first instruction (except ARG) must be FROM",
                )
        if not groups:
            raise EmptyDockerfile("dockerfile contains no stages to build")
        stages = tuple(
            Stage(index, base.stage, base.stage or f"stage-{index}", base, tuple(items))
            for index, (base, items) in enumerate(groups)
        )
        return cls(tuple(global_args), stages)

    def earlier(self, name: str, before: int) -> Stage | None:
        """The last stage called ``name`` that stands before stage ``before`` (FRM-04)."""
        wanted = name.lower()
        for stage in reversed(self.stages[:before]):
            if stage.name and stage.name == wanted:
                return stage
        return None

    def later(self, name: str, start: int) -> Stage | None:
        """The first stage called ``name`` from stage ``start`` on."""
        wanted = name.lower()
        return next((stage for stage in self.stages[start:] if stage.name and stage.name == wanted), None)

    def target(self, name: str | None) -> Stage:
        """The stage to build: the last one, or the one called ``name`` (FRM-07); raises UnknownStage."""
        if not name:
            return self.stages[-1]
        found = self.earlier(name, len(self.stages))
        if found is None:
            hint = suggestion(name, self.names)
            raise UnknownStage(f'target stage "{name}" could not be found{hint}')
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names that stages have."""
        return tuple(stage.name for stage in self.stages if stage.name)
