"""What running builds need and nothing may prune: a locked file per hold, with one line per thing.

Who prunes reads the files inside the transaction that unlinks rows. A hold is complete once its line is
written and the thing was seen afterwards, with the gate passed in between, so the two cannot miss each
other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from builder.cache.db import Database
from builder.cache.locks import Gate, try_flock
from builder.cache.names import from_base36
from builder.cache.problems import translated
from builder.cache.staging import claim_file
from builder.oci.digest import Digest


class Hold:
    """``with store.hold() as hold:`` what it names stays until the end, or until the process dies.

    While a hold is open, everything that this process commits or publishes is held as well.
    """

    def __init__(self, db: Database, gate: Gate, tmp: str, closed: Callable[[Hold], None]) -> None:
        self._db = db
        self._gate = gate
        self._tmp = tmp
        self._closed = closed
        self._lock = threading.Lock()
        self._fd = -1
        self._path = ""
        self._named: set[str] = set()
        self._over = False

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def snapshot(self, snapshot_id: str) -> bool:
        """Hold a snapshot with its parents and layer blobs; False when it is gone already."""
        return self.snapshots((snapshot_id,))

    def snapshots(self, ids: Sequence[str]) -> bool:
        """Hold several; False when any of them is gone already."""
        new = [item for item in ids if f"s {item}" not in self._named]
        if not new:
            return True
        assert not self._db.in_write, "the gate comes before a transaction"
        with self._gate.passing():
            self.note(f"s {item}" for item in new)
            sql = "SELECT 1 FROM snapshots WHERE id=?"
            gone = [f"s {item}" for item in new if self._db.one(sql, (from_base36(item),)) is None]
            self._named.difference_update(gone)
            return not gone

    def blob(self, digest: Digest) -> bool:
        """Hold a blob (and, for a manifest or index, what it names); False when it is gone already."""
        line = f"b {digest}"
        if line in self._named:
            return True
        assert not self._db.in_write, "the gate comes before a transaction"
        with self._gate.passing():
            self.note((line,))
            if self._db.one("SELECT 1 FROM blobs WHERE digest=?", (str(digest),)) is not None:
                return True
            self._named.discard(line)
            return False

    def note(self, lines: Iterable[str]) -> None:
        """Write lines without looking; for who has the gate or the transaction already."""
        with self._lock:
            new = [line for line in lines if line not in self._named]
            if self._over or not new:
                return
            with translated("hold what a build uses"):
                if self._fd < 0:
                    self._path, self._fd = claim_file(self._tmp, "hold")
                os.write(self._fd, "".join(line + "\n" for line in new).encode("ascii"))
            self._named.update(new)

    def close(self) -> None:
        """Let everything go."""
        with self._lock:
            if self._over:
                return
            self._over = True
            if self._fd >= 0:
                try:
                    os.unlink(self._path)
                except FileNotFoundError:
                    pass
                os.close(self._fd)
        self._closed(self)


class Holds:
    """The open holds of this process."""

    def __init__(self, db: Database, gate: Gate, tmp: str) -> None:
        self._db = db
        self._gate = gate
        self._tmp = tmp
        self._open: tuple[Hold, ...] = ()
        self._lock = threading.Lock()

    def new(self) -> Hold:
        """One more."""
        hold = Hold(self._db, self._gate, self._tmp, self._remove)
        with self._lock:
            self._open = (*self._open, hold)
        return hold

    def published_blobs(self, digests: Sequence[Digest]) -> None:
        """This process publishes (or found) these."""
        for hold in self._open:
            hold.note([f"b {digest}" for digest in digests])

    def published_snapshot(self, snapshot_id: str) -> None:
        """This process commits (or found) this one."""
        for hold in self._open:
            hold.note((f"s {snapshot_id}",))

    def close(self) -> None:
        """End those that were forgotten."""
        for hold in self._open:
            hold.close()

    def _remove(self, hold: Hold) -> None:
        with self._lock:
            self._open = tuple(item for item in self._open if item is not hold)


def held(tmp: str) -> tuple[set[int], set[str]]:
    """Snapshot numbers and blob digests that live processes hold. Call it inside a write transaction."""
    snapshots: set[int] = set()
    blobs: set[str] = set()
    for name in os.listdir(tmp):
        if not name.startswith("hold-"):
            continue
        try:
            fd = os.open(f"{tmp}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if try_flock(fd, shared=True):
                continue  # nobody owns it
            data = b""
            while chunk := os.read(fd, 1 << 16):
                data += chunk
        finally:
            os.close(fd)
        for line in data.decode("ascii").splitlines():
            if line.startswith("s "):
                snapshots.add(from_base36(line[2:]))
            elif line.startswith("b "):
                blobs.add(line[2:])
    return snapshots, blobs
