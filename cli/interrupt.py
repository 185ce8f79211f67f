"""Ctrl-C and SIGTERM while something long runs: the first asks it to stop, the second ends the process
(ERR-02).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from builder.cancelling import Cancel

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, signals set ``cancel``; ``restore`` (the terminal) is called before a hard end."""

    def __init__(self, restore: Callable[[], None] | None = None) -> None:
        self.cancel = Cancel()
        self._restore = restore
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        # The handler runs inside whatever the main thread was doing, perhaps with locks held: another thread
        # does the work.
        if self._count == 1:
            threading.Thread(target=self.cancel.set, daemon=True).start()
        else:
            threading.Thread(target=self._end, args=(number,), daemon=True).start()

    def _end(self, number: int) -> None:
        if self._restore is not None:
            closer = threading.Thread(target=self._restore, daemon=True)
            closer.start()
            closer.join(0.5)
        os._exit(128 + number)
