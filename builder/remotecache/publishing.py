"""The last step of an export: the document is written so that exports at the same time keep each other's
records (RCH-15).

Between reading what is there and writing the sum of it, somebody else may have written. A place that can keep
others out is read again under its lock. Elsewhere the document is read again right before it is written and
once more afterwards: whose records went missing adds them again. What is left is the time of a few requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from builder.cache.cacheconfig import CacheConfig
from builder.cache.cachegraph import GraphBuilder
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.remotecache.backend import CacheExporter, Say

_TRIES = 5

Previous = Sequence[CacheConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """``load`` reads what is there (() when it is not to be kept), ``merge`` adds this build's cache to it,
    ``upload`` brings blobs there.
    """

    exporter: CacheExporter
    load: Callable[[], Previous]
    merge: Callable[[Previous], CacheConfig]
    upload: Callable[[Iterable[Descriptor]], None]

    def run(self, config: CacheConfig, previous: Previous, say: Say) -> Descriptor | None:
        """Publish ``config``, which was merged with ``previous`` and whose blobs were uploaded; the last
        descriptor that was written. Raises BlobMissing and what the place raises.
        """
        sent = _digests(config)
        written: Descriptor | None = None
        for _ in range(_TRIES):
            with self.exporter.turn() as alone:
                found = self.load()
                if found and found != previous:
                    config, previous = self.merge(found), found
                self._complete(config, sent, look=alone)
                written = self.exporter.publish(config, say)
            if alone:
                break
            previous = self.load()
            if not previous or holds(previous, config):
                break
            config = self.merge(previous)
            self._complete(config, sent, look=False)
        return written

    def _complete(self, config: CacheConfig, sent: set[Digest], *, look: bool) -> None:
        """Upload what is not there; ``look`` also for what was, which a ``reset`` may have removed."""
        missing = [
            blob
            for blob in config.blobs()
            if blob.digest not in sent or (look and not self.exporter.has(blob))
        ]
        if missing:
            self.upload(missing)
        sent |= _digests(config)


def holds(there: Previous, config: CacheConfig) -> bool:
    """Whether every key and result of ``config`` is in what is there, or a newer result of the same key."""
    alone, both = GraphBuilder(), GraphBuilder()
    for known in there:
        alone.add_config(known)
        both.add_config(known)
    both.add_config(config)
    mounts = {mount.id for known in there for mount in known.mounts}
    return both.config() == alone.config() and all(mount.id in mounts for mount in config.mounts)


def _digests(config: CacheConfig) -> set[Digest]:
    return {blob.digest for blob in config.blobs()}
