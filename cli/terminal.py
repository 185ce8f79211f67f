"""The user's terminal while a container uses it: raw mode, its size, and the keys that detach (row
IO-ATTACH-2).
"""

from __future__ import annotations

import os
import termios
from types import TracebackType
from typing import Any

from builder.errors import UsageError

DETACH_KEYS = "ctrl-p,ctrl-q"
_CTRL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def window_size(fd: int) -> tuple[int, int] | None:
    """Rows and columns of the terminal at ``fd``; None when it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return size.lines, size.columns


class RawMode:
    """While entered, the terminal at ``fd`` passes every key on as it is; restored at the end, however it
    ends.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawMode:
        self._saved = termios.tcgetattr(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the terminal back as it was; again does nothing."""
        if self._saved is not None:
            saved, self._saved = self._saved, None
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, saved)
            except termios.error:
                return


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``x,ctrl-]`` as the bytes a terminal sends. Raises UsageError."""
    out = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            out.append(ord(key))
            continue
        letter = key.removeprefix("ctrl-").lower()
        if not key.startswith("ctrl-") or len(letter) != 1:
            raise UsageError(f"invalid detach keys {text!r}", hint='like "ctrl-p,ctrl-q"')
        if "a" <= letter <= "z":
            out.append(ord(letter) - ord("a") + 1)
        elif letter in _CTRL:
            out.append(_CTRL[letter])
        else:
            raise UsageError(f"invalid detach keys {text!r}", hint='like "ctrl-p,ctrl-q"')
    return bytes(out)


class DetachScanner:
    """Finds the detach keys in what is typed; the beginning of them is held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were all typed (what follows them is dropped)."""
        if not self._keys:
            return data, False
        text = self._held + data
        found = text.find(self._keys)
        if found >= 0:
            self._held = b""
            return text[:found], True
        keep = next((n for n in range(len(self._keys) - 1, 0, -1) if text.endswith(self._keys[:n])), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False
