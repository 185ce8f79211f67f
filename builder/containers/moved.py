"""Containers of a state directory that was moved or copied: their paths into it are those of now."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.cache.problems import if_writable, translated
from builder.cache.store import Store
from builder.containers.creation import settle_command
from runtime import specfile
from runtime.errors import ContainerError
from runtime.spec import BindMount


def follow(store: Store, row: ContainerRow, directory: Path) -> ContainerRow:
    """The row where the state directory is now, and kept so; unchanged when that is only another name of the
    place where it was made.
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
            specfile.write(directory, spec, options)
            store.containers.update(row.id, data)
    except ContainerError:  # dead, or just removed
        return row
    return replace(row, data=data)
