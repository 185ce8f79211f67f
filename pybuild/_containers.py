"""``client.containers``: thin callers of the container use cases."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypedDict, Unpack, overload

from builder import containers as cases
from builder.cache.store import Store
from builder.errors import Cancelled, UsageError
from builder.registry.hosts import RegistryConfig
from pybuild._context import Tree, tar_of
from runtime.errors import ContainerError, PybuildError
from runtime.spec import Limits

if TYPE_CHECKING:
    from builder.containers import DiffRow, PsRow, Session
    from builder.solver.cancel import Cancel
    from pybuild._build import Path
    from runtime.jsonlog import LogEntry

Words = str | Sequence[str]
Pull = Literal["missing", "always", "never"]


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its output as text."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> Finished:
        """Itself if the exit code is 0. Raises ContainerError."""
        if self.exit_code == 0:
            return self
        tail = self.stderr.decode("utf-8", "replace").splitlines()[-10:]
        raise ContainerError(
            f"the command ended with exit code {self.exit_code}", context=tuple(tail), code="command-failed"
        )


class ContainerOptions(TypedDict, total=False):
    """What ``create`` and ``run`` can be told; the flags of those names say more.

    ``volumes`` are ``SOURCE:TARGET[:ro]``, a directory of this machine or a volume's name; ``ports`` give
    the host's port for the container's (``80`` or ``"53/udp"``), 0 = any free one.
    """

    name: str
    entrypoint: Words | None
    env: Mapping[str, str]
    labels: Mapping[str, str]
    workdir: str
    user: str
    hostname: str
    network: str
    volumes: Sequence[str]
    ports: Mapping[int | str, int]
    extra_hosts: Mapping[str, str]
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    security_opt: Sequence[str]
    privileged: bool
    readonly_root: bool
    stop_signal: str
    stop_timeout_s: int
    shm_size: int
    limits: Limits


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
        if pull == "always" or (pull == "missing" and self._store.images.resolve(image) is None):
            from builder.images import pull as fetch

            fetch(self._store, image, registry=self._registries())
        request = cases.CreateRequest(image=image, command=_words(command), **_fields(options), **more)
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
            done = _collect(session, stdin)
            cases.finish(self._store, made.id, session)
        if cancel is not None and cancel.is_set:
            raise Cancelled("run cancelled")
        if expired.is_set():
            raise ContainerError(f"the command took longer than {timeout_s:g} s", code="timeout")
        return done


class Container:
    """One container, looked up anew by every call. Safe to use from several threads."""

    def __init__(self, store: Store, container_id: str) -> None:
        self._store = store
        self.id = container_id

    def __repr__(self) -> str:
        return f"<pybuild.Container {self.id[:12]}>"

    @property
    def name(self) -> str:
        """Without a slash."""
        return cases.find(self._store, self.id).name

    @property
    def status(self) -> str:
        """created, running, paused, restarting, exited, dead."""
        return cases.find(self._store, self.id).state.status

    def inspect(self) -> dict[str, Any]:
        """What ``inspect`` shows."""
        return cases.inspect_container(self._store, self.id)

    def start(self) -> None:
        """Start it; running already is fine."""
        cases.start(self._store, self.id)

    def stop(self, *, timeout_s: float | None = None) -> None:
        """Ask it to end, then make it."""
        cases.stop(self._store, self.id, timeout_s=timeout_s)

    def restart(self, *, timeout_s: float | None = None) -> None:
        """Stop, then start."""
        cases.restart(self._store, self.id, timeout_s=timeout_s)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal; KILL waits for the end."""
        cases.kill(self._store, self.id, signal=signal)

    def end(self) -> None:
        """Kill it if it runs; no error if it does not, or is gone."""
        with suppress(PybuildError):
            self.kill()

    def pause(self) -> None:
        """Freeze it."""
        cases.pause(self._store, self.id)

    def unpause(self) -> None:
        """Let it go on."""
        cases.unpause(self._store, self.id)

    def wait(self) -> int:
        """Block until it has stopped; its exit code."""
        return cases.wait(self._store, self.id)

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; a running one only with ``force``."""
        cases.remove(self._store, self.id, force=force, volumes=volumes)

    def exec(  # the name of the verb
        self,
        command: Words,
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        privileged: bool = False,
    ) -> Finished:
        """Run one more process in it, to its end."""
        request = cases.ExecRequest(
            command=_words(command),
            env=_env(env or {}),
            workdir=workdir,
            user=user,
            privileged=privileged,
            interactive=stdin is not None,
        )
        _, session = cases.execute(self._store, self.id, request)
        assert session is not None
        with session:
            return _collect(session, stdin)

    def logs(self, *, tail: int | None = None, stdout: bool = True, stderr: bool = True) -> bytes:
        """What it has written so far."""
        wanted = [name for name, on in (("stdout", stdout), ("stderr", stderr)) if on]
        found = cases.logs(self._store, self.id, tail=tail)
        return b"".join(entry.data for entry in found if entry.stream in wanted)

    def follow(self, *, tail: int | None = None) -> Iterator[LogEntry]:
        """What it writes, from the beginning or the last ``tail`` lines, until it ends."""
        return cases.logs(self._store, self.id, follow=True, tail=tail)

    def diff(self) -> tuple[DiffRow, ...]:
        """What it has changed in its file system."""
        return cases.diff(self._store, self.id)

    def commit(
        self, name: str = "", *, message: str = "", author: str = "", changes: Sequence[str] = ()
    ) -> str:
        """Make an image of it; the image's id. ``changes`` are Dockerfile lines."""
        request = cases.CommitRequest(reference=name, message=message, author=author, changes=tuple(changes))
        return str(cases.commit(self._store, self.id, request))

    def put(self, source: Path | Tree, target: str) -> None:
        """Copy a file or directory of this machine, or a mapping of paths to contents, into it."""
        if isinstance(source, Mapping):
            cases.tar_in(self._store, self.id, tar_of(source), target)
        else:
            cases.copy_in(self._store, self.id, str(source), target)

    def get(self, source: str, target: Path) -> None:
        """Copy a path of it to this machine."""
        cases.copy_out(self._store, self.id, source, str(target))

    def read(self, path: str) -> bytes:
        """The content of a file in it. Raises ContainerError."""
        out = io.BytesIO()
        cases.tar_out(self._store, self.id, path, out, follow=True)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                if file is not None and entry.isreg():
                    return file.read()
                break
        raise ContainerError(f"{path} is not a file", code="not-a-file")

    def export(self, out: Path | BinaryIO) -> None:
        """Write its whole file system as a tar."""
        if not isinstance(out, str | os.PathLike):
            cases.export(self._store, self.id, out.write)
            return
        with FilePath(out).open("wb") as file:
            cases.export(self._store, self.id, file.write)


