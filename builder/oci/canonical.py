"""The one way a value becomes bytes that are hashed or published as JSON."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def canonical_json(value: Any) -> bytes:
    """Compact JSON with sorted keys; text that is not UTF-8 travels as surrogate escapes in ``\\u`` form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def document_json(value: Any) -> bytes:
    """JSON as manifests and indexes are published: two-space indent, keys in the order given (EXP-06)."""
    return _utf8(json.dumps(value, indent=2, ensure_ascii=False))


def compact_json(value: Any) -> bytes:
    """Compact JSON in the order given, as image configs are published."""
    return _utf8(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _utf8(text: str) -> bytes:
    """Published JSON is UTF-8: bytes of a Dockerfile that are not become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).encode()
