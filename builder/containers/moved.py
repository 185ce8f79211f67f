"""Containers of a state directory that was moved or copied: their paths into it are those of now."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.cache.problems import if_writable, translated
from builder.cache.store import Store
from builder.containers.creation import settle_command
from runtime import specfile, state
from runtime.errors import ContainerError
from runtime.spec import BindMount
from runtime.state import State

_COPIED_EXIT_CODE = 255


def follow(store: Store, row: ContainerRow, directory: Path) -> ContainerRow:
    """The row where the state directory is now, and kept so; unchanged when that is only another name of the
    place where it was made. What runs belongs to the place that it was copied from, as long as that is there.
    """
    then, now = str(row.data["Root"]), str(store.root)
    if os.path.exists(then) and os.path.samefile(then, now):
        return row

    def here(path: str) -> str:
        own = path.startswith((f"{then}/containers/", f"{then}/volumes/"))
        return now + path.removeprefix(then) if own else path

    data = {**row.data, "Root": now}
    data["Mounts"] = [{**entry, "Source": here(entry["Source"])} for entry in data["Mounts"]]
    if data["OnExit"] == list(settle_command(Path(then), row.id)):
        data["OnExit"] = list(settle_command(store.root, row.id))
    try:
        spec, options = specfile.read(directory)
        mounts = tuple(
            replace(mount, source=here(mount.source)) if isinstance(mount, BindMount) else mount
            for mount in spec.mounts
        )
        spec, options = replace(spec, mounts=mounts), replace(options, on_exit=tuple(data["OnExit"]))
        with if_writable(), translated("adapt a container to its new place"):
            if os.path.exists(f"{then}/containers/{row.id}"):
                _leave_running(directory)
            specfile.write(directory, spec, options)
            store.containers.update(row.id, data)
    except ContainerError:  # dead, or just removed
        return row
    return replace(row, data=data)


def _leave_running(directory: Path) -> None:
    """The copy of a container that ran has ended with the copying: its processes are the other's."""
    found = state.read(directory)
    if found.running:
        ended = State(
            status="exited",
            exit_code=_COPIED_EXIT_CODE,
            error="its state directory was copied while it ran",
            started_at=found.started_at,
            finished_at=state.timestamp(time.time_ns()),
        )
        state.write(directory, ended)
