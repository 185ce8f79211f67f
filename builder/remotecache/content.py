"""Bytes on their way to a service: read again for each try, whole or in parts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from builder.oci.descriptor import Descriptor
from builder.registry.http import Body

_CHUNK = 1 << 20
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """``size`` bytes from ``start`` on of what ``opener`` gives; ``known`` is their sha256, if known."""

    opener: Callable[[], BinaryIO]
    size: int
    start: int = 0
    known: str = ""

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Bytes at hand."""
        return cls(opener=lambda: io.BytesIO(data), size=len(data), known=hashlib.sha256(data).hexdigest())

    @classmethod
    def of_blob(cls, blob: Descriptor, opener: Callable[[], BinaryIO]) -> Content:
        """A blob, whose name is its digest."""
        known = blob.digest.hex if blob.digest.algorithm == "sha256" else ""
        return cls(opener=opener, size=blob.size, known=known)

    def open(self) -> BinaryIO:
        """A reader at the first byte."""
        file = self.opener()
        if self.start:
            file.seek(self.start)
        return file

    def body(self, on_sent: Callable[[int], None] | None = None) -> Body:
        """As a request takes it."""
        return Body(open=self.open, size=self.size, on_sent=on_sent)

    def parts(self, size: int) -> Iterator[Content]:
        """In pieces of ``size`` bytes."""
        for offset in range(0, self.size, size):
            yield Content(opener=self.opener, size=min(size, self.size - offset), start=self.start + offset)

    def sha256(self) -> str:
        """Their digest, in hex."""
        if self.known or not self.size:
            return self.known or _EMPTY_SHA256
        digest, left = hashlib.sha256(), self.size
        with self.open() as file:
            while left and (data := file.read(min(_CHUNK, left))):
                digest.update(data)
                left -= len(data)
        return digest.hexdigest()
