"""``ps``: which containers there are, filtered, with what a table shows about each (IO-PS-1 to IO-PS-4)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from builder.cache.store import Store
from builder.containers.inspection import ports_json
from builder.containers.lookup import every, find
from builder.containers.settling import settle_all
from builder.containers.types import BadOption, Container
from builder.errors import PybuildError
from runtime.jsonlog import parse_time
from runtime.state import NEVER, State

_STATES = frozenset({"created", "restarting", "running", "removing", "paused", "exited", "dead"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class PsRequest:
    """Flags of ``ps``; ``filters`` are ``key=value`` texts."""

    all: bool = False
    latest: bool = False
    last: int = -1
    filters: tuple[str, ...] = ()
    size: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PsRow:
    """One container of ``ps``."""

    id: str
    name: str
    image: str
    command: str
    created_ns: int
    state: str
    status: str
    ports: str
    labels: dict[str, str]
    mounts: tuple[str, ...]
    network: str
    size_rw: int | None = None
    size_root: int | None = None


def ps(store: Store, request: PsRequest | None = None, *, now_ns: int | None = None) -> tuple[PsRow, ...]:
    """The containers that match, newest first."""
    request = request or PsRequest()
    now_ns = time.time_ns() if now_ns is None else now_ns
    settle_all(store)
    filters = _parse(request.filters)
    last = 1 if request.latest else request.last
    containers = every(store)
    wide = request.all or last > 0 or any(key in filters for key in ("status", "exited", "before", "since"))
    found = [
        c for c in _between(store, containers, filters) if (wide or c.state.running) and _matches(c, filters)
    ]
    if last > 0:
        found = found[:last]
    return tuple(_row(store, container, request, now_ns) for container in found)


def _parse(texts: Sequence[str]) -> dict[str, list[str]]:
    known = {
        *("id", "name", "label", "exited", "status", "ancestor", "before", "since"),
        *("volume", "network", "publish", "expose", "health"),
    }
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key not in known:
            raise BadOption(f"invalid filter {text!r}", hint=f"known: {', '.join(sorted(known))}")
        if key == "status" and value not in _STATES:
            raise BadOption(f"invalid filter 'status={value}'")
        if key == "exited" and not value.lstrip("-").isdigit():
            raise BadOption(f"invalid filter 'exited={value}'")
        filters.setdefault(key, []).append(value)
    return filters


def _between(
    store: Store, containers: Sequence[Container], filters: dict[str, list[str]]
) -> Sequence[Container]:
    """``before`` and ``since`` name containers by reference."""
    for ref in filters.get("before", ()):
        limit = find(store, ref).row.created_ns
        containers = [c for c in containers if c.row.created_ns < limit]
    for ref in filters.get("since", ()):
        limit = find(store, ref).row.created_ns
        containers = [c for c in containers if c.row.created_ns > limit]
    return containers


def _matches(container: Container, filters: dict[str, list[str]]) -> bool:
    """Values of one key are alternatives, keys add up."""
    return all(
        any(_matches_one(container, key, value) for value in values) for key, values in filters.items()
    )


def _matches_one(container: Container, key: str, value: str) -> bool:
    found, data = container.state, container.data
    match key:
        case "id":
            return container.id.startswith(value)
        case "name":
            import re

            try:
                return re.search(value.removeprefix("/"), container.name) is not None
            except re.error:
                return value in container.name
        case "label":
            name, sign, wanted = value.partition("=")
            labels = data["Config"]["Labels"]
            return name in labels and (not sign or labels[name] == wanted)
        case "exited":
            return found.status == "exited" and found.exit_code == int(value)
        case "status":
            return found.status == value
        case "ancestor":
            plain = value.removeprefix("sha256:")
            return value == data["Image"] or container.row.image_id.removeprefix("sha256:").startswith(plain)
        case "volume":
            return any(value in (m.get("Name"), m["Destination"]) for m in data["Mounts"])
        case "network":
            return value in (found.network.mode, data["HostConfig"]["NetworkMode"])
        case "publish":
            return any(value in (str(p.host_port), str(p.container_port)) for p in found.network.ports)
        case "expose":
            return value in {key.partition("/")[0] for key in data["Config"].get("ExposedPorts") or {}}
        case "before" | "since":
            return True
        case _:
            return False


def _row(store: Store, container: Container, request: PsRequest, now_ns: int) -> PsRow:
    size_rw = size_root = None
    if request.size:
        try:
            size_rw, size_root = sizes(store, container)
        except PybuildError:
            pass  # removed while we looked
    data = container.data
    return PsRow(
        id=container.id,
        name=container.name,
        image=data["Image"],
        command=" ".join((data["Path"], *data["Args"])),
        created_ns=container.row.created_ns,
        state=container.state.status,
        status=status_text(container.state, now_ns),
        ports=ports_text(container),
        labels=dict(data["Config"]["Labels"]),
        mounts=tuple(entry.get("Name") or entry["Source"] for entry in data["Mounts"]),
        network=container.state.network.mode
        if container.state.running
        else data["HostConfig"]["NetworkMode"],
        size_rw=size_rw,
        size_root=size_root,
    )


def sizes(store: Store, container: Container) -> tuple[int, int]:
    """Bytes of files that the container changed, and of its whole tree."""
    from contextlib import closing

    from builder.containers.changes import changes_of
    from builder.containers.trees import own_tree

    written = sum(change.stat.st_size for change in changes_of(store, container) if change.stat is not None)
    seen: set[tuple[int, int]] = set()
    total = 0
    with closing(own_tree(store, container)) as tree:
        for _, status in tree.walk():
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return written, total


def status_text(found: State, now_ns: int) -> str:
    """``Up 3 minutes (Paused)``, ``Exited (0) 4 minutes ago``, ``Created`` (IO-PS-4)."""
    if found.status in ("running", "paused"):
        since = (parse_time(found.started_at) or now_ns) if found.started_at != NEVER else now_ns
        text = f"Up {duration_text(now_ns - since)}"
        if found.status == "paused":
            text += " (Paused)"
        return text + (" (monitor died)" if found.monitor_lost else "")
    ended = f"({found.exit_code}) {duration_text(now_ns - (parse_time(found.finished_at) or now_ns))} ago"
    if found.status == "restarting":
        return f"Restarting {ended}"
    if found.status == "exited":
        return f"Exited {ended}"
    return "Dead" if found.status == "dead" else "Created"


def duration_text(span_ns: int) -> str:
    """A time span in words, one unit."""
    seconds = max(0, span_ns // 1_000_000_000)
    if seconds < 1:
        return "Less than a second"
    if seconds < _MINUTE:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if seconds < _HOUR:
        minutes = seconds // _MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if seconds < 2 * _DAY:
        hours = round(seconds / _HOUR)
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = seconds // _DAY
    for limit, size, word in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if days < limit:
            return f"{days // size} {word}"
    return f"{days // 365} years"


def ports_text(container: Container) -> str:
    """``0.0.0.0:5001->5000/tcp, 443/tcp``."""
    if not container.state.running:
        return ""
    words = []
    for key, entries in sorted(ports_json(container).items(), key=lambda item: _port_order(item[0])):
        if not entries:
            words.append(key)
        words += [f"{entry['HostIp']}:{entry['HostPort']}->{key}" for entry in entries or ()]
    return ", ".join(words)


def _port_order(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    return (int(number) if number.isdigit() else 0, protocol)
