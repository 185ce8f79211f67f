"""The wiring: opens the state directory and hands real objects to the commands."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import BinaryIO

    from builder.build.local import LazyMachine
    from builder.build.machine import Machine
    from builder.cache.store import Store
    from builder.registry.hosts import RegistryConfig
    from cli.settings import Settings


class App:
    """One call of the program. Use with ``with``; the store opens on first use and is closed at the end."""

    __slots__ = ("_endings", "_machine", "_store", "debug", "error_format", "settings")

    def __init__(self, settings: Settings, *, debug: bool = False, error_format: str = "text") -> None:
        self.settings = settings
        self.debug = debug
        self.error_format = error_format
        self._store: Store | None = None
        self._machine: LazyMachine | None = None
        self._endings: list[Callable[[], None]] = []

    def at_end(self, action: Callable[[], None]) -> None:
        """Call ``action`` when this call of the program ends; the last one first."""
        self._endings.append(action)

    @property
    def store(self) -> Store:
        """The state directory, opened on first use."""
        if self._store is None:
            from builder.cache.store import Store

            self._store = Store.open(self.settings.root, snapshotter=self.settings.snapshotter)
        return self._store

    def registry_config(self, tls_contexts: tuple[str, ...] = ()) -> RegistryConfig:
        """How registries are spoken to: docker's credentials, ``registries.conf``, certificates, proxies."""
        from cli.registries import registry_config

        return registry_config(self.settings, tls_contexts)

    @property
    def machine(self) -> Machine:
        """What a build uses of this machine; made when a step needs it."""
        if self._machine is None:
            from builder.build.local import LazyMachine

            self._machine = LazyMachine(
                search_path=self.settings.env("PATH") or "",
                cdi_dirs=self.settings.cdi_dirs,
                dns=self.settings.dns,
            )
        return self._machine.machine()

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        if self._store is not None:
            self._store.close()
            self._store = None
        while self._endings:
            self._endings.pop()()

    def say(self, text: str) -> None:
        """A line of result on stdout."""
        try:
            sys.stdout.write(f"{text}\n")
        except OSError as error:
            raise _named(error) from None

    def note(self, text: str) -> None:
        """A line for people on stderr."""
        sys.stdout.flush()
        sys.stderr.write(f"{text}\n")

    def flush(self) -> None:
        """Send out what was said, before somebody else writes to the same place."""
        sys.stdout.flush()
        sys.stderr.flush()

    def write(self, data: bytes) -> None:
        """Bytes of result on stdout."""
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise _named(error) from None

    @property
    def stdin(self) -> BinaryIO:
        """Standard input as bytes."""
        return sys.stdin.buffer

    @property
    def stdout(self) -> BinaryIO:
        """Standard output as bytes; what was said before goes out first."""
        sys.stdout.flush()
        return sys.stdout.buffer


def _named(error: OSError) -> OSError:
    """``error`` with the place that could not be written."""
    error.filename = "standard output"
    return error


def is_terminal(fd: int) -> bool:
    """Whether ``fd`` is open and a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False
