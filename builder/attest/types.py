"""One attestation, before the image that it is about is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.oci.descriptor import Descriptor

MAX_BYTES = 40 << 20
"""All attestations of one build together (ATT-11)."""

Predicate = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a statement is about."""

    name: str
    digest: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in a statement."""
        return {"name": self.name, "digest": dict(self.digest)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """A statement to be: ``name`` is that of its file.

    ``predicate`` makes its content for an image with these layers, lowest first; () for a result that is no
    image. ``subjects`` None are whatever is exported. ``inline_only`` ones go to images only.
    """

    name: str
    predicate_type: str
    predicate: Callable[[Sequence[Descriptor]], Predicate] = field(compare=False)
    subjects: tuple[Subject, ...] | None = None
    inline_only: bool = False
