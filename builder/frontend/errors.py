"""What can be wrong with a Dockerfile: each kind has a code, and names the lines it means (section 22)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import PybuildError
from builder.frontend.parts import Part
from builder.frontend.source import SourceFile, Span

if TYPE_CHECKING:
    from builder.frontend.instructions import Origin
    from builder.frontend.lint import LintWarning
    from builder.frontend.positions import Range


class DockerfileError(PybuildError):
    """A Dockerfile, or an option for building it, is wrong.

    ``spans`` are the line ranges to show, the main one first (DIA-04); ``source`` is the text they point
    into, set by whoever holds it. ``part`` names what is wrong in the first of them, and ``range`` is where
    that stands. ``warnings`` are the lint findings made before it; ``parsed`` says that the file could be
    read.
    """

    code = "dockerfile-error"

    def __init__(
        self,
        message: str,
        *,
        spans: tuple[Span, ...] = (),
        source: SourceFile | None = None,
        at: Origin | None = None,
        part: Part | None = None,
        context: tuple[str, ...] = (),
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, context=context, hint=hint, code=code)
        self.spans = spans
        self.source = source
        self.part = part
        if at is not None:
            self.locate(at)
        self.warnings: tuple[LintWarning, ...] = ()
        self.parsed = False

    def locate(self, at: Origin) -> None:
        """Say which instruction the error is about, if it does not know."""
        if not self.spans:
            self.spans = (at.span,)
            self.part = self.part and self.part.of(at.text)

    @property
    def span(self) -> Span | None:
        """The main line range."""
        return self.spans[0] if self.spans else None

    @property
    def range(self) -> Range | None:
        """What is wrong, to line and column; None when it is no part of a line, or the text is not known."""
        if self.source is None or self.part is None or not self.spans:
            return None
        from builder.frontend.positions import range_of  # for errors and tools only

        return range_of(self.source, self.spans[0], self.part)

    @property
    def source_lines(self) -> tuple[str, ...]:
        """All lines of the file that the spans point into."""
        return self.source.lines if self.source else ()


class SyntaxProblem(DockerfileError):
    """An instruction is not written as its grammar wants."""

    code = "dockerfile-syntax"


class UnknownInstruction(SyntaxProblem):
    """A line starts with a word that is no instruction."""

    code = "unknown-instruction"


class BadFlag(SyntaxProblem):
    """A flag is unknown, repeated, or has a bad value."""

    code = "bad-flag"


class ExpansionProblem(DockerfileError):
    """A ``$variable`` expression is malformed, or demands a value that is not there."""

    code = "expansion-problem"


class UnknownStage(DockerfileError):
    """A stage is named that does not exist, or not yet."""

    code = "unknown-stage"


class CircularStages(DockerfileError):
    """Stages need each other."""

    code = "circular-stages"


class EmptyDockerfile(DockerfileError):
    """There is nothing to build."""

    code = "empty-dockerfile"


class InvalidInstruction(DockerfileError):
    """An instruction is well formed, but what it asks cannot be done."""

    code = "invalid-instruction"


class BadOption(DockerfileError):
    """An option of the build (platform, epoch, named context, …) is malformed."""

    code = "bad-build-option"


def removed_switch(name: str) -> BadOption:
    """The error for a switch that builders once had (ARG-13)."""
    return BadOption(
        f'support for "{name}" was removed: files are always copied by the builder itself',
        code="removed-option",
        hint="leave it out",
    )


class LintViolation(DockerfileError):
    """``check=error=true`` and there are warnings (LNT-04)."""

    code = "lint-violation"


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """`` (did you mean X?)`` when a candidate is within two edits and none equal, else nothing (DIA-03).

    Case is no edit: what differs in case only is the nearest. The order of the candidates does not matter.
    """
    best: tuple[int, bool, int, str] = (3, False, 0, "")
    lowered = word.lower()
    letters = sorted(lowered)
    for candidate in candidates if word else ():
        if candidate == word:
            return ""
        other = candidate.lower()
        distance = edit_distance(lowered, other, 2)
        if distance < 3:
            # Of two that are equally near, the one with the same letters is what was meant.
            longer = abs(len(other) - len(lowered))
            best = min(best, (distance, sorted(other) != letters, longer, candidate))
    return f" (did you mean {best[-1]}?)" if best[-1] else ""


def edit_distance(one: str, other: str, limit: int) -> int:
    """Insertions, deletions and replacements between two words; ``limit`` + 1 stands for all that is more."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if same is None:
        return abs(len(one) - len(other))
    if limit == 0:
        return 1
    one, other = one[same:], other[same:]
    pairs = ((one[1:], other[1:]), (one[1:], other), (one, other[1:]))
    return 1 + min(edit_distance(a, b, limit - 1) for a, b in pairs)
