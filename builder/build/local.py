"""What builds use of this machine: a launcher for containers and networks for RUN steps, each made when
needed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from builder.build.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.solver.env import Executor
    from builder.solver.reporter import Reporter
    from runtime.hosts import Dns
    from runtime.launcher import Launcher
    from runtime.spec import Network


class LazyMachine:
    """Owns the launcher of one call; ``close`` ends it."""

    def __init__(
        self, *, search_path: str = "", cdi_dirs: tuple[str, ...] = (), dns: Dns | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, Any] = {}
        if search_path:
            self._places["search_path"] = search_path
        if cdi_dirs:
            self._places["cdi_dirs"] = cdi_dirs
        if dns:
            self._places["dns"] = dns
        self._launcher: Launcher | None = None
        self._networks: BridgeNetworks | None = None

    def machine(self) -> Machine:
        """The factories that a build asks."""
        return Machine(executor=self.executor, networks=self.networks, **self._places)

    def executor(self) -> Executor:
        """The launcher, started by the first step that runs something."""
        with self._lock:
            if self._launcher is None:
                from runtime.launcher import Launcher

                self._launcher = Launcher.start()
            return self._launcher

    def networks(self) -> BridgeNetworks:
        """The networks of this call."""
        with self._lock:
            if self._networks is None:
                self._networks = BridgeNetworks()
            return self._networks

    def close(self) -> None:
        """End the launcher and whatever it still runs."""
        with self._lock:
            if self._networks is not None:
                self._networks.close()
                self._networks = None
            if self._launcher is not None:
                self._launcher.close()
                self._launcher = None


class BridgeNetworks:
    """Namespaces on the bridge; the host's network, with a word about it, where no bridge can be made
    (EXE-16).
    """

    def __init__(self) -> None:
        from runtime.buildnet import BuildNetworks

        self._networks = BuildNetworks()
        self._told = False

    @contextmanager
    def lease(self, reporter: Reporter, *, reusable: bool = True) -> Iterator[Network]:
        """A network for one step."""
        with self._networks.lease(reusable=reusable) as (network, reason):
            if reason and not self._told:
                self._told = True
                reporter.warn(f"RUN uses the host's network: {reason}")
            yield network

    def close(self) -> None:
        """End what was made."""
        self._networks.close()
