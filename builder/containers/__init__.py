"""The container use cases: create, start, attach, exec, stop, remove, commit, cp, ps, logs, diff, export,
inspect.

Everything takes the store first, a typed request where there is much to say, and returns values; nothing
prints. Names are looked up on first use, so that importing this package costs nothing.

A foreground ``run``::

    monitor = MonitorProcess.launch()                      # optional: overlaps its start-up with what follows
    container = create(store, CreateRequest(image="alpine", command=("true",), auto_remove=True))
    container, session = start(store, container.id, attach=Streams(owner=True), monitor=monitor)
    ended = couple(session, stdin=None, stdout=1, stderr=2, tty=False, sig_proxy=True)
    finish(store, container.id, session)                   # unless ended.code is None: the user has detached
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.containers.changes import DiffRow, diff, export
    from builder.containers.committing import commit
    from builder.containers.copying import copy_in, copy_out, tar_in, tar_out
    from builder.containers.creation import create
    from builder.containers.inspection import inspect_container
    from builder.containers.lifecycle import (
        attach,
        execute,
        finish,
        kill,
        pause,
        prune,
        remove,
        rename,
        restart,
        start,
        stop,
        unpause,
        wait,
    )
    from builder.containers.listing import PsRequest, PsRow, duration_text, ps
    from builder.containers.logreading import logs, moment, tail_count
    from builder.containers.lookup import every, find
    from builder.containers.settling import settle, settle_all
    from builder.containers.types import (
        BadOption,
        CommitRequest,
        Conflict,
        Container,
        CreateRequest,
        DeviceRequest,
        ExecRequest,
        PortRequest,
        VolumeRequest,
    )
    from builder.containers.usage import PortRow, Sample, cpu_percent, port, sample, top
    from runtime.container import Streams
    from runtime.coupling import Ended, couple
    from runtime.detachkeys import parse_detach_keys
    from runtime.monitor_start import MonitorProcess
    from runtime.session import Session

_HOMES = {
    "builder.containers.changes": ("DiffRow", "diff", "export"),
    "builder.containers.committing": ("commit",),
    "builder.containers.copying": ("copy_in", "copy_out", "tar_in", "tar_out"),
    "builder.containers.creation": ("create",),
    "builder.containers.inspection": ("inspect_container",),
    "builder.containers.lifecycle": (
        *("attach", "execute", "finish", "kill", "pause", "prune", "remove", "rename", "restart", "start"),
        *("stop", "unpause", "wait"),
    ),
    "builder.containers.listing": ("PsRequest", "PsRow", "duration_text", "ps"),
    "builder.containers.logreading": ("logs", "moment", "tail_count"),
    "builder.containers.lookup": ("every", "find"),
    "builder.containers.settling": ("settle", "settle_all"),
    "builder.containers.types": (
        *("BadOption", "CommitRequest", "Conflict", "Container", "CreateRequest", "DeviceRequest"),
        *("ExecRequest", "PortRequest", "VolumeRequest"),
    ),
    "builder.containers.usage": ("PortRow", "Sample", "cpu_percent", "port", "sample", "top"),
    "runtime.container": ("Streams",),
    "runtime.coupling": ("Ended", "couple"),
    "runtime.detachkeys": ("parse_detach_keys",),
    "runtime.monitor_start": ("MonitorProcess",),
    "runtime.session": ("Session",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadOption",
    "CommitRequest",
    "Conflict",
    "Container",
    "CreateRequest",
    "DeviceRequest",
    "DiffRow",
    "Ended",
    "ExecRequest",
    "MonitorProcess",
    "PortRequest",
    "PortRow",
    "PsRequest",
    "PsRow",
    "Sample",
    "Session",
    "Streams",
    "VolumeRequest",
    "attach",
    "commit",
    "copy_in",
    "copy_out",
    "couple",
    "cpu_percent",
    "create",
    "diff",
    "duration_text",
    "every",
    "execute",
    "export",
    "find",
    "finish",
    "inspect_container",
    "kill",
    "logs",
    "moment",
    "parse_detach_keys",
    "pause",
    "port",
    "prune",
    "ps",
    "remove",
    "rename",
    "restart",
    "sample",
    "settle",
    "settle_all",
    "start",
    "stop",
    "tail_count",
    "tar_in",
    "tar_out",
    "top",
    "unpause",
    "wait",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
