"""Credentials in URLs are never shown, stored in history or made part of a name (CVE-2023-26054)."""

from __future__ import annotations

import re


def redact(text: str) -> str:
    """``text`` with user and password of http(s) URLs, and passwords of others, replaced."""
    if "@" not in text or "://" not in text:
        return text
    text = re.sub(r"(https?://)[^/\s@]+@", r"\1xxxxx@", text, flags=re.IGNORECASE)
    return re.sub(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^/\s@:]*):[^/\s@]+@", r"\1:xxxxx@", text)
