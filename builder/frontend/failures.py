"""Which word of a Dockerfile a failure of the build is about, when it is about one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.errors import PathNotFound, SolveError, SourceUnavailable, StepFailed
from builder.frontend.convert.remote import kind_of
from builder.frontend.errors import DockerfileError
from builder.frontend.instructions import Add, Copy, From, Instruction, Run
from builder.frontend.parser import Dockerfile
from builder.frontend.parts import Part, argument, text, value_of
from builder.frontend.paths import absolute
from builder.frontend.positions import Range
from builder.frontend.words import expand

_ANY = "\ue000"


class _Anything(dict[str, str]):
    """An environment in which every variable may stand for any text."""

    def get(self, _name: str, _default: object = None) -> str:
        return _ANY


def failed_range(dockerfile: Dockerfile, error: SolveError) -> Range | None:
    """Where the word stands that ``error`` is about: a source that is missing, an image that is not there."""
    for instruction in dockerfile.instructions:
        if instruction.at.span.start == error.first_line:
            part = _part(instruction, list(_links(error)), dockerfile.escape)
            return None if part is None else dockerfile.place(instruction, part)
    return None


def _links(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _part(instruction: Instruction, links: list[BaseException], escape: str) -> Part | None:
    missing = next((link.path for link in links if isinstance(link, PathNotFound)), None)
    unavailable = any(isinstance(link, SourceUnavailable) for link in links)
    match instruction:
        case From() if not any(isinstance(link, StepFailed) for link in links):
            return argument(0)
        case Copy() | Add() if missing is not None:
            word = _word_for(missing, instruction.sources, escape)
            return None if word is None else text(word)
        case Copy() | Add() if any(getattr(link, "code", "") == "bad-owner" for link in links):
            return value_of("chown")
        case Copy(from_=name) if unavailable and name:
            return value_of("from")
        case Add() if unavailable:
            remote = [source for source in instruction.sources if _is_remote(source)]
            return text(remote[0]) if len(remote) == 1 else None
        case Run() if unavailable:
            named = [nth for nth, name in enumerate(instruction.mount_sources) if name]
            return Part("field-value", named[0], "from") if len(named) == 1 else None
        case _:
            return None


def _is_remote(source: str) -> bool:
    try:
        return kind_of(source) is not None
    except DockerfileError:
        return False


def _word_for(path: str, words: tuple[str, ...], escape: str) -> str | None:
    """The word that ``path`` comes from, whatever its variables are; a lone word is what is meant."""
    for word in words:
        if _may_be(word, path, escape):
            return word
    return words[0] if len(words) == 1 else None


def _may_be(word: str, path: str, escape: str) -> bool:
    try:
        found = expand(word, _Anything(), escape).text
    except DockerfileError:
        return False
    for name in (found, found.partition("/./")[2]):  # --parents looks below the pivot
        pattern = re.escape(absolute("/", name)).replace(_ANY, ".*")
        if name and re.fullmatch(pattern, absolute("/", path), re.DOTALL):
            return True
    return False
