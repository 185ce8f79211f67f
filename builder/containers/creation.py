"""``create``: an image and options become a container directory, a writable snapshot and a row (CRE-01)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.containers import document, initlayer, mounts, names, specs
from builder.containers.types import BadOption, Container, CreateRequest
from builder.errors import NoSuchImage, StoreError
from builder.oci.digest import chain_ids
from builder.oci.platform import host_platform
from runtime import container as engine
from runtime.state import State, process_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.cache.types import StoredImage

_TRIES = 6


def create(store: Store, request: CreateRequest) -> Container:
    """Make a container; nothing runs yet.

    Raises NoSuchImage when the image is not in the store, BadOption, and StoreError ``name-in-use``. On any
    error nothing is left behind but volumes with a name.
    """
    if request.name:
        names.checked_name(request.name)
    warnings = specs.check(request)
    image = store.images.resolve(request.image)
    if image is None:
        raise NoSuchImage(f"No such image: {request.image}", hint="pull or build it first")
    platform = image.config.platform
    host = host_platform()
    if platform.architecture and platform.architecture != host.architecture:
        warnings += (
            f"the image's platform ({platform}) does not match the host's ({host}) and may need an emulator",
        )
    path_and_args = document.command(image.config, request)
    container_id = names.new_id()
    directory = store.root / "containers" / container_id
    with store.hold() as hold:
        if not hold.blob(image.manifest.digest):  # somebody has just removed it
            raise NoSuchImage(f"No such image: {request.image}", hint="pull or build it first")
        snapshot = _unpacked(store, image, hold)
        entries = _mounts(store, request, image, snapshot)
        init = initlayer.prepare(store, hold, snapshot, document.mount_points(entries))
        active = store.snapshots.prepare(
            init, description=f"container {container_id[:12]}", record_type="internal"
        )
        try:
            data = document.make(store, container_id, request, image, path_and_args, entries)
            data["ImageSnapshot"], data["InitSnapshot"] = snapshot, init
            data["Root"] = str(store.root)
            data["OnExit"] = list(request.on_exit or settle_command(store.root, container_id))
            if request.starting:
                starter = process_ref(os.getpid())
                data["Starter"] = (starter.pid, starter.start, starter.boot)
            spec = specs.base_spec(container_id, request, data, directory)
            with store.containers.placing(container_id):
                engine.create(directory, spec, specs.options(request, data, image.config.stop_signal))
                row = _insert(store, request.name, container_id, image, active.id, data)
        except BaseException:
            store.snapshots.discard(active)
            _drop_anonymous(store, entries, request)
            raise
    store.events.add("container", "create", container_id, document.event_attributes(row))
    return Container(row, directory, State(), warnings)


def _unpacked(store: Store, image: StoredImage, hold: Hold) -> str | None:
    """The snapshot of the image's tree; an image that is unpacked already needs no more than a look-up."""
    chains = chain_ids(image.config.diff_ids)
    if chains:
        info = store.snapshots.by_chain(chains[-1])
        if info is not None and hold.snapshot(info.id):
            store.snapshots.touch(info.id)
            return info.id
    from builder.images.unpacking import unpack

    return unpack(store, image, hold)


def _mounts(
    store: Store, request: CreateRequest, image: StoredImage, snapshot: str | None
) -> list[mounts.Entry]:
    with mounts.image_tree(store, snapshot) as tree:
        return mounts.resolve(store, request, image.config.volumes, tree)


def _insert(
    store: Store, name: str, container_id: str, image: StoredImage, snapshot: str, data: dict[str, Any]
) -> ContainerRow:
    """Take a name and publish the row; a random name is tried again when it is taken (CRE-04)."""
    created_ns = time.time_ns()
    for attempt in range(_TRIES + 1):
        wanted = names.checked_name(name) if name else names.random_name()
        if not name and attempt:
            wanted = f"{wanted}{attempt}" if attempt < _TRIES else container_id[:12]
        row = ContainerRow(container_id, wanted, str(image.id), snapshot, created_ns, data)
        try:
            store.containers.create(row)
        except StoreError as error:
            if name or error.code != "name-in-use":
                raise
            continue
        return row
    raise BadOption("no free container name was found", hint="give one with --name")


def _drop_anonymous(store: Store, entries: list[mounts.Entry], request: CreateRequest) -> None:
    borrowed = set()
    for text in request.volumes_from:
        row = store.containers.get(text.partition(":")[0])
        borrowed |= {entry.get("Name") for entry in row.data["Mounts"]} if row is not None else set()
    for entry in entries:
        if entry.get("Anonymous") and entry["Name"] not in borrowed:
            store.volumes.remove(entry["Name"])


def settle_command(root: Path, container_id: str) -> tuple[str, ...]:
    """What a monitor runs when a container has ended and its starter is not there to note it."""
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.insert(0, {place!r}); from builder.containers.settling import main; "
        f"main({str(root)!r}, {container_id!r})"
    )
    return (sys.executable, "-I", "-S", "-c", code)
