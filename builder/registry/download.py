"""One blob on its way here: where it stands, and whether the bytes are the right ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from builder.errors import DigestMismatch, RegistryError
from builder.oci.descriptor import Descriptor
from builder.registry.http import Pairs, Response
from builder.registry.retry import Temporary


class Sink(Protocol):
    """Takes the bytes of one blob in order."""

    def write(self, data: bytes, /) -> object: ...


class Download:
    """How far one blob has come; verifies size and digest."""

    def __init__(
        self, descriptor: Descriptor, sink: Sink, on_bytes: Callable[[int], None] | None, *, verify: bool
    ) -> None:
        self._descriptor = descriptor
        self._sink = sink
        self._on_bytes = on_bytes
        self._hash = hashlib.new(descriptor.digest.algorithm) if verify else None
        self.done = 0

    @property
    def complete(self) -> bool:
        return self.done >= self._descriptor.size and (self.done > 0 or self._descriptor.size == 0)

    def take(self, response: Response) -> None:
        """Write what the reply brings from where we are."""
        skip = self.done if response.status == 200 else 0
        if response.status == 206 and not _range_starts_at(response.header("Content-Range"), self.done):
            raise RegistryError(f"{response.request}: reply is for another range", request=response.request)
        name, size = self._descriptor.digest, self._descriptor.size
        for chunk in response.chunks():
            if skip:
                drop = min(skip, len(chunk))
                skip -= drop
                chunk = chunk[drop:]
            if self.done + len(chunk) > size:
                raise DigestMismatch(f"blob {name} is longer than its descriptor says ({size} bytes)")
            if chunk:
                self._sink.write(chunk)
                if self._hash is not None:
                    self._hash.update(chunk)
                self.done += len(chunk)
                if self._on_bytes is not None:
                    self._on_bytes(self.done)
        if self.done < size:
            raise Temporary(
                f"{response.request}: connection ended after {self.done} of {size} bytes",
                request=response.request,
            )

    def finish(self) -> None:
        """Raise DigestMismatch unless the bytes are those that were asked for."""
        if self._hash is not None and self._hash.hexdigest() != self._descriptor.digest.hex:
            raise DigestMismatch(
                f"blob {self._descriptor.digest}: received bytes have digest "
                f"{self._descriptor.digest.algorithm}:{self._hash.hexdigest()}"
            )


def range_header(offset: int) -> Pairs:
    """The header that asks for the rest of a blob."""
    return (("Range", f"bytes={offset}-"),) if offset else ()


def _range_starts_at(header: str, offset: int) -> bool:
    return header.strip().lower().replace("bytes ", "bytes=").startswith(f"bytes={offset}-")
