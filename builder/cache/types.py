"""The values that the store's parts answer with (what they are asked for: ``protocols.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from builder.oci.config import ImageConfig
    from builder.oci.descriptor import Descriptor
    from builder.oci.digest import ChainId, Digest

    Driver = Literal["overlay", "native"]
    Sharing = Literal["shared", "private", "locked"]
    RecipeKind = Literal["layer", "diff", "image"]
else:  # typing would take a millisecond of every start
    Driver = RecipeKind = Sharing = str

OnWait = Callable[[], None]


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A file tree in the store (LCS-02). ``size`` is what it takes by itself, -1 while nobody has asked
    yet. A ``lazy`` one has no directory yet.
    """

    id: str
    parent: str | None
    kind: Literal["active", "committed"]
    chain_id: ChainId | None
    driver: Driver | Literal["lazy"]
    created_ns: int
    last_used_ns: int
    uses: int
    size: int
    description: str
    record_type: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the layer of a lazy snapshot is: that of ``source`` (``layer``), what makes the tree of ``source``
    out of the tree of ``lower`` (``diff``, None = the empty tree), or its own layer blob (``image``).
    """

    kind: RecipeKind
    source: str | None = None
    lower: str | None = None


@dataclass(frozen=True, slots=True)
class Active:
    """A snapshot that takes changes. ``lowers`` are topmost first; a native one has none: ``upper`` is a
    full copy.
    """

    id: str
    parent: str | None
    lowers: tuple[Path, ...]
    upper: Path
    work: Path | None
    driver: Driver
    userxattr: bool = False


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """Which key led to which snapshots (an output may be the empty tree: None).

    ``op`` is the digest of the operation without its inputs; ``parts`` the JSON-able tree that the key was
    made from, kept to explain a miss.
    """

    key: str
    op: str
    outputs: tuple[str | None, ...]
    name: str = ""
    created_ns: int = 0
    parts: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store. ``manifest`` is what its names point at and may be an index; ``config`` is the
    one for this machine's platform, and its digest is the ``id``. ``names`` have tags, ``digests`` are
    ``name@digest``.
    """

    id: Digest
    manifest: Descriptor
    config: ImageConfig
    names: tuple[str, ...]
    digests: tuple[str, ...]
    created_ns: int
