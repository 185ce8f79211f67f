"""A store with a busybox image, and containers on it that are gone at the end."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder import containers as c
from builder.cache.store import Store
from builder.errors import PybuildError
from builder.images import import_
from runtime.session import Session
from tests.support.busybox_root import make_root

IMAGE = "box"


class ContainerLab:
    """Makes containers of one store; ``run`` is a foreground run that collects what it prints."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, *command: str, **options: Any) -> c.Container:
        """A new container on the host's network unless told otherwise."""
        options.setdefault("network", "host")
        options.setdefault("image", IMAGE)
        return c.create(self.store, c.CreateRequest(command=command, **options))

    def start(self, *command: str, **options: Any) -> c.Container:
        """A container in the background."""
        made = self.create(*command, **options)
        started, _ = c.start(self.store, made.id)
        return started

    def run(
        self, *command: str, stdin: bytes | None = None, **options: Any
    ) -> tuple[int | None, bytes, bytes]:
        """Run in the foreground and remove: (status, standard output, standard error)."""
        made = self.create(
            *command,
            auto_remove=True,
            interactive=stdin is not None,
            attach_stdin=stdin is not None,
            **options,
        )
        streams = c.Streams(owner=True, stdin=stdin is not None)
        _, session = c.start(self.store, made.id, attach=streams)
        assert session is not None
        with session:
            found = drive(session, stdin=stdin)
            c.finish(self.store, made.id, session)
        return found

    def sh(self, script: str, **options: Any) -> str:
        """Run a shell script that has to succeed; its output."""
        code, out, err = self.run("sh", "-c", script, **options)
        assert code == 0, (out, err)
        return out.decode()

    def execute(
        self, ref: str, *command: str, stdin: bytes | None = None, **options: Any
    ) -> tuple[int | None, str]:
        """Run a command in a container: (status, both streams)."""
        request = c.ExecRequest(command=command, interactive=stdin is not None, **options)
        _, session = c.execute(self.store, ref, request)
        assert session is not None
        with session:
            code, out, err = drive(session, stdin=stdin)
        return code, (out + err).decode()

    def status(self, ref: str) -> str:
        """What a container does now."""
        return c.find(self.store, ref).state.status

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
        """Until something is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "timed out"
            time.sleep(0.01)


def drive(session: Session, *, stdin: bytes | None = None) -> tuple[int | None, bytes, bytes]:
    """Couple a session to pipes: (status, output, errors)."""
    import threading

    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    collected: dict[int, bytes] = {}

    def collect(fd: int) -> None:
        with open(fd, "rb") as file:
            collected[fd] = file.read()

    threads = [threading.Thread(target=collect, args=(fd,)) for fd in (out_read, err_read)]
    feed: int | None = None
    if stdin is not None:
        feed, source = os.pipe()

        def send() -> None:
            with open(source, "wb") as file:
                try:
                    file.write(stdin)
                except BrokenPipeError:
                    pass

        threads.append(threading.Thread(target=send))
    for thread in threads:
        thread.start()
    try:
        ended = c.couple(session, stdin=feed, stdout=out_write, stderr=err_write, tty=False)
    finally:
        for fd in (out_write, err_write, *((feed,) if feed is not None else ())):
            os.close(fd)
        for thread in threads:
            thread.join()
    return ended.code, collected[out_read], collected[err_read]


def image_tar(tmp_path: Path) -> bytes:
    """The busybox tree as a tar."""
    root = make_root(tmp_path / "tree")
    (root / "data").mkdir()
    (root / "data" / "seed").write_text("from the image\n")
    os.chown(root / "data", 1000, 1000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, arcname=".")
    return buffer.getvalue()


@contextmanager
def container_lab(tmp_path: Path) -> Iterator[ContainerLab]:
    """A lab whose containers are removed at the end."""
    with Store.open(tmp_path / "root") as store:
        changes = ('CMD ["sh"]', "ENV FROM_IMAGE=yes", "EXPOSE 8000/tcp")
        import_(store, io.BytesIO(image_tar(tmp_path)), IMAGE, changes=changes)
        try:
            yield ContainerLab(store)
        finally:
            for container in c.every(store):
                try:
                    c.remove(store, container.id, force=True, volumes=True)
                except PybuildError:
                    pass
            deadline = time.monotonic() + 5
            while monitors_of(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.02)


def monitors_of(base: Path) -> list[int]:
    """Monitor processes and their helpers that work below ``base``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if b"runtime.monitor" not in command and os.fsencode(base) not in command:
                continue
            names = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if os.fsencode(base) in command or any(str(base) in name for name in names):
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]
