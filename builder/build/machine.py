"""What a build uses of the machine, made only when a step needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.solver.env import Executor, Networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Factories for what runs containers and what connects them."""

    executor: Callable[[], Executor]
    networks: Callable[[], Networks]
