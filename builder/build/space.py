"""Keeps the build cache within its limits: around a build, and while one runs.

Before the first step, around every step and after every packed layer the cache is measured; when it exceeds
its limit, what nothing needs is removed, least valuable first. Between those moments a thread watches how
much the disk has lost since the last look, which costs one system call, so that a single step cannot write
far beyond the limit. When removing is not enough, the build stops and says what takes the space.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from builder.cache.limits import Policy, SpaceLimits, default_limits, disk, keep_target, size_text
from builder.cache.mirrors import unused_since
from builder.cancelling import Cancel
from builder.errors import Cancelled, PybuildError, StoreFull

if TYPE_CHECKING:
    from builder.cache.store import Store

_POLL_S = 0.05
_HIDDEN = 50_000_000
"""Bytes that a step can write between two looks without being seen, as others free more."""
_REST_NS = 60 * 1_000_000_000
_DOCS_NS = 60 * 86_400 * 1_000_000_000
_PASSING_NS = 48 * 3600 * 1_000_000_000
_LOOKED = "gc"


class Guard:
    """Checks one build against its limits; used by many threads. ``stop`` is the build's stop signal."""

    def __init__(self, store: Store, limits: SpaceLimits, stop: Cancel) -> None:
        self._store = store
        self._limits = limits
        self._stop = stop
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._free = 0
        self._headroom = 0
        self._lost = 0
        self.error: StoreFull | None = None

    def check(self) -> None:
        """Measure, and make room when need be. Raises StoreFull, code ``disk-limit``."""
        with self._lock:
            if self.error is not None:
                raise self.error
            try:
                self._measure()
            except StoreFull as error:
                self.error = error
                raise

    def watch(self) -> None:
        """Until the build is over: stop it when a step in progress uses up the room."""
        while not self._over.wait(_POLL_S):
            if not self._is_due():
                continue
            try:
                self.check()
            except StoreFull:
                self._stop.set()
                return
            except Cancelled:
                return
            except PybuildError:
                continue  # a busy store: the next round looks again

    def end(self) -> None:
        """The build is over."""
        self._over.set()

    def _is_due(self) -> bool:
        """Whether, since the last measure, the disk may have lost what there was room for. What others free
        hides what a step writes at the same time.
        """
        free = disk(self._store.root)[1]
        lost, self._free = self._free - free, free
        self._lost += lost if lost >= 0 else _HIDDEN
        return self._lost > self._headroom

    def _measure(self) -> None:
        used = _Use(self._store, self._limits)
        vain = 0
        while not used.fits:  # other builds take at once what becomes free: only a look at the end decides
            self._stop.check()
            freed = _make_room(self._store, self._limits, used.unfinished)
            used = _Use(self._store, self._limits)
            vain = 0 if freed else vain + 1
            if vain > 1 and not used.fits:
                raise _exceeded(self._store, self._limits, used)
        self._free, self._headroom, self._lost = used.free, used.headroom, 0


class _Use:
    """What the cache takes at one moment: rows, and what is only half there yet."""

    def __init__(self, store: Store, limits: SpaceLimits) -> None:
        from builder.cache.usage import look, measure

        self.kept = look(store, measure(store))
        self.unfinished = _unfinished(f"{store.root}/tmp")
        self.total = self.kept.total + self.unfinished
        self.free = disk(store.root)[1]
        self._target = keep_target(limits, self.total, self.free)
        self._limits = limits

    @property
    def fits(self) -> bool:
        """Whether the limits hold."""
        short = self._limits.min_free > self.free and self.total > self._limits.reserved
        return self.total <= self._target and not short

    @property
    def headroom(self) -> int:
        """How much the disk may lose before it is time to look again."""
        rooms = []
        if self._limits.max_used:
            rooms.append(self._target - self.total)
        if self._limits.min_free:
            rooms.append(max(self.free - self._limits.min_free, self._limits.reserved - self.total))
        return min(rooms)


@contextlib.contextmanager
def guarded(store: Store, limits: SpaceLimits | None, asked: Cancel) -> Iterator[tuple[Guard | None, Cancel]]:
    """A guard for what happens inside, and the stop signal to use there; none without limits."""
    if limits is None or not (limits.max_used or limits.min_free):
        yield None, asked
        return
    stop = Cancel()
    forget = asked.on_set(stop.set)
    guard = Guard(store, limits, stop)
    watcher = threading.Thread(target=guard.watch, name="space", daemon=True)
    try:
        guard.check()
        watcher.start()
        try:
            yield guard, stop
        finally:
            guard.end()
            watcher.join()
    except Cancelled:
        if guard.error is not None and not asked.is_set:
            raise guard.error from None
        raise
    finally:
        forget()


