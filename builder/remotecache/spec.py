"""One ``--cache-from`` or ``--cache-to``, as a value (RCH-05, RCH-08, RCH-09, OPT-17)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as described

from builder.errors import UsageError
from builder.exporter.types import csv_fields
from builder.remotecache.attributes import check_attribute

Pairs = tuple[tuple[str, str], ...]
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """A place for caches: its kind, and attributes in the order given."""

    type: str
    attrs: Pairs = described(default=(), repr=False)
    """Some are secrets: they appear in no message."""

    @classmethod
    def parse(cls, text: str) -> tuple[CacheSpec, ...]:
        """Read buildx' form: ``type=local,src=x``, or references of registries. Raises UsageError."""
        try:
            fields = [field for field in csv_fields(text, "cache") if field.strip()]
        except UsageError:
            raise UsageError(
                f"invalid cache {shown(text)!r}", hint="quote a value that has a comma"
            ) from None
        if fields and all("=" not in field for field in fields):
            return tuple(cls(type="registry", attrs=(("ref", field.strip()),)) for field in fields)
        attrs: dict[str, str] = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                stray = field if shown(text) == text else "***"  # a secret may have had a comma
                raise UsageError(f"invalid value {stray!r} in cache {shown(text)!r}", hint="want key=value")
            attrs[key.strip().lower()] = value
        kind = attrs.pop("type", "")
        if not kind:
            raise UsageError(
                f"type required in cache {shown(text)!r}", hint="for example type=registry,ref=NAME"
            )
        for key in attrs:
            check_attribute(kind, key, show=shown(text) == text)
        return (cls(type=kind, attrs=tuple(attrs.items())),)

    def attr(self, key: str, default: str = "") -> str:
        """One attribute's value."""
        return dict(self.attrs).get(key, default)

    def on(self, key: str, *, default: bool = False) -> bool:
        """A switch. Raises UsageError for a value that is none."""
        value = self.attr(key)
        if not value:
            return default
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise UsageError(f"non-bool value for {key}: {value!r}", hint="true or false")

    def needed(self, key: str) -> str:
        """An attribute that must be there. Raises UsageError."""
        value = self.attr(key)
        if not value:
            raise UsageError(f"{self.type} cache requires {key}")
        return value

    @property
    def mode(self) -> str:
        """``min`` or ``max`` (RCH-04). Raises UsageError."""
        value = self.attr("mode", "min")
        if value not in ("min", "max"):
            raise UsageError(f"unknown cache mode {value!r}", hint="min or max")
        return value

    @property
    def level(self) -> int | None:
        """The compression level asked for. Raises UsageError."""
        value = self.attr("compression-level")
        if not value:
            return None
        if re.fullmatch(r"[0-9]{1,3}", value) is None:
            raise UsageError(f"invalid compression-level {value!r}", hint="want a whole number")
        return int(value)


def shown(text: str) -> str:
    """A cache as it was given, without secrets: from the first one on nothing is shown."""
    found = re.search(r"(?i)(secret_access_key|token)\s*=", text)
    return f"{text[: found.end()]}***" if found else text


def parse_all(texts: Iterable[str]) -> tuple[CacheSpec, ...]:
    """Several of them, each place once."""
    return tuple(dict.fromkeys(spec for text in texts if text for spec in CacheSpec.parse(text)))
