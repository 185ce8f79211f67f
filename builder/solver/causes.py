"""Why a step had to run: one difference between what it was made of and what an earlier step was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "file-added",
    "file-removed",
    "file-changed",
    "file-mode",
    "file-type",
    "file-renamed",
    "ignored",
    "unignored",
    "files",
    "argument",
    "variable",
    "command",
    "shell",
    "workdir",
    "user",
    "mount",
    "network",
    "secret",
    "option",
    "value",
    "platform",
    "base",
    "source",
    "upstream",
    "no-cache",
    "new",
    "gone",
    "unfinished",
    "unstable",
    "version",
]
_KINDS = frozenset(get_args(Kind))
_SHOWN = 200
_LONG = 60
_FIELDS = ("kind", "subject", "before", "after", "note")


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason. ``subject`` is the file, variable, option, image or step; texts are empty where there is
    nothing to say, and ``before`` and ``after`` are empty, too, where values may be secret. ``note`` says
    where it comes from, when that is known.
    """

    kind: Kind
    subject: str = ""
    before: str = ""
    after: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """The cause as a line for people; it may hold unprintable characters of file names."""
        return self._what() + (f" ({self.note})" if self.note else "")

    def _what(self) -> str:
        change = _change(self.before, self.after)
        known = bool(self.before or self.after)
        match self.kind:
            case "file-added" | "file-removed" | "file-changed":
                return f"{self.subject} {self.kind.removeprefix('file-')}"
            case "file-mode":
                return f"{self.subject} changed its mode: {change}"
            case "file-type":
                return f"{self.subject} is a {self.after} now, it was a {self.before}"
            case "file-renamed":
                return f"{self.before} is now {self.subject}"
            case "ignored":
                return f"{self.subject} is left out now"
            case "unignored":
                return f"{self.subject} is no longer left out"
            case "files":
                return f"{self.after} more files" if self.after else "files of the context changed"
            case "argument":
                return _variable(self, "build argument")
            case "variable":
                return _variable(self, "variable")
            case "command":
                return f"the instruction changed: {change}"
            case "shell":
                return f"SHELL changed: {change}"
            case "workdir" | "user" | "network" | "platform":
                return f"{_WORDS[self.kind]} changed: {change}"
            case "mount" | "option":
                return f"{self.subject} changed" + (f": {change}" if known else "")
            case "value":
                return f"{self.subject} changed" + (f": {change}" if known else "")
            case "secret":
                return f"the secrets that it is given changed: {change}"
            case "base":
                return _base(self)
            case "source":
                if self.subject == self.after:
                    return f"it takes {self.after} now, not {self.before}"
                return f"{self.subject} changed" + (f": {self.before[:19]} -> {self.after[:19]}" * known)
            case "upstream":
                if self.before:
                    return f"it builds on {_name(self.subject)} now, not on {_name(self.before)}"
                return f"it builds on {_name(self.subject)}, which changed"
            case "no-cache":
                return f"{self.subject or 'its definition'} asked for it"
            case "new":
                return "it was never built before"
            case "gone":
                return "its earlier result is no longer in the cache"
            case "unfinished":
                return "it did not succeed the last time"
            case "unstable":
                return "files changed while an earlier build was reading them"
            case "version":
                return "this version of pybuild computes cache keys in another way"

    def to_json(self) -> dict[str, str]:
        """As kept in the history; empty texts are left out."""
        return {name: value for name in _FIELDS if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Cause | None:
        """Back from ``to_json``; None for a kind that this version does not know."""
        kind = data.get("kind", "")
        if kind not in _KINDS:
            return None
        return cls(**{name: data.get(name, "") for name in _FIELDS})  # type: ignore[arg-type]


_WORDS = {"workdir": "WORKDIR", "user": "USER", "network": "the network", "platform": "the platform"}


def _variable(cause: Cause, what: str) -> str:
    name = f"{what} {cause.subject}"
    if not cause.before and not cause.after:
        return f"{name} changed; its value is not shown"
    if not cause.before:
        return f"{name} is new: {_short(cause.after)}"
    if not cause.after:
        return f"{name} is gone; it was {_short(cause.before)}"
    return f"{name} changed: {_change(cause.before, cause.after)}"


def _base(cause: Cause) -> str:
    before, _, old = cause.before.partition("@")
    after, _, new = cause.after.partition("@")
    if before == after and old and new and old != new:
        return f"base image {after} moved: {old[:19]} -> {new[:19]}"
    if cause.before == cause.after:
        return f"base image {after} " + ("was not downloaded, or is not now" if new else "has other layers")
    return f"base image changed: {before or 'scratch'} -> {after or 'scratch'}"


def _change(before: str, after: str) -> str:
    """Two texts in one line; of long ones only the part in which they differ, from word to word."""
    old, new = " ".join(before.split()), " ".join(after.split())
    if old == new:  # they differ in white space alone
        old, new = repr(before), repr(after)
    if max(len(old), len(new)) > _LONG:
        old, new = _differing(old, new)
    return f"{_short(old)} -> {_short(new)}"


def _differing(old: str, new: str) -> tuple[str, str]:
    """What two texts do not share at their ends, with a word of what they do."""
    one, other = old.split(" "), new.split(" ")
    shortest = min(len(one), len(other))
    head = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    rest = shortest - head
    tail = next((i for i in range(rest) if one[-1 - i] != other[-1 - i]), rest)
    start, end = max(0, head - 1), max(0, tail - 1)
    return _cut(one, start, end), _cut(other, start, end)


def _cut(words: list[str], start: int, end: int) -> str:
    middle = words[start : len(words) - end]
    return " ".join([*(["..."] if start else []), *middle, *(["..."] if end else [])])


def _name(step: str) -> str:
    """A step's name, long enough to find it; an image's without its digest."""
    kind, is_source, source = step.partition("://")
    if is_source and kind in ("docker-image", "oci-layout"):
        return source.partition("@")[0]
    return step if len(step) <= _LONG + 12 else f"{step[:_LONG]}..."


def _short(text: str) -> str:
    """One line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
