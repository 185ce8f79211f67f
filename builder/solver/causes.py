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
    "files",
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


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason. ``subject`` is the file, variable, option, image or step; texts are empty where there is
    nothing to say, and ``before`` and ``after`` are empty, too, where values may be secret.
    """

    kind: Kind
    subject: str = ""
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The cause as a line for people; it may hold unprintable characters of file names."""
        change = f"{_short(self.before)} -> {_short(self.after)}"
        known = bool(self.before or self.after)
        match self.kind:
            case "file-added" | "file-removed" | "file-changed":
                return f"{self.subject} {self.kind.removeprefix('file-')}"
            case "file-mode":
                return f"{self.subject} changed its mode: {change}"
            case "files":
                return f"{self.after} more files" if self.after else "files of the context changed"
            case "variable":
                return (
                    _variable(self) if known else f"variable {self.subject} changed (its value is not shown)"
                )
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
                return f"{self.after} changed"
            case "upstream":
                return f"it builds on {self.subject}, which changed"
            case "no-cache":
                return "--no-cache asked for it"
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
        found = {"kind": self.kind, "subject": self.subject, "before": self.before, "after": self.after}
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Cause | None:
        """Back from ``to_json``; None for a kind that this version does not know."""
        kind = data.get("kind", "")
        if kind not in _KINDS:
            return None
        return cls(kind, data.get("subject", ""), data.get("before", ""), data.get("after", ""))  # type: ignore[arg-type]


_WORDS = {"workdir": "WORKDIR", "user": "USER", "network": "the network", "platform": "the platform"}


def _variable(cause: Cause) -> str:
    if not cause.before:
        return f"variable {cause.subject} is new: {_short(cause.after)}"
    if not cause.after:
        return f"variable {cause.subject} is gone; it was {_short(cause.before)}"
    return f"variable {cause.subject} changed: {_short(cause.before)} -> {_short(cause.after)}"


def _base(cause: Cause) -> str:
    before, _, old = cause.before.partition("@")
    after, _, new = cause.after.partition("@")
    if before == after and old and new:
        return f"base image {after} moved: {old[:19]} -> {new[:19]}"
    return f"base image changed: {before or 'scratch'} -> {after or 'scratch'}"


def _short(text: str) -> str:
    """One line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
