"""The part of the state directory that sources use, in the smallest real form: files, a dictionary, thread locks."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path


class MiniStore:
    """``doc``/``put_doc``, ``staging`` and ``lock`` over one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._docs: dict[tuple[str, str], bytes] = {}
        self._locks: dict[str, threading.Lock] = {}
        (root / "tmp").mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self._root

    def doc(self, kind: str, key: str) -> bytes | None:
        return self._docs.get((kind, key))

    def put_doc(self, kind: str, key: str, data: bytes) -> None:
        self._docs[kind, key] = data

    @contextlib.contextmanager
    def staging(self, prefix: str) -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._root / "tmp"))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with self._locks.setdefault(name, threading.Lock()):
            yield

    @property
    def staged(self) -> list[Path]:
        """What is staged now."""
        return list((self._root / "tmp").iterdir())
