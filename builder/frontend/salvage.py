"""What can still be said of a Dockerfile that has mistakes (SUB-07)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from builder.frontend.errors import DockerfileError
from builder.frontend.lint import Linter, LintWarning, lint_config, lint_text
from builder.frontend.parser import Dockerfile, parse
from builder.frontend.stages import StageTable

T = TypeVar("T")
MAX_MISTAKES = 100


def best_effort(data: bytes, filename: str, use: Callable[[Dockerfile], T]) -> tuple[T, DockerfileError]:
    """``use`` of the file without the instructions that are wrong, and the first mistake.

    An instruction that is wrong is left blank, so that all others keep their lines. Raises that mistake when
    it is none of single lines, or when there are too many. For files of which it is known that they have one.
    """
    first: DockerfileError | None = None
    for _ in range(MAX_MISTAKES):
        try:
            found = use(parse(data, filename))
        except DockerfileError as error:
            first = first or error
            left = _without(data, error)
            if left is None:
                break
            data = left
        else:
            assert first is not None
            return found, first
    assert first is not None
    raise first


def written_warnings(
    data: bytes, filename: str, mistake: DockerfileError, build_args: Mapping[str, str]
) -> tuple[LintWarning, ...]:
    """The warnings about how a file is written up to the mistake in it (SUB-05)."""
    if mistake.span is None:
        return ()
    before = b"".join(line + b"\n" for line in data.split(b"\n")[: mistake.span.start - 1])
    try:
        dockerfile = parse(before, filename)
        linter = Linter(lint_config(dockerfile, build_args), dockerfile.instructions)
        lint_text(linter, dockerfile, StageTable.of(dockerfile))
    except DockerfileError:
        return ()
    return linter.warnings


def _without(data: bytes, error: DockerfileError) -> bytes | None:
    """The text with the lines that ``error`` means left blank; None when that does not help."""
    if error.span is None:
        return None
    lines = data.split(b"\n")
    wrong = lines[error.span.start - 1 : error.span.end]
    if not any(line.strip() for line in wrong):
        return None
    if wrong[0].lower().split(None, 1)[:1] == [b"from"]:
        return None  # what follows would belong to another stage
    lines[error.span.start - 1 : error.span.end] = [b""] * len(wrong)
    return b"\n".join(lines)
