"""The parsed shape of a Dockerfile, before meaning: plain tuples that can be kept on disk between builds.

A caller that keeps ``Nodes.to_bytes()`` under the digest of the Dockerfile need not parse it again.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from builder.frontend.errors import SyntaxProblem
from builder.frontend.lines import Heredoc

FORMAT = 2
"""Version of the stored form; raise it when a field or the grammar changes."""


class Node(NamedTuple):
    """One instruction. ``form`` says how ``args`` were written: json, text, list, words or legacy."""

    name: str
    typed: str
    text: str
    first: int
    last: int
    flags: tuple[str, ...] = ()
    form: str = "text"
    args: tuple[str, ...] = ()
    kind: str = ""
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    child: Node | None = None


class Nodes(NamedTuple):
    """A whole file: its instructions, parser directives with their lines, and lines of LEX-06 warnings."""

    items: tuple[Node, ...]
    directives: tuple[tuple[str, str, int], ...] = ()
    empty_continuations: tuple[int, ...] = ()

    @property
    def escape(self) -> str:
        """The escape character in force."""
        return self.directive("escape") or "\\"

    def directive(self, name: str) -> str | None:
        """The value of a parser directive."""
        return next((value for key, value, _ in self.directives if key == name), None)

    def to_bytes(self) -> bytes:
        """A compact form for a cache."""
        return json.dumps([FORMAT, *self], separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Nodes:
        """The inverse of ``to_bytes``; raises SyntaxProblem when the bytes come from another version."""
        try:
            version, items, directives, empty = json.loads(data)
            if version != FORMAT:
                raise ValueError(f"version {version}")
            return cls(
                tuple(_node(item) for item in items),
                tuple((str(k), str(v), int(n)) for k, v, n in directives),
                tuple(int(n) for n in empty),
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise SyntaxProblem(f"stored parse of a Dockerfile is unusable: {error}") from error


def _node(value: list[Any]) -> Node:
    name, typed, text, first, last, flags, form, args, kind, comments, heredocs, child = value
    return Node(
        name,
        typed,
        text,
        first,
        last,
        tuple(flags),
        form,
        tuple(args),
        kind,
        tuple(comments),
        tuple(Heredoc(*item) for item in heredocs),
        _node(child) if child else None,
    )
