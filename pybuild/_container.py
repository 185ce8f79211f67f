"""One container: a thin caller of the use cases that take a container by reference."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, BinaryIO

from builder import containers as cases
from builder.cache.reserve import given_up
from builder.cache.store import Store
from pybuild._context import Tree, tar_of
from pybuild._run_options import Words, env_entries, words
from runtime.errors import ContainerError, PybuildError

if TYPE_CHECKING:
    from builder.containers import DiffRow, Session
    from pybuild._build import Path
    from runtime.jsonlog import LogEntry


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
        with given_up(str(self._store.root)):
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
            command=words(command),
            env=env_entries(env or {}),
            workdir=workdir,
            user=user,
            privileged=privileged,
            interactive=stdin is not None,
        )
        _, session = cases.execute(self._store, self.id, request)
        assert session is not None
        with session:
            return collect(session, stdin)

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


def collect(session: Session, stdin: bytes | None) -> Finished:
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


def _feed(session: Session, data: bytes | None) -> None:
    with suppress(PybuildError):  # it ended without reading everything
        session.write(data or b"")
        session.write_end()
