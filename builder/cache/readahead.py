"""Reading a stream one step ahead: a second thread decompresses while the first one uses what it has."""

from __future__ import annotations

import queue
import threading

from builder.cache.compression import Readable

_CHUNK = 512 * 1024
_INLINE = 4
_QUEUE = 6


class ReadAhead:
    """Gives the chunks of ``source``; after the first few a thread reads them in advance.

    ``read`` gives some bytes, however many were asked for, b"" at the end. Leaving the context ends the
    thread.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inline = _INLINE
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """The next chunk; errors of the source are raised here."""
        del size
        if self._ended:
            return b""
        if self._inline > 0:
            self._inline -= 1
            data = self._source.read(_CHUNK)
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
                self._thread.start()
            item = self._queue.get()
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            data = item
        self._ended = not data
        return data

    def _work(self) -> None:
        item: bytes | BaseException = b"-"
        while item and not isinstance(item, BaseException) and not self._stopped.is_set():
            try:
                item = self._source.read(_CHUNK)
            except BaseException as error:  # noqa: BLE001 - raised again by ``read``
                item = error
            self._queue.put(item)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread is not None and self._thread.is_alive():
            try:
                self._queue.get(timeout=0.02)
            except queue.Empty:
                pass
        if self._thread is not None:
            self._thread.join()
