"""Quoting and ``${variable:-expansion}`` (section 4 of the rows).

``expand`` gives one word, ``expand_words`` several (EXP-10). Modes (EXP-11) are keyword switches:

- ``raw_quotes`` keeps quotes in the result,
- ``raw_escapes`` keeps escape characters in the result,
- ``skip_unset`` leaves references to unset variables as typed,
- ``no_quotes`` treats quotes as ordinary characters (bodies of here-documents).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from builder.frontend.errors import ExpansionProblem
from builder.frontend.parts import text as piece
from builder.frontend.patterns import remove_prefix, remove_suffix, replace_pattern

MAX_VALUE = 16 * 1024 * 1024
MAX_DEPTH = 100
_SPECIAL = frozenset("@*#?-$!0")
_NO_NAMES: frozenset[str] = frozenset()


class Expanded(NamedTuple):
    """The text, and the variable names that were found and not found in the environment."""

    text: str
    matched: frozenset[str] = _NO_NAMES
    unmatched: frozenset[str] = _NO_NAMES


def expand(
    text: str,
    env: Mapping[str, str],
    escape: str = "\\",
    *,
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    skip_unset: bool = False,
    no_quotes: bool = False,
) -> Expanded:
    """Expand one word; raises ExpansionProblem."""
    if is_plain(text, escape):
        return Expanded(text)
    machine = _Expander(text, env, escape, raw_quotes, raw_escapes, skip_unset, no_quotes)
    machine.words = _NO_WORDS
    return Expanded(machine.run(), frozenset(machine.matched), frozenset(machine.unmatched))


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> tuple[tuple[str, ...], Expanded]:
    """Expand and split: blanks outside quotes separate, also those that come out of unquoted variables."""
    machine = _Expander(text, env, escape, False, False, False, False)
    joined = machine.run()
    found = Expanded(joined, frozenset(machine.matched), frozenset(machine.unmatched))
    return tuple(machine.words.finish()), found


def find_variable(
    text: str, name: str, escape: str = "\\", *, no_quotes: bool = False
) -> tuple[int, int] | None:
    """Where a word first asks for a variable: from the ``$`` to the end of the name, or its brace."""
    machine = _Expander(text, _Probe(name), escape, False, False, False, no_quotes)
    try:
        machine.run()
    except _Asked:
        end = machine.pos
        start = max(text.rfind(f"${name}", 0, end), text.rfind(f"${{{name}", 0, end))
        braces = text[start + 1] == "{"
        after = start + len(name) + 1 + braces
        return start, after + (braces and text.startswith("}", after))
    except ExpansionProblem:
        pass
    return None


class _Asked(Exception):
    """The variable that is looked for."""


class _Probe(dict[str, str]):
    """An environment in which everything is set, and that says when one variable is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, name: str, _default: object = None) -> str:
        if name == self.name:
            raise _Asked
        return "x"


def is_plain(text: str, escape: str = "\\") -> bool:
    """Whether expansion would leave ``text`` as it is, whatever the environment."""
    return "$" not in text and '"' not in text and "'" not in text and escape not in text


