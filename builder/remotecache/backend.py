"""What a place for caches must be able to do, and which kinds there are.

To add a kind, write a module of this package with two functions,

    def importer(spec: CacheSpec, access: Access) -> CacheImporter
    def exporter(spec: CacheSpec, access: Access) -> CacheExporter

(one of them may raise UsageError), and name it in ``KINDS``. Both check the attributes and must not reach out
yet: what they raise is the user's mistake and ends the build before it starts. ``spec.attrs`` is all they
know of the user; environment variables are turned into attributes by the command line. A place that keeps an
image manifest beside its blobs uses ``documents``; one that only has files by name writes
``config.to_bytes(details=True)``, in which every layer carries its own descriptor, and reads it with
``cacheread.from_json``. Blobs are named by digest. Whoever calls checks digest and size of what ``fetch``
writes, serialises calls for one blob, and may call from several threads. Failures are PybuildErrors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, Protocol

from builder.cache.cacheconfig import CacheConfig
from builder.errors import UsageError
from builder.oci.descriptor import Descriptor
from builder.registry.hosts import RegistryConfig
from builder.remotecache.spec import CacheSpec

KINDS = {
    "registry": "builder.remotecache.registry",
    "local": "builder.remotecache.local",
    "s3": "builder.remotecache.s3",
    "azblob": "builder.remotecache.azblob",
    "gha": "builder.remotecache.gha",
}
Say = Callable[[str], None]
"""Takes the name of something that was done, for the progress display."""
OnBytes = Callable[[int], None]


class Sink(Protocol):
    """Takes the bytes of one blob in order."""

    def write(self, data: bytes, /) -> object: ...


class CacheImporter(Protocol):
    """A cache to look results up in."""

    label: str
    """What to call it, after ``importing cache manifest from``."""
    mounts: bool
    """Whether cache mounts that it holds are wanted."""

    def load(self, say: Say) -> tuple[CacheConfig, ...]:
        """The documents that are there, without their blobs; () when there is nothing."""
        ...

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """Write a blob to ``sink``."""
        ...


class CacheExporter(Protocol):
    """A place to put a cache."""

    name: str
    """The name of the step, like ``exporting cache to registry``."""
    workers: int
    """How many blobs it takes at once."""

    def load(self, say: Say) -> tuple[CacheConfig, ...]:
        """What an earlier export left there, to be merged with ours; () when there is nothing."""
        ...

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there already."""
        ...

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        """Bring a blob there."""
        ...

    def turn(self) -> AbstractContextManager[bool]:
        """One export after another, around the last ``load`` and ``publish``: True where others are kept
        out meanwhile, False where they cannot be.
        """
        ...

    def publish(self, config: CacheConfig, say: Say) -> Descriptor | None:
        """Make ``config``, whose blobs are all there, what the place holds; the descriptor of its manifest
        where there is one.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What places may use besides their attributes."""

    registry: RegistryConfig


def importer(spec: CacheSpec, access: Access) -> CacheImporter:
    """The cache that ``--cache-from`` names. Raises UsageError."""
    found: CacheImporter = _module(spec, "importer").importer(spec, access)
    return found


def exporter(spec: CacheSpec, access: Access) -> CacheExporter:
    """The place that ``--cache-to`` names. Raises UsageError."""
    found: CacheExporter = _module(spec, "exporter").exporter(spec, access)
    return found


def _module(spec: CacheSpec, what: str) -> Any:
    if spec.type == "inline" and what == "importer":
        raise UsageError("an inline cache is imported with its image", hint="use type=registry,ref=IMAGE")
    if spec.type not in KINDS:
        raise UsageError(f"unknown cache {what}: {spec.type!r}", hint=f"known: {', '.join(sorted(KINDS))}")
    return import_module(KINDS[spec.type])
