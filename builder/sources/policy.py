"""Source policies: which sources a build may use, and which are to be replaced by others (POL-01, POL-02).

A policy is a JSON document of rules. Everything here is a function of values. Matching takes bounded time
whatever the pattern and the identifier are: wildcards are matched without backtracking, regular expressions
that could backtrack without end are refused when the policy is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from builder.errors import InvalidValue, SourceUnavailable
from builder.sources.patternbound import check_bounded

MAX_BYTES = 4 << 20
MAX_ROUNDS = 20
Action = Literal["ALLOW", "DENY", "CONVERT"]
MatchType = Literal["WILDCARD", "EXACT", "REGEX"]
Condition = Literal["EQUAL", "NOTEQUAL", "MATCHES"]
Pairs = tuple[tuple[str, str], ...]
_ACTIONS = ("ALLOW", "DENY", "CONVERT")
_MATCH_TYPES = ("WILDCARD", "EXACT", "REGEX")
_CONDITIONS = ("EQUAL", "NOTEQUAL", "MATCHES")
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


class SourceDenied(SourceUnavailable):
    """A policy forbids a source (exit 3)."""

    code = "source-denied"
    exit_status = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A condition on one attribute of a source; an attribute that is not there is empty."""

    key: str
    value: str
    condition: Condition = "EQUAL"

    def holds(self, attrs: Mapping[str, str]) -> bool:
        """Whether a source with these attributes meets it."""
        found = attrs.get(self.key, "")
        if self.condition == "MATCHES":
            return _search(self.value, found) is not None
        return (found == self.value) is (self.condition == "EQUAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; ``new_identifier`` and ``new_attrs`` are what CONVERT puts in the place of the old ones."""

    action: Action
    identifier: str
    match_type: MatchType = "WILDCARD"
    constraints: tuple[Constraint, ...] = ()
    new_identifier: str = ""
    new_attrs: Pairs = ()

    def match(self, identifier: str, attrs: Mapping[str, str]) -> Callable[[str], str] | None:
        """None, or how to fill the captures of this match into a text."""
        if not all(constraint.holds(attrs) for constraint in self.constraints):
            return None
        if self.match_type == "REGEX":
            found = _search(self.identifier, identifier)
            return (
                None if found is None else _filler({**dict(enumerate(found.groups(), 1)), 0: found[0]}, found)
            )
        if self.match_type == "EXACT" or "*" not in self.identifier:
            return str if identifier == self.identifier else None
        captures = match_wildcard(self.identifier, identifier)
        return None if captures is None else _filler({0: identifier, **dict(enumerate(captures, 1))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one document; ``name`` is what messages call it."""

    rules: tuple[Rule, ...] = ()
    name: str = "source policy"

    @classmethod
    def parse(cls, data: bytes, name: str = "source policy") -> Policy:
        """Read a document; raises InvalidValue that names what is wrong."""
        if len(data) > MAX_BYTES:
            raise InvalidValue(f"{name}: larger than {MAX_BYTES} bytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidValue(f"{name}: not valid JSON: {error}") from error
        try:
            return cls(rules=_rules(value), name=name)
        except InvalidValue as error:
            raise InvalidValue(f"{name}: {error.message}", hint=error.hint) from error

    def judge(self, identifier: str, attrs: Mapping[str, str]) -> Judgement:
        """What the rules say: the first CONVERT with an effect, else the last ALLOW or DENY that matches."""
        denied = 0
        for number, rule in enumerate(self.rules, 1):
            fill = rule.match(identifier, attrs)
            if fill is None:
                continue
            if rule.action == "CONVERT":
                new = fill(rule.new_identifier) if rule.new_identifier else identifier
                merged = {**attrs, **dict(rule.new_attrs)}
                if (new, merged) != (identifier, dict(attrs)):
                    return Judgement(identifier=new, attrs=merged)
            else:
                denied = number if rule.action == "DENY" else 0
        if not denied:
            return Judgement()
        rule = self.rules[denied - 1]
        return Judgement(reason=f"rule {denied} of {self.name}: DENY {rule.identifier}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one policy says of a source: denied for a ``reason``, to be replaced, or (all empty) allowed."""

    reason: str = ""
    identifier: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)


def evaluate(
    judges: Iterable[Any], identifier: str, attrs: Pairs = (), *, one_form: bool = False
) -> tuple[str, Pairs]:
    """The source to use in the place of this one, often itself.

    ``judges`` have ``judge`` as ``Policy`` does and are asked in order; a replacement starts anew with the
    first. With ``one_form`` the first replacement of another scheme is given as it is: whoever asks has to
    read it as what it now is, and to ask again. Raises SourceDenied, and InvalidValue when replacing does not
    come to an end.
    """
    listed = tuple(judges)
    current, values = identifier, dict(attrs)
    for _ in range(MAX_ROUNDS + 1):
        for judge in listed:
            found: Judgement = judge.judge(current, values)
            if found.reason:
                raise _denied(identifier, current, found.reason)
            if found.identifier:
                other = found.identifier.partition("://")[0] != current.partition("://")[0]
                current, values = found.identifier, dict(found.attrs)
                if one_form and other:
                    return current, tuple(values.items())
                break
        else:
            return current, tuple(values.items()) if values != dict(attrs) else attrs
    raise InvalidValue(
        f'source "{identifier}" is converted by policy more than {MAX_ROUNDS} times',
        hint="a CONVERT rule must not match its own result",
        code="policy-loop",
    )


def match_wildcard(pattern: str, text: str) -> tuple[str, ...] | None:
    """What each ``*`` stands for, the first as long as possible; None when ``text`` does not match."""
    first, *middle, last = pattern.split("*")
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return None
    end = len(text) - len(last)
    captures: list[str] = []
    for part in reversed(middle):
        at = text.rfind(part, len(first), end)
        if at < 0:
            return None
        captures.append(text[at + len(part) : end])
        end = at
    return (text[len(first) : end], *reversed(captures))


def _denied(asked: str, current: str, reason: str) -> SourceDenied:
    context = (reason,) if asked == current else (f'"{asked}" was converted to it', reason)
    return SourceDenied(
        f'source "{current}" denied by policy: source denied by policy',
        context=context,
        hint="use another source, or change the policy",
    )


def _filler(groups: Mapping[Any, Any], found: re.Match[str] | None = None) -> Callable[[str], str]:
    named = found.groupdict() if found is not None else {}

    def value(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        return str((groups.get(int(name)) if name.isdigit() else named.get(name)) or "")

    return lambda text: _REFERENCE.sub(value, text)


def _search(pattern: str, text: str) -> re.Match[str] | None:
    check_bounded(pattern, len(text))
    return re.search(pattern, text)


# --- reading ----------------------------------------------------------------------------------------------


def _rules(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, dict):
        raise InvalidValue("want a JSON object with version and rules")
    version = value.get("version", 1)
    if version != 1:
        raise InvalidValue(f"version {str(version)[:40]} is not supported", hint='want "version": 1')
    _known(value, ("version", "rules"), "the policy")
    rules = value.get("rules") or []
    if not isinstance(rules, list):
        raise InvalidValue("rules must be a list")
    return tuple(_rule(rule, number) for number, rule in enumerate(rules, 1))


def _rule(value: Any, number: int) -> Rule:
    where = f"rule {number}"
    if not isinstance(value, dict):
        raise InvalidValue(f"{where} must be an object")
    _known(value, ("action", "selector", "updates"), where)
    action = _enum(value.get("action", 0), _ACTIONS, f"{where}: action")
    selector = value.get("selector")
    if not isinstance(selector, dict):
        raise InvalidValue(f"{where}: selector is missing")
    _known(selector, ("identifier", "matchType", "match_type", "constraints"), f"{where}: selector")
    kind = _enum(
        selector.get("matchType", selector.get("match_type", 0)), _MATCH_TYPES, f"{where}: matchType"
    )
    identifier = _text(selector.get("identifier"), f"{where}: selector.identifier")
    if not identifier:
        raise InvalidValue(f"{where}: selector.identifier is empty", hint='like "docker-image://*"')
    if kind == "REGEX":
        _check_regex(identifier, where)
    updates = value.get("updates") or {}
    if action == "CONVERT" and not (isinstance(updates, dict) and updates):
        raise InvalidValue(f"{where}: missing updates for convert rule")
    _known(updates, ("identifier", "attrs"), f"{where}: updates")
    attrs = updates.get("attrs") or {}
    if not isinstance(attrs, dict):
        raise InvalidValue(f"{where}: updates.attrs must be an object of texts")
    return Rule(
        action=cast("Action", action),
        identifier=identifier,
        match_type=cast("MatchType", kind),
        constraints=tuple(_constraint(item, where) for item in selector.get("constraints") or ()),
        new_identifier=_text(updates.get("identifier") or "", f"{where}: updates.identifier"),
        new_attrs=tuple((key, _text(item, f"{where}: attribute {key}")) for key, item in attrs.items()),
    )


def _constraint(value: Any, where: str) -> Constraint:
    if not isinstance(value, dict):
        raise InvalidValue(f"{where}: a constraint must be an object")
    _known(value, ("key", "value", "condition"), f"{where}: constraint")
    condition = _enum(value.get("condition", 0), _CONDITIONS, f"{where}: condition")
    text = _text(value.get("value") or "", f"{where}: value of a constraint")
    if condition == "MATCHES":
        _check_regex(text, where)
    key = _text(value.get("key"), f"{where}: key of a constraint")
    return Constraint(key=key, value=text, condition=cast("Condition", condition))


def _check_regex(pattern: str, where: str) -> None:
    try:
        check_bounded(pattern, 0)
    except InvalidValue as error:
        raise InvalidValue(f"{where}: {error.message}", hint=error.hint) from error


def _enum(value: Any, names: tuple[str, ...], where: str) -> str:
    """By name or by number."""
    if isinstance(value, str) and value.upper() in names:
        return value.upper()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    raise InvalidValue(f"{where} {str(value)[:40]!r} is not known", hint=f"want {', '.join(names)}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"{where} must be a text")
    return value


def _known(value: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in value:
        if name not in names:
            raise InvalidValue(
                f"{where} has an unknown key {name[:60]!r}", hint=f"known are {', '.join(names)}"
            )
