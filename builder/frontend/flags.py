"""Instruction flags: ``--name=value`` words to checked values (rows SYN-05…07)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from builder.frontend.errors import BadFlag, suggestion
from builder.frontend.parts import Part, value_of

Kind = Literal["text", "switch", "list"]


class Flags(NamedTuple):
    """The flags given to one instruction."""

    texts: dict[str, str]
    switches: dict[str, bool]
    lists: dict[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """A flag's value, "" when absent."""
        return self.texts.get(name, "")

    def switch(self, name: str) -> bool | None:
        """A boolean flag, None when absent."""
        return self.switches.get(name)

    def list(self, name: str) -> tuple[str, ...]:
        """All values of a repeatable flag."""
        return self.lists.get(name, ())


NO_FLAGS = Flags({}, {}, {})


def parse_flags(words: tuple[str, ...], known: Mapping[str, Kind], escape: str) -> Flags:
    """Check ``words`` against the flags an instruction knows; raises BadFlag."""
    if not words:
        return NO_FLAGS
    found = Flags({}, {}, {})
    for index, word in enumerate(words):
        name, equals, value = plain_word(word, escape)[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            hint = suggestion(f"--{name}", (f"--{item}" for item in known))
            raise BadFlag(f"unknown flag: --{name}{hint}", part=Part("flag-name", index))
        if kind != "list" and (name in found.texts or name in found.switches):
            raise BadFlag(f"duplicate flag specified: --{name}", part=Part("flag", index))
        if (equals and not value) if kind == "switch" else not equals:
            raise BadFlag(f"missing a value on flag: --{name}", part=Part("flag", index))
        if kind == "switch":
            found.switches[name] = _switch(name, value)
        elif kind == "text":
            found.texts[name] = value
        else:
            found.lists[name] = (*found.lists.get(name, ()), value)
    return found


def _switch(name: str, value: str) -> bool:
    lowered = value.lower()
    if lowered in ("", "true"):
        return True
    if lowered == "false":
        return False
    raise BadFlag(f"expecting boolean value for flag --{name}, not: {value}", part=value_of(name))


def plain_word(word: str, escape: str) -> str:
    """The word without its quotes; the escape character makes the next one literal, in quotes too."""
    if escape not in word and '"' not in word and "'" not in word:
        return word
    out: list[str] = []
    quote = ""
    chars = iter(word)
    for char in chars:
        if char == escape:
            out.append(next(chars, ""))
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "\"'":
            quote = char
        else:
            out.append(char)
    return "".join(out)
