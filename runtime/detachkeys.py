"""The keys that leave a container without stopping it: as users write them, and found in what is typed."""

from __future__ import annotations

from runtime.errors import ContainerError

DEFAULT = b"\x10\x11"
"""ctrl-p ctrl-q."""


class DetachKeys:
    """Finds a key sequence in what is typed, across reads; what is not part of it is passed on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to pass on, whether the sequence is complete)."""
        if not self._keys:
            return data, False
        data = self._held + data
        self._held = b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or single characters, comma-separated; empty text = no detaching."""
    if not text:
        return b""
    keys = bytearray()
    for word in text.split(","):
        name = word.strip().lower()
        if len(word) == 1:
            keys += word.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and ("a" <= name[5] <= "z" or name[5] in "@[\\]^_"):
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise ContainerError(
                f"invalid detach keys {text!r}", hint="for example ctrl-p,ctrl-q", code="usage"
            )
    return bytes(keys)
