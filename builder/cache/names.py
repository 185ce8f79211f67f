"""How things in the state directory are named on disk, and the version of the keys of results."""

from __future__ import annotations

KEY_VERSION = 2
"""Part of every cache key and of every name under which something computed of a context is remembered."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def blob_path(digest: str) -> str:
    """Where a blob is, relative to the state directory."""
    algorithm, _, hexpart = digest.partition(":")
    return f"content/blobs/{algorithm}/{hexpart}"


def snapshot_path(number: int) -> str:
    """Where a snapshot is, relative to the state directory."""
    return f"snapshots/{base36(number)}"


def base36(number: int) -> str:
    """A row number as the text that names its directory: short, as mount options list hundreds."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def from_base36(text: str) -> int:
    """The row number of a snapshot id; -1, which no row has, for a text that is none."""
    if not text or len(text) > 12 or not set(_DIGITS).issuperset(text):
        return -1
    return int(text, 36)
