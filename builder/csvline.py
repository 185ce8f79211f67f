"""One line of comma-separated fields, in the form that Go reads: option values are written in it."""

from __future__ import annotations

from builder.errors import UsageError

_LOOSE = 'a quote inside a field that is not quoted (bare ")'
_OPEN = 'a quoted field that does not end (extraneous or missing ")'


def csv_fields(text: str, what: str) -> list[str]:
    """The fields; one in double quotes may hold commas, and quotes as ``""``. Raises UsageError."""
    if '"' not in text and "\n" not in text:
        return text.split(",")
    fields: list[str] = []
    rest = text.removesuffix("\n").removesuffix("\r")
    more = True
    while more:
        if rest.startswith('"'):
            field, more, rest = _quoted(rest[1:], text, what)
        else:
            field, comma, rest = rest.partition(",")
            more = bool(comma)
            if '"' in field:
                raise _invalid(text, what, _LOOSE)
            if "\n" in field:
                raise _invalid(text, what, "more than one line")
        fields.append(field)
    return fields


def _quoted(rest: str, text: str, what: str) -> tuple[str, bool, str]:
    """The field that begins here, whether one more follows, and what is left."""
    field = ""
    while True:
        part, quote, rest = rest.partition('"')
        field += part
        if not quote:
            raise _invalid(text, what, _OPEN)
        if not rest or rest[0] == ",":
            return field, bool(rest), rest[1:]
        if rest[0] != '"':
            raise _invalid(text, what, _OPEN)
        field, rest = field + '"', rest[1:]


def _invalid(text: str, what: str, why: str) -> UsageError:
    return UsageError(f"invalid {what} {text[:200]!r}: {why}", hint='quote the whole field: "dest=a,b"')
