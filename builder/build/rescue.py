"""Bringing files out of what a failed build left: ``--output-on-failure STAGE:/path=dest``.

The tree is read beneath its root and no link in it is followed, neither in the path nor below it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from builder.build.failed import KeptStep, checked_snapshot, kept_steps
from builder.cache.store import Store
from builder.cache.tree import View, join
from builder.cache.treewriter import Writer
from builder.errors import ExportError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What is wanted of a failed build: ``path`` of ``stage`` ('' = where it failed) copied to ``dest``."""

    stage: str
    path: str
    dest: str

    @classmethod
    def parse(cls, text: str) -> Rescue:
        """``STAGE:/path=dest``. Raises UsageError."""
        place, _, dest = text.partition("=")
        stage, colon, path = place.partition(":")
        if not colon or not path.startswith("/") or not dest or ".." in path.split("/"):
            raise UsageError(
                f"invalid --output-on-failure {text!r}",
                hint="STAGE:/path=dest without .. in the path, like build:/src/test.log=./test.log",
            )
        return cls(stage=stage, path="/".join(filter(None, path.split("/"))), dest=dest)


def rescue(store: Store, build_id: str, wanted: Rescue) -> str:
    """Copy it out; the name of the step that it is from. Raises UsageError, ExportError."""
    with store.hold() as hold:
        step = _step(store, build_id, wanted.stage)
        snapshot = checked_snapshot(store, step)
        hold.snapshot(snapshot)
        with View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr) as view:
            _copy(view, wanted, step)
    return step.name


def _step(store: Store, build_id: str, stage: str) -> KeptStep:
    """The failed step of a stage, else its last one that has a tree."""
    steps = [step for step in kept_steps(store, build_id) if step.snapshot]
    if stage and any(step.stage for step in steps):  # an only stage is not named in its steps
        steps = [step for step in steps if step.stage.lower() == stage.lower()]
    failed = [step for step in steps if step.failed]
    if failed or (steps and stage):
        return failed[0] if failed else steps[-1]
    where = f"stage {stage} has" if stage else "the build has"
    raise UsageError(f"{where} no step with a tree to take files from", code="step-tree-gone")


def _copy(view: View, wanted: Rescue, step: KeptStep) -> None:
    top = view.lstat(wanted.path)
    if top is None:
        raise UsageError(f"/{wanted.path}: not found in {step.name}", code="path-not-found")
    if not (stat.S_ISDIR(top.st_mode) or stat.S_ISREG(top.st_mode)):
        raise UsageError(
            f"/{wanted.path} in {step.name} is neither a file nor a directory",
            hint="links are not followed: name what it points at",
            code="not-a-file",
        )
    dest = Path(wanted.dest)
    try:
        if stat.S_ISREG(top.st_mode):
            target = dest / os.path.basename(wanted.path) if dest.is_dir() else dest
            target.parent.mkdir(parents=True, exist_ok=True)
            with Writer(target.parent) as writer:
                _entry(view, wanted.path, top, writer, target.name)
            return
        dest.mkdir(parents=True, exist_ok=True)
        with Writer(dest) as writer:
            for path, st in view.walk(wanted.path):
                _entry(view, path, st, writer, path[len(wanted.path) :].lstrip("/"))
    except OSError as error:
        raise ExportError(f"cannot write {dest}: {error.strerror}") from error


def _entry(view: View, path: str, st: os.stat_result, writer: Writer, target: str) -> None:
    """Files, directories and links (as links); what is special stays behind."""
    owner = (os.getuid(), os.getgid())
    old = writer.lstat(target)
    if old is not None and stat.S_ISDIR(old.st_mode) != stat.S_ISDIR(st.st_mode):
        raise ExportError(f"cannot write {join('', target)}: something else is there")
    if stat.S_ISDIR(st.st_mode):
        writer.mkdir(target, stat.S_IMODE(st.st_mode) | 0o700, *owner)
    elif stat.S_ISREG(st.st_mode):
        with open(view.open(path), "rb", buffering=0) as file:
            mode = stat.S_IMODE(st.st_mode) & 0o777
            writer.write_file(target, file.fileno(), mode, *owner, mtime_ns=st.st_mtime_ns)
    elif stat.S_ISLNK(st.st_mode):
        writer.symlink(target, view.readlink(path), *owner, mtime_ns=st.st_mtime_ns)
