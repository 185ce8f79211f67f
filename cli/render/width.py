"""How wide text is on a terminal."""

from __future__ import annotations


def display_width(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    from unicodedata import combining, east_asian_width

    if combining(char):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """``text`` cut to ``columns``; ``...`` at its end says so."""
    if display_width(text) <= columns:
        return text
    room = max(0, columns - 3)
    if text.isascii():
        return text[:room] + "..."[:columns]
    out, used = [], 0
    for char in text:
        used += _char_width(char)
        if used > room:
            break
        out.append(char)
    return "".join(out) + "..."[:columns]
