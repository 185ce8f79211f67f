"""``client.containers``: make, run and find containers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from builder import containers as cases
from builder.cache.store import Store
from builder.errors import Cancelled
from builder.registry.hosts import RegistryConfig
from pybuild._checks import CONTAINER, check_kinds
from pybuild._container import Container, Finished, collect
from pybuild._run_options import ContainerOptions, Words, fields, words
from runtime.errors import ContainerError, PybuildError

if TYPE_CHECKING:
    from builder.containers import PsRow
    from builder.solver.cancel import Cancel

Pull = Literal["missing", "always", "never"]


class Containers:
    """The containers of a client. ``ref`` is a name, an id or the beginning of one."""

    def __init__(self, store: Store, registries: Callable[[], RegistryConfig]) -> None:
        self._store = store
        self._registries = registries

    def create(
        self,
        image: str,
        command: Words = (),
        *,
        pull: Pull = "missing",
        **options: Unpack[ContainerOptions],
    ) -> Container:
        """Make a container; nothing runs yet. A text as ``command`` is one word. Raises PybuildError."""
        return self._create(image, command, pull, options)

    @overload
    def run(
        self,
        image: str,
        command: Words = (),
        *,
        detach: Literal[False] = False,
        stdin: bytes | None = None,
        remove: bool = True,
        timeout_s: float | None = None,
        cancel: Cancel | None = None,
        pull: Pull = "missing",
        **options: Unpack[ContainerOptions],
    ) -> Finished: ...

    @overload
    def run(
        self,
        image: str,
        command: Words = (),
        *,
        detach: Literal[True],
        remove: bool = False,
        pull: Pull = "missing",
        **options: Unpack[ContainerOptions],
    ) -> Container: ...

    def run(
        self,
        image: str,
        command: Words = (),
        *,
        detach: bool = False,
        stdin: bytes | None = None,
        remove: bool | None = None,
        timeout_s: float | None = None,
        cancel: Cancel | None = None,
        pull: Pull = "missing",
        **options: Unpack[ContainerOptions],
    ) -> Finished | Container:
        """Run a command in a new container: to its end, or in the background with ``detach``.

        In the foreground the container is removed unless ``remove`` is off; ``timeout_s`` and ``cancel`` kill
        it (ContainerError ``timeout``, Cancelled). The exit code is a value: see ``Finished.check``.
        """
        removes = remove if remove is not None else not detach
        more: dict[str, Any] = {"auto_remove": removes, "starting": True}
        if stdin is not None:
            more |= {"interactive": True, "attach_stdin": True}
        with cases.MonitorProcess.launch() as monitor:
            made = self._create(image, command, pull, options, **more)
            try:
                if detach:
                    cases.start(self._store, made.id, monitor=monitor)
                    return made
                return self._follow(made, monitor, stdin, timeout_s, cancel)
            except BaseException:
                if removes:
                    with suppress(PybuildError):
                        made.remove(force=True, volumes=True)
                raise

    def get(self, ref: str) -> Container:
        """Raises NoSuchContainer."""
        return Container(self._store, cases.find(self._store, ref).id)

    def list(self, *, all: bool = False, filters: Sequence[str] = ()) -> tuple[PsRow, ...]:  # noqa: A002
        """What ``ps`` shows, newest first; ``filters`` are ``key=value``."""
        return cases.ps(self._store, cases.PsRequest(all=all, filters=tuple(filters)))

    def _create(
        self, image: str, command: Words, pull: Pull, options: ContainerOptions, **more: Any
    ) -> Container:
        check_kinds(CONTAINER, {"image": image, "command": command})
        given = fields(options)
        if pull == "always" or (pull == "missing" and self._store.images.resolve(image) is None):
            from builder.images import pull as fetch

            fetch(self._store, image, registry=self._registries())
        request = cases.CreateRequest(image=image, command=words(command), **given, **more)
        return Container(self._store, cases.create(self._store, request).id)

    def _follow(
        self,
        made: Container,
        monitor: cases.MonitorProcess,
        stdin: bytes | None,
        timeout_s: float | None,
        cancel: Cancel | None,
    ) -> Finished:
        streams = cases.Streams(stdin=stdin is not None, owner=True)
        _, session = cases.start(self._store, made.id, attach=streams, monitor=monitor)
        assert session is not None
        with ExitStack() as stack:
            stack.enter_context(session)
            expired = threading.Event()
            if timeout_s is not None:
                timer = threading.Timer(timeout_s, _expire, (expired, made))
                timer.start()
                stack.callback(timer.cancel)
            if cancel is not None:
                stack.callback(cancel.on_set(made.end))
            done = collect(session, stdin)
            cases.finish(self._store, made.id, session)
        if cancel is not None and cancel.is_set:
            raise Cancelled("run cancelled")
        if expired.is_set():
            raise ContainerError(f"the command took longer than {timeout_s:g} s", code="timeout")
        return done


def _expire(expired: threading.Event, container: Container) -> None:
    expired.set()
    container.end()
