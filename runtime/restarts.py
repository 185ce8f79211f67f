"""When a container that has ended is started again: its restart policy, with delays that double."""

from __future__ import annotations

import time

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 60.0
_STABLE_AFTER_S = 10.0


class Restarts:
    """``policy`` is one of docker's; ``maximum`` bounds ``on-failure``, 0 = no bound."""

    def __init__(self, policy: str, maximum: int) -> None:
        self._policy = policy
        self._maximum = maximum
        self._delay_s = _FIRST_DELAY_S
        self._started_at = 0.0

    def started(self) -> None:
        """The container runs from now on; one that stays up for a while begins anew."""
        self._started_at = time.monotonic()

    def delay_s(self, exit_code: int, restarts: int) -> float | None:
        """Seconds until the next start, after ``restarts`` of them; None = leave it."""
        if self._policy == "no":
            return None
        if self._policy == "on-failure" and (exit_code == 0 or (self._maximum and restarts >= self._maximum)):
            return None
        if time.monotonic() - self._started_at >= _STABLE_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
        delay_s, self._delay_s = self._delay_s, min(_LONGEST_DELAY_S, self._delay_s * 2)
        return delay_s