class _Words:
    """Collects words while the text is read (EXP-10)."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._parts: list[str] = []
        self._started = False

    def add(self, text: str) -> None:
        """Unquoted text: blanks end a word."""
        for index, part in enumerate(_split(text)):
            if index:
                self._end()
            if part:
                self.keep(part)

    def keep(self, text: str) -> None:
        """Quoted or escaped text: belongs to the word, blanks included."""
        self._started = True
        self._parts.append(text)

    def _end(self) -> None:
        if self._started:
            self._done.append("".join(self._parts))
            self._parts = []
            self._started = False

    def finish(self) -> list[str]:
        self._end()
        return self._done


class _NoWords(_Words):
    """For text that is one word whatever it holds."""

    def add(self, text: str) -> None:
        pass

    def keep(self, text: str) -> None:
        pass


def _split(text: str) -> list[str]:
    return "".join(" " if c.isspace() else c for c in text).split(" ")


_NO_WORDS = _NoWords()


class _Expander:
    """Reads one text from left to right; each method consumes what it is named for."""

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        escape: str,
        raw_quotes: bool,
        raw_escapes: bool,
        skip_unset: bool,
        no_quotes: bool,
    ) -> None:
        self.text = text
        self.env = env
        self.escape = escape
        self.raw_quotes = raw_quotes
        self.raw_escapes = raw_escapes
        self.skip_unset = skip_unset
        self.no_quotes = no_quotes
        self.pos = 0
        self.depth = 0
        self.size = 0
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()
        self.words: _Words = _Words()

    def run(self) -> str:
        try:
            return self._until("", self.raw_escapes, self.words)
        except ExpansionProblem as error:
            shown = self.text if len(self.text) <= 200 else self.text[:200] + "…"
            quoted = shown.replace("\\", "\\\\").replace('"', '\\"')
            error.message = f'failed to process "{quoted}": {error.message}'
            error.args = (error.message,)
            error.part = error.part or piece(self.text)
            raise

    def _until(self, stop: str, raw_escapes: bool, words: _Words) -> str:
        """Text up to ``stop`` (consumed), or to the end when ``stop`` is empty."""
        special = "$" + self.escape + stop + ("" if self.no_quotes else "\"'")
        out: list[str] = []
        text, end = self.text, len(self.text)
        while self.pos < end:
            char = text[self.pos]
            if char not in special:
                start = self.pos
                while self.pos < end and text[self.pos] not in special:
                    self.pos += 1
                out.append(text[start : self.pos])
                words.add(out[-1])
                continue
            if char == stop:
                self.pos += 1
                return "".join(out)
            if char == "$":
                value = self._dollar()
                words.add(value)
            elif char == self.escape:
                value = self._escaped(raw_escapes)
                words.keep(value)
            else:
                value = self._single() if char == "'" else self._double()
                words.keep(value)
            out.append(value)
            self._grow(value)
        if stop:
            raise ExpansionProblem(f"unexpected end of statement while looking for matching {stop}")
        return "".join(out)

    def _grow(self, value: str) -> None:
        self.size += len(value)
        if self.size > MAX_VALUE:
            raise ExpansionProblem(f"the expanded text is longer than {MAX_VALUE} characters")

    def _escaped(self, raw: bool) -> str:
        """The escape character outside quotes, and what follows (EXP-06)."""
        following = self.text[self.pos + 1 : self.pos + 2]
        self.pos += 2
        return self.escape + following if raw else following

    def _single(self) -> str:
        end = self.text.find("'", self.pos + 1)
        if end < 0:
            raise self._unclosed("single", self.pos)
        value = self.text[self.pos : end + 1] if self.raw_quotes else self.text[self.pos + 1 : end]
        self.pos = end + 1
        return value

    def _double(self) -> str:
        quote = '"' if self.raw_quotes else ""
        out = [quote]
        text, start, end = self.text, self.pos, len(self.text)
        self.pos += 1
        while self.pos < end:
            char = text[self.pos]
            if char == '"':
                self.pos += 1
                out.append(quote)
                return "".join(out)
            if char == "$":
                out.append(self._dollar())
                self._grow(out[-1])
                continue
            self.pos += 1
            if char == self.escape:
                following = text[self.pos : self.pos + 1]
                if following and following in '"$' + self.escape:
                    self.pos += 1
                    char = char + following if self.raw_escapes else following
            out.append(char)
        raise self._unclosed("double", start)

    def _unclosed(self, quote: str, start: int) -> ExpansionProblem:
        message = f"unexpected end of statement while looking for matching {quote}-quote"
        return ExpansionProblem(message, part=piece(self.text, start))

    def _dollar(self) -> str:
        start = self.pos
        self.pos += 1
        if self.text.startswith("{", self.pos):
            self.depth += 1
            self.pos += 1
            try:
                if self.depth > MAX_DEPTH:
                    raise ExpansionProblem(f"more than {MAX_DEPTH} substitutions inside each other")
                value = self._braces()
            except ExpansionProblem as error:
                error.part = error.part or piece(self.text, start, self.pos)
                raise
            self.depth -= 1
            return value
        name = self._name()
        if not name:
            return "$"
        found = self._lookup(name)
        if found is None:
            return "$" + name if self.skip_unset else ""
        return found

    def _name(self) -> str:
        """EXP-04."""
        text, start, end = self.text, self.pos, len(self.text)
        if start >= end:
            return ""
        if text[start].isdecimal():
            while self.pos < end and text[self.pos].isdecimal():
                self.pos += 1
        elif text[start] in _SPECIAL:
            self.pos += 1
        else:
            while self.pos < end and (text[self.pos].isalnum() or text[self.pos] == "_"):
                self.pos += 1
        return text[start : self.pos]

    def _lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def _braces(self) -> str:
        """After ``${`` up to and with the closing brace (EXP-01…05)."""
        text, start = self.text, self.pos
        following = text[start : start + 1]
        if not following:
            raise ExpansionProblem("syntax error: missing '}'")
        if following in "{}:":
            self.pos += 1
            raise ExpansionProblem("syntax error: bad substitution")
        name = self._name()
        operator = text[self.pos : self.pos + 1]
        self.pos += 1
        if not operator:
            raise ExpansionProblem("syntax error: missing '}'")
        if operator == "}":
            value = self._lookup(name)
            if value is None:
                return f"${{{name}}}" if self.skip_unset else ""
            return value
        if operator == ":":
            operator += text[self.pos : self.pos + 1]
            self.pos += 1
        value = self._lookup(name)
        if operator in ("+", "-", "?", ":+", ":-", ":?"):
            return self._default(name, value, operator, start)
        if operator in "#%":
            return self._trim(value, operator, start)
        if operator == "/":
            return self._replace(value, start)
        part = piece(text, self.pos - len(operator), self.pos)
        raise ExpansionProblem(f"unsupported modifier ({operator}) in substitution", part=part)

    def _word(self, stop: str, *, raw_escapes: bool) -> str:
        """What follows the operator; when the text ends first, that is what is wrong (EXP-05)."""
        try:
            return self._until(stop, raw_escapes, _NO_WORDS)
        except ExpansionProblem as error:
            if self.pos >= len(self.text) and "unexpected end" in error.message:
                missing = "'}'" if stop == "}" else "'/' in ${}"
                raise ExpansionProblem(f"syntax error: missing {missing}") from error
            raise

    def _default(self, name: str, value: str | None, operator: str, start: int) -> str:
        """``-``, ``+`` and ``?``, which say themselves what an unset variable means (EXP-02)."""
        word = self._word("}", raw_escapes=self.raw_escapes)
        if value is None and self.skip_unset:
            return "${" + self.text[start : self.pos]
        filled = bool(value) if operator[0] == ":" else value is not None
        match operator[-1]:
            case "+":
                return word if filled else ""
            case "-":
                return (value or "") if filled else word
            case _:
                if filled:
                    return value or ""
                problem = word or f"is not allowed to be {'unset' if value is None else 'empty'}"
                raise ExpansionProblem(f"{name}: {problem}")

    def _trim(self, value: str | None, operator: str, start: int) -> str:
        longest = self.text.startswith(operator, self.pos)
        if longest:
            self.pos += 1
        pattern = self._word("}", raw_escapes=True)
        if value is None:
            return "${" + self.text[start : self.pos] if self.skip_unset else ""
        remove = remove_prefix if operator == "#" else remove_suffix
        return remove(value, pattern, longest=longest)

    def _replace(self, value: str | None, start: int) -> str:
        everywhere = self.text.startswith("/", self.pos)
        if everywhere:
            self.pos += 1
        pattern = self._word("/", raw_escapes=True)
        replacement = self._word("}", raw_escapes=True)
        if value is None:
            return "${" + self.text[start : self.pos] if self.skip_unset else ""
        return replace_pattern(value, pattern, replacement, everywhere=everywhere)
