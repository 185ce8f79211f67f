"""Writing a block blob of Azure Storage: in one request, or as blocks and the list of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Protocol

from builder.remotecache.content import Content

Pairs = tuple[tuple[str, str], ...]
PART_BYTES = 64 << 20
_MAX_BLOCKS = 50_000


class Put(Protocol):
    """Sends a PUT to the blob with a query and headers."""

    def __call__(
        self, query: Pairs, headers: Pairs, content: Content, on_sent: Callable[[int], None]
    ) -> None: ...


def write(put: Put, content: Content, on_bytes: Callable[[int], None]) -> None:
    """Make or replace the blob. Raises what ``put`` raises."""
    if content.size <= PART_BYTES:
        put((), (("x-ms-blob-type", "BlockBlob"),), content, on_bytes)
        return
    names = []
    done = 0
    for number, part in enumerate(content.parts(max(PART_BYTES, -(-content.size // _MAX_BLOCKS)))):
        name = base64.b64encode(f"{number:06}".encode()).decode()
        put((("comp", "block"), ("blockid", name)), (), part, _from(done, on_bytes))
        names.append(name)
        done += part.size
    items = "".join(f"<Latest>{name}</Latest>" for name in names)
    listed = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'
    put((("comp", "blocklist"),), (), Content.of(listed.encode()), lambda _: None)


def _from(start: int, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    return lambda sent: on_bytes(start + sent)
