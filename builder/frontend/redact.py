"""Credentials in URLs are never shown, stored in history or made part of a name (CVE-2023-26054)."""

from __future__ import annotations

import re
from typing import Any


def redact(text: str) -> str:
    """``text`` with user and password of http(s) URLs, and passwords of others, replaced."""
    if "@" not in text or "://" not in text:
        return text
    text = re.sub(r"(https?://)[^/\s@]+@", r"\1xxxxx@", text, flags=re.IGNORECASE)
    return re.sub(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^/\s@:]*):[^/\s@]+@", r"\1:xxxxx@", text)


def redact_values(value: Any) -> Any:
    """``redact`` for every text in JSON-like data."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_values(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_values(item) for key, item in value.items()}
    return value