def _collect(session: Session, stdin: bytes | None) -> Finished:
    """Everything that a process writes, while it is given its input."""
    out: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    code = 0
    writer = (
        threading.Thread(target=_feed, args=(session, stdin), name="stdin") if stdin is not None else None
    )
    if writer is not None:
        writer.start()
    try:
        for event in session.events():
            if event.kind == "exit":
                code = event.code
            else:
                out[event.kind].append(event.data)
    finally:
        if writer is not None:
            writer.join()
    return Finished(code, b"".join(out["stdout"]), b"".join(out["stderr"]))


def _expire(expired: threading.Event, container: Container) -> None:
    expired.set()
    container.end()


def _feed(session: Session, data: bytes | None) -> None:
    with suppress(PybuildError):  # it ended without reading everything
        session.write(data or b"")
        session.write_end()


def _fields(options: ContainerOptions) -> dict[str, Any]:
    """The options as fields of a ``CreateRequest``. Raises UsageError."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        match key:
            case "env":
                out[key] = _env(options["env"])
            case "labels":
                out[key] = tuple(options["labels"].items())
            case "extra_hosts":
                out[key] = tuple(f"{host}:{address}" for host, address in options["extra_hosts"].items())
            case "ports":
                out[key] = tuple(_port(port, host) for port, host in options["ports"].items())
            case "volumes":
                out[key] = tuple(map(_volume, options["volumes"]))
            case "entrypoint":
                given = options["entrypoint"]
                out[key] = None if given is None else _words(given)
            case "cap_add" | "cap_drop" | "security_opt":
                out[key] = tuple(value)  # type: ignore[arg-type]
            case _:
                out[key] = value
    return out


def _words(command: Words) -> tuple[str, ...]:
    return (command,) if isinstance(command, str) else tuple(map(str, command))


def _env(env: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in env.items())


def _port(port: int | str, host: int) -> cases.PortRequest:
    number, _, protocol = str(port).partition("/")
    if not number.isdigit() or protocol not in ("", "tcp", "udp"):
        raise UsageError(f"invalid port {port!r}", hint='a number, or such as "53/udp"')
    return cases.PortRequest(
        container_port=int(number), protocol="udp" if protocol == "udp" else "tcp", host_port=host
    )


def _volume(text: str) -> cases.VolumeRequest:
    from builder.containers.options import volume

    return volume(text)