def tidy(store: Store, limits: SpaceLimits | None, policies: Sequence[Policy] | None = None) -> None:
    """After a build: keep to the policies (GC-05). Never fails; a cheap look says whether there is anything
    to do.

    ``policies`` take the place of the usual ones; an empty tuple removes nothing.
    """
    if policies is not None and not policies:
        return
    with contextlib.suppress(PybuildError, OSError):
        size, free = disk(store.root)
        own = limits is not None or policies is not None
        if not own and not _due(store, size, free):
            return
        from builder.cache.gc import collect
        from builder.cache.limits import default_policies

        collect(store, policies if policies is not None else default_policies(size, limits))
        with store.db.write() as tx:
            now = time.time_ns()
            tx.execute("DELETE FROM docs WHERE used_ns<?", (now - _DOCS_NS,))
            tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES(?,?)", (_LOOKED, str(now)))


def _due(store: Store, size: int, free: int) -> bool:
    """Whether the usual policies can find anything, without measuring the cache.

    It takes at most what its whole disk has taken; and what only saves a transfer goes by age.
    """
    now = time.time_ns()
    row = store.db.one("SELECT value FROM meta WHERE key=?", (_LOOKED,))
    if row is not None and 0 <= now - int(row[0]) < _REST_NS:
        return False
    usual = default_limits(size)
    status = os.statvfs(store.root)
    taken = (status.f_blocks - status.f_bfree) * status.f_frsize
    if free < usual.min_free or taken > usual.max_used:
        return True
    old = now - _PASSING_NS
    if unused_since(str(store.root), old):
        return True
    found = store.db.one(
        "SELECT 1 FROM snapshots WHERE record_type LIKE 'source.%' AND last_used_ns<?"
        " UNION ALL SELECT 1 FROM cache_mounts WHERE last_used_ns<? LIMIT 1",
        (old, old),
    )
    return found is not None


def _make_room(store: Store, limits: SpaceLimits, unfinished: int) -> bool:
    """What is not needed goes: what the dead left, then what costs least to have again. Whether any of that
    did.
    """
    from builder.cache.gc import apply

    store.sweep()
    cap = max(limits.max_used - unfinished, 1) if limits.max_used else 0
    freed = False
    for everything in (False, True):
        policy = Policy(
            everything=everything, max_used=cap, reserved=limits.reserved, min_free=limits.min_free
        )
        freed = bool(apply(store, policy, None).rows) or freed
    return freed


def _unfinished(tmp: str) -> int:
    """Bytes of what is being written below ``tmp/``; what is being removed does not count."""
    from builder.cache.measure import disk_usage

    total = 0
    with os.scandir(tmp) as entries:
        for entry in entries:
            if entry.name.startswith(("blob-", "pub-", "stage-")):
                try:
                    if entry.is_dir(follow_symlinks=False):
                        total += disk_usage(entry.path)
                    elif not entry.name.startswith("pub-"):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def _exceeded(store: Store, limits: SpaceLimits, used: _Use) -> StoreFull:
    rows = used.kept.rows
    needed = sum(row.size for row in rows if row.in_use) + used.unfinished
    other = used.total - needed
    parts = [("needed by running builds and containers", needed), ("other build cache", other)]
    sizes: dict[str, int] = dict(store.db.all("SELECT digest, size FROM blobs"))
    images = sum(sizes.get(digest, 0) for digest in used.kept.image_blobs)
    parts.append(("beside it, images and their layers", images))
    if limits.max_used and used.total > limits.max_used:
        message = (
            f"the build cache takes {size_text(used.total)}, more than the limit of "
            f"{size_text(limits.max_used)}, and {'no more of it can go' if other else 'all of it is needed'}"
        )
        hint = "raise --max-used, or build less at a time; finished steps are kept as far as they fit"
    else:
        message = (
            f"only {size_text(used.free)} are free on the disk of {store.root}, and "
            f"{size_text(limits.min_free)} must stay free"
        )
        hint = "lower --min-free, remove images (pybuild rmi, pybuild prune), or free space outside pybuild"
    largest = sorted(rows, key=lambda row: row.size, reverse=True)[:3]
    return StoreFull(
        message,
        context=(
            *(f"{name}: {size_text(size)}" for name, size in parts if size),
            *(f"largest: {size_text(row.size)} {row.description or row.id}" for row in largest if row.size),
        ),
        hint=hint,
        code="disk-limit",
    )
