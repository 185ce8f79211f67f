"""The project of the mutation test of the cache: its steps, and single changes to it."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder import images
from builder.solver.types import Secret
from tests.support.buildlab import Lab

TEXT = """\
ARG BASE=busybox
FROM ${BASE} AS base
ARG USED=1
ARG IDLE=1
ENV COLOR=red
WORKDIR /src
RUN echo prepare

FROM base AS build
COPY go.mod go.sum ./
RUN cat go.mod go.sum > /deps
COPY src src
COPY --chmod=0755 run.sh /usr/bin/run
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token \\
    cp -R src /out && echo $USED > /out/used
RUN --mount=type=bind,source=assets,target=/assets find /assets > /listing

FROM base AS test
COPY tests tests
RUN ls tests

FROM busybox AS final
COPY --from=build /out /out
COPY --from=build /deps /deps
COPY docs /docs
ENV MODE=prod
RUN echo $MODE > /mode
LABEL stage=final
CMD ["/usr/bin/run"]
"""


NAMES = {
    "prepare": "[base 3/3] RUN echo prepare",
    "mods": "[build 1/6] COPY go.mod go.sum ./",
    "deps": "[build 2/6] RUN cat go.mod go.sum > /deps",
    "src": "[build 3/6] COPY src src",
    "run": "[build 4/6] COPY --chmod=0755 run.sh /usr/bin/run",
    "build": "[build 5/6] RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token     cp -R src /out && echo 1 > /out/used",
    "assets": "[build 6/6] RUN --mount=type=bind,source=assets,target=/assets find /assets > /listing",
    "tests": "[test 1/2] COPY tests tests",
    "ls": "[test 2/2] RUN ls tests",
    "out": "[final 2/5] COPY --from=build /out /out",
    "deps2": "[final 3/5] COPY --from=build /deps /deps",
    "docs": "[final 4/5] COPY docs /docs",
    "mode": "[final 5/5] RUN echo prod > /mode",
}
"""What steps are called, in the order in which they run."""

_PARTS = {key: re.compile(re.escape(name.partition("] ")[2])) for key, name in NAMES.items()} | {
    "prepare": re.compile("RUN echo prepare$"),
    "build": re.compile("RUN .* cp -R src /out && echo . > /out/used$"),
    "tests": re.compile("COPY tests "),
    "mode": re.compile("RUN echo [a-z]* > /mode$"),
}

SRC = [f"src/{name}" for name in ("a.go", "b.go", "pkg/c.go", "pkg/d.go", "pkg/deep/e.go", "name with space")]
DOCS = ["docs/index.md", "docs/guide/one.md"]
ASSETS = ["assets/logo.svg", "assets/img/x.png"]
OTHER = ["README", "tests/t1", "notes.log", "src/pkg/debug.log", ".git/HEAD", "tests/deep/t2"]


BASE_IGNORE = "**/*.log\n.git\n"
Change = Callable[[Path], "dict[str, Any] | None"]
_TABLES = ("builds", "records", "record_parts", "record_outputs", "docs")


def content(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).write_text(f"changed {unique}\n"))


def append(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).write_text((root / path).read_text() + unique))


def same_size(path: str, unique: str) -> Change:
    def change(root: Path) -> None:
        size = (root / path).stat().st_size
        stat = (root / path).stat()
        (root / path).write_text(f"{hash(unique):x}".ljust(size, "~")[:size])
        os.utime(root / path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    return change


def mode(path: str, bits: int) -> Change:
    return lambda root: (root / path).chmod(bits)


def mtime(path: str, seconds: int) -> Change:
    return lambda root: os.utime(root / path, (seconds, seconds))


def owner(path: str, uid: int) -> Change:
    return lambda root: os.chown(root / path, uid, uid)


def rename(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).rename(root / (path + unique)))


def remove(path: str) -> Change:
    return lambda root: (root / path).unlink()


def add(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).with_name(unique).write_text(f"new {unique}"))


def add_directory(path: str, unique: str) -> Change:
    return lambda root: (root / path).with_name(unique).mkdir()


def link(path: str, unique: str) -> Change:
    def change(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(f"/nowhere/{unique}")

    return change


def rewritten(path: str) -> Change:
    """The same bytes in another inode."""

    def change(root: Path) -> None:
        other = root / (path + ".new")
        shutil.copy(root / path, other)
        other.rename(root / path)

    return change


def dockerfile(old: str, new: str, **given: Any) -> Change:
    def change(root: Path) -> dict[str, Any]:
        text = (root / "Dockerfile").read_text()
        assert old in text, old
        (root / "Dockerfile").write_text(text.replace(old, new, 1))
        return given

    return change


def ignore_file(text: str) -> Change:
    return lambda root: _none((root / ".dockerignore").write_text(text))


def options(**given: Any) -> Change:
    return lambda _: given


def all_of(*changes: Change) -> Change:
    """Several changes at once."""

    def change(root: Path) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for one in changes:
            given |= one(root) or {}
        return given

    return change


def _none(_: object) -> None:
    return None


class Project:
    """The project in its directory, and a store in which its build is the only and the newest one."""

    def __init__(self, tmp: Path) -> None:
        self.lab = Lab(tmp)
        self.pristine = self.lab.context(
            {
                "Dockerfile": TEXT,
                ".dockerignore": BASE_IGNORE,
                "go.mod": "module m\n",
                "go.sum": "sum\n",
                "run.sh": "#!/bin/sh\n",
                **{path: f"this is {path}\n" for path in (*SRC, *DOCS, *ASSETS, *OTHER)},
            }
        )
        self.root = tmp / "project"
        self.restore()
        self.build(target="test")
        self.build()
        db = self.lab.store.db
        self._rows = {table: db.all(f"SELECT * FROM {table}") for table in _TABLES}

    def restore(self) -> None:
        """The files as they were."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.pristine, self.root, symlinks=True)

    def forget(self) -> None:
        """Put cache and history back to where they were before any change."""
        with self.lab.store.db.write() as tx:
            for table, rows in self._rows.items():
                tx.execute(f"DELETE FROM {table}")
                tx.executemany(f"INSERT INTO {table} VALUES({','.join('?' * len(rows[0]))})", rows)

    def base(self, tar: bytes, **more: Any) -> str:
        """Another base image; its digest."""
        images.import_(self.lab.store, io.BytesIO(tar), "busybox:latest", **more)
        return self.base_digest()

    def base_digest(self) -> str:
        """What the name of the base image means."""
        found = self.lab.store.images.resolve("busybox:latest")
        assert found is not None
        return str(found.manifest.digest)

    def build(self, **given: Any) -> Any:
        """Build it."""
        self.last = self.lab.build(self.root, **{"secrets": (Secret(id="token", data=b"1"),), **given})
        return self.last

    def reran(self, **given: Any) -> set[str]:
        """Build, and say what ran."""
        return set(self.ran(self.build(**given)))

    def ran(self, result: Any) -> dict[str, Any]:
        """The steps that ran, by short name; one that is not of the project goes by its text."""
        found = {}
        for step in result.steps:
            if step.status == "ran" and "WORKDIR" not in step.name:
                text = step.name.partition("] ")[2]
                found[next((key for key, part in _PARTS.items() if part.match(text)), text)] = step
        return found
