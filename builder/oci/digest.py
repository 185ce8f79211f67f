"""Content digests: ``algorithm:hex``, checked at the type boundary (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from builder.errors import InvalidValue

try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]  # before 3.12
    except ImportError:  # an interpreter built without hashes of its own
        from hashlib import sha256 as _sha256

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


_SHORT = 64 << 10


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of bytes in memory. For a few of them it is not worth 2 ms to load OpenSSL (hashlib)."""
    if len(data) <= _SHORT and "hashlib" not in sys.modules:
        return str(_sha256(data).hexdigest())
    import hashlib

    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Digest:
    """A verified-by-grammar digest; never a path before it is checked here."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise InvalidValue(
                f"unsupported digest algorithm {self.algorithm!r}", hint="sha256 and sha512 are known"
            )
        if len(self.hex) != length or not _HEX.issuperset(self.hex):
            raise InvalidValue(
                f"invalid digest {self.algorithm}:{self.hex[:80]!r}: want {length} lower-case hex digits"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<64 hex>``; raises InvalidValue."""
        algorithm, colon, hexpart = text.partition(":")
        if not colon:
            raise InvalidValue(f"invalid digest {text[:80]!r}: want algorithm:hex")
        return cls(algorithm, hexpart)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of ``data``."""
        return cls("sha256", sha256_hex(data))

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType

    DiffId = NewType("DiffId", Digest)
    """Digest of a layer's uncompressed tar."""

    ChainId = NewType("ChainId", Digest)
    """Digest of a stack of layers (OCI image-spec, config.md, Layer ChainID)."""
else:  # typing would take a millisecond of every start
    DiffId = ChainId = lambda digest: digest


def chain_ids(diff_ids: tuple[DiffId, ...]) -> tuple[ChainId, ...]:
    """The chain id of every prefix of ``diff_ids``, lowest first."""
    chains: list[ChainId] = []
    for diff_id in diff_ids:
        if not chains:
            chains.append(ChainId(diff_id))
        else:
            chains.append(ChainId(Digest.of(f"{chains[-1]} {diff_id}".encode())))
    return tuple(chains)
