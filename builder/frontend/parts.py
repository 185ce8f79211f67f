"""Names for the parts of an instruction: what an error or a warning is about.

Naming a part costs nothing; where it stands in the file is worked out by ``positions`` and only when asked.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "keyword",
    "flag",
    "flag-name",
    "flag-value",
    "field",
    "field-name",
    "field-value",
    "type",
    "argument",
    "arguments",
    "key",
    "value",
    "heredoc",
    "body",
    "body-line",
    "delimiter",
    "word",
    "end",
    "text",
    "variable",
    "directive",
    "directive-name",
]


class Part(NamedTuple):
    """A part of an instruction, or of a parser directive.

    ``nth`` counts parts of the same kind (and ``name``) from 0, or from the end when it is negative; the
    fields of a mount have that of their mount, and -1 is any. ``name`` is that of a flag, of a mount's field,
    of a variable or of a directive. ``text`` is the value as the instruction has it, without the quotes of
    flags and JSON strings; of kind ``text`` it is all that is known, and the first part with that value is
    meant. ``start`` and ``end`` cut a piece out of that value, in characters; ``end`` None is all of it.
    ``instruction`` is the text of the instruction that the part belongs to, "" for the last one of the line
    (see ONBUILD).
    """

    kind: Kind
    nth: int = 0
    name: str = ""
    text: str = ""
    start: int = 0
    end: int | None = None
    instruction: str = ""

    def of(self, instruction: str) -> Part:
        """The same part, and which instruction it belongs to, if that was not known."""
        return self if self.instruction else self._replace(instruction=instruction)


KEYWORD = Part("keyword")
"""The name of the instruction."""
END = Part("end")
"""Where the instruction ends, for what is missing there."""
ARGUMENTS = Part("arguments")
"""From the first argument to the last."""


def argument(index: int) -> Part:
    """One argument: a word, an item of a JSON array, or the rest of the line."""
    return Part("argument", index)


def value_of(flag: str, index: int = 0) -> Part:
    """The value of the ``nth``-th flag of that name."""
    return Part("flag-value", index, flag)


def field(key: str, kind: Kind = "field-value") -> Part:
    """A field of a mount; ``about`` says of which one."""
    return Part(kind, name=key)


def text(value: str, start: int = 0, end: int | None = None) -> Part:
    """The first part that has this value, or a piece of it."""
    return Part("text", text=value, start=start, end=end)


def variable(name: str) -> Part:
    """The first place where an instruction asks for a variable."""
    return Part("variable", name=name)


def directive(value: str) -> Part:
    """A piece of the value of a parser directive."""
    return Part("directive", text=value)
