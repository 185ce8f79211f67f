"""Carries out Go templates over plain data: dicts, lists, text, numbers, None.

A ``Struct`` is a dict that Go would hold as a struct: it prints as its values in braces. Other dicts print as
``map[...]`` with sorted keys. What is not there prints as ``<no value>``.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, assert_never

from cli.render.template import (
    Block,
    Expr,
    Field,
    Jump,
    Literal,
    Name,
    Node,
    Pipe,
    Show,
    TemplateError,
    Text,
    Variable,
    parse,
)

NO_VALUE = "<no value>"


class Struct(dict[str, Any]):
    """A dict whose keys are fields, in their order."""


class _Missing:
    """What a field that does not exist gives."""


MISSING = _Missing()


class _Jumped(Exception):
    def __init__(self, kind: str) -> None:
        self.kind = kind


class Template:
    """A template that was read; ``render`` may be called for many values."""

    def __init__(self, text: str) -> None:
        self._nodes = parse(text)

    def render(self, value: Any) -> str:
        """The text for ``value``; raises TemplateError when the template does not fit it."""
        out: list[str] = []
        try:
            _Run(out, {"$": value}).nodes(self._nodes, value)
        except _Jumped as jump:
            raise TemplateError(f"Template parsing error: {jump.kind} outside range") from None
        except RecursionError:
            raise TemplateError("Template parsing error: nested too deeply") from None
        return "".join(out)


class _Run:
    def __init__(self, out: list[str], variables: dict[str, Any]) -> None:
        self._out = out
        self._variables = variables

    def nodes(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            match node:
                case Text():
                    self._out.append(node.text)
                case Show():
                    value = self._pipe(node.pipe, dot)
                    if node.pipe.declares:
                        self._variables[node.pipe.declares[0]] = value
                    else:
                        self._out.append(go_text(value))
                case Block():
                    self._block(node, dot)
                case Jump():
                    raise _Jumped(node.kind)
                case _:
                    assert_never(node)

    def _block(self, node: Block, dot: Any) -> None:
        value = self._pipe(node.pipe, dot)
        if node.kind == "range":
            self._range(node, value, dot)
            return
        if node.pipe.declares:
            self._variables[node.pipe.declares[0]] = value
        if truth(value):
            self.nodes(node.body, value if node.kind == "with" else dot)
        else:
            self.nodes(node.other, dot)

    def _range(self, node: Block, value: Any, dot: Any) -> None:
        pairs = _pairs(value)
        if not pairs:
            self.nodes(node.other, dot)
            return
        for key, item in pairs:
            names = node.pipe.declares
            if len(names) == 2:
                self._variables[names[0]] = key
            if names:
                self._variables[names[-1]] = item
            try:
                self.nodes(node.body, item)
            except _Jumped as jump:
                if jump.kind == "break":
                    return

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value: Any = MISSING
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, (value,) if number else ())
        return value

    def _command(self, command: tuple[Expr, ...], dot: Any, piped: tuple[Any, ...]) -> Any:
        head = command[0]
        if isinstance(head, Name):
            if head.name in ("and", "or"):
                return self._logic(head.name, command[1:], dot, piped)
            function = FUNCTIONS.get(head.name)
            if function is None:
                raise TemplateError(f'Template parsing error: function "{head.name}" not defined')
            arguments = [self._value(expr, dot) for expr in command[1:]]
            return _call(head.name, function, (*arguments, *piped))
        if len(command) > 1 or piped:
            raise TemplateError("Template parsing error: can't give argument to non-function")
        return self._value(head, dot)

    def _logic(self, name: str, operands: tuple[Expr, ...], dot: Any, piped: tuple[Any, ...]) -> Any:
        value: Any = MISSING
        for operand in operands:
            value = self._value(operand, dot)
            if truth(value) == (name == "or"):
                return value
        return piped[0] if piped else value

    def _value(self, expr: Expr, dot: Any) -> Any:
        match expr:
            case Literal():
                return expr.value
            case Field():
                return follow(dot if expr.base is None else self._value(expr.base, dot), expr.path)
            case Variable():
                if expr.name not in self._variables:
                    raise TemplateError(f"Template parsing error: undefined variable {expr.name!r}")
                return self._variables[expr.name]
            case Pipe():
                return self._pipe(expr, dot)
            case Name():
                return self._command((expr,), dot, ())
            case _:
                assert_never(expr)


def follow(value: Any, path: Iterable[str]) -> Any:
    """The value under a path of field names, MISSING when there is none."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def truth(value: Any) -> bool:
    """Go's idea of empty: false, 0, nil, nothing in it."""
    if isinstance(value, Struct):
        return True
    return value is not MISSING and bool(value)


def go_text(value: Any) -> str:
    """A value as Go prints it."""
    if value is MISSING or value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct):
        return "{" + " ".join(_inner(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(_inner, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else go_text(value)


def to_json(value: Any) -> str:
    """Compact JSON; the keys of maps sorted, those of structs in their order."""
    return json.dumps(_sorted(value), separators=(",", ":"), ensure_ascii=False)


def _sorted(value: Any) -> Any:
    if value is MISSING:
        return None
    if isinstance(value, dict):
        keys = value if isinstance(value, Struct) else sorted(value)
        return {key: _sorted(value[key]) for key in keys}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(min(value, 1_000_000))]
    if value is MISSING or value is None:
        return []
    raise TemplateError(f"Template parsing error: range can't iterate over {go_text(value)}")


def _call(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise TemplateError(f"Template parsing error: error calling {name}: {error}") from error


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, MISSING)
        elif isinstance(value, (list, tuple, str)):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise TemplateError(f"Template parsing error: error calling index: index out of range: {key}")
            value = value[key]
        elif value is MISSING or value is None:
            raise TemplateError("Template parsing error: error calling index: index of untyped nil")
        else:
            raise TemplateError(f"Template parsing error: error calling index: can't index {go_text(value)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    start, end = (*bounds, *(0, len(value))[len(bounds) :])[:2]
    if not 0 <= start <= end <= len(value):
        raise TemplateError("Template parsing error: error calling slice: index out of range")
    return value[start:end]


def _printf(form: str, *arguments: Any) -> str:
    import re

    rest = list(arguments)

    def one(match: re.Match[str]) -> str:
        flags, verb = match[1], match[2]
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb in "vs":
            return f"%{flags}s".replace("+", "").replace("#", "") % go_text(value)
        if verb == "q":
            return json.dumps(go_text(value), ensure_ascii=False)
        if verb == "t":
            return go_text(bool(value))
        if verb == "T":
            return type(value).__name__
        return str(f"%{flags}{verb}" % value)

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", one, form)


def _pad(text: str, before: int, after: int) -> str:
    return text if not text else " " * before + text + " " * after


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda one, *others: any(one == other for other in others),
    "ge": operator.ge,
    "gt": operator.gt,
    "html": lambda value: __import__("html").escape(go_text(value)),
    "index": _index,
    "join": lambda items, separator: separator.join(map(go_text, items)),
    "json": to_json,
    "le": operator.le,
    "len": len,
    "lower": lambda value: go_text(value).lower(),
    "lt": operator.lt,
    "ne": operator.ne,
    "not": lambda value: not truth(value),
    "pad": _pad,
    "print": lambda *values: "".join(map(go_text, values)),
    "printf": _printf,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "slice": _slice,
    "split": lambda text, separator: text.split(separator),
    "title": lambda value: go_text(value).title(),
    "truncate": lambda text, length: text[:length],
    "upper": lambda value: go_text(value).upper(),
}
