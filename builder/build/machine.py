"""What a build uses of the machine, made only when a step needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.solver.env import Executor, Networks
    from runtime.hosts import Dns


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Factories for what runs containers and what connects them, and where to look for what else steps use.

    ``search_path`` is for emulators of other processors, ``cdi_dirs`` hold descriptions of devices,
    ``dns`` are resolver settings for steps in the place of the host's.
    """

    executor: Callable[[], Executor]
    networks: Callable[[], Networks]
    search_path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    dns: Dns | None = None
    cdi_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
