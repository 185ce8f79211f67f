"""Writing the ``json-file`` log of a container; ``runtime.jsonlog`` reads it and says what is in it."""

from __future__ import annotations

import os
import time

from runtime.statefile import to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 16 << 10


class LogWriter:
    """Appends output to a log file, split into lines; rotates when ``max_size`` is set."""

    def __init__(self, path: str, *, max_size: int = 0, max_files: int = 1) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._pending = {"stdout": bytearray(), "stderr": bytearray()}
        self._second = (-1, "")
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Take ``data``; complete lines and full pieces reach the file at once."""
        pending = self._pending[stream]
        pending += data
        cut = pending.rfind(b"\n") + 1
        pieces = list(_pieces(bytes(pending[:cut])))
        del pending[:cut]
        while len(pending) >= PIECE:
            pieces.append(bytes(pending[:PIECE]))
            del pending[:PIECE]
        if pieces:
            self._append(stream, pieces)

    def flush(self) -> None:
        """Write unfinished lines; called when a process has ended."""
        for stream, pending in self._pending.items():
            if pending:
                self._append(stream, [bytes(pending)])
                pending.clear()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.flush()
        os.close(self._fd)

    def _append(self, stream: str, pieces: list[bytes]) -> None:
        tail = f',"stream":"{stream}","time":"{self._now()}"}}\n'
        lines = ['{"log":' + to_json(piece.decode("utf-8", "surrogateescape")) + tail for piece in pieces]
        data = "".join(lines).encode("ascii")
        try:
            self._size += os.write(self._fd, data)
        except OSError:
            return  # a full disk costs log lines, not the container
        if self._max_size and self._size >= self._max_size:
            self._rotate()

    def _now(self) -> str:
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second[0]:
            self._second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
        return f"{self._second[1]}.{rest:09d}Z"

    def _rotate(self) -> None:
        os.close(self._fd)
        base = self._path
        for number in range(self._max_files - 1, 0, -1):
            older = base if number == 1 else f"{base}.{number - 1}"
            try:
                os.replace(older, f"{base}.{number}")
            except FileNotFoundError:
                pass
        if self._max_files == 1:
            os.truncate(base, 0)
        self._open()


def _pieces(data: bytes) -> Iterator[bytes]:
    for line in data.splitlines(keepends=True) if b"\r" not in data else _split(data):
        for at in range(0, len(line), PIECE):
            yield line[at : at + PIECE]


def _split(data: bytes) -> Iterator[bytes]:
    """Lines that end in a newline only: a carriage return is part of its line."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
