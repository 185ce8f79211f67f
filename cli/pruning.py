"""What ``prune`` removes beside the build cache: containers, images, volumes, builds on record (GC-02).

``until=`` is docker's filter and looks at when something was made, ``--keep-duration`` at when it was last
used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.errors import PybuildError
from cli.app import App
from cli.filters import Filters, boolean, filters, label_matches
from cli.units import point_in_time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.containers import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which ones may go: all that was not used since ``unused_ns``, and that the filters let through."""

    unused_ns: int | None = None
    made_before_ns: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    others: Filters = field(default_factory=dict)

    @classmethod
    def of(cls, texts: tuple[str, ...], *known: str) -> Chosen:
        """Read ``--filter`` values; ``known`` are keys beside ``until`` and ``label``. Raises UsageError."""
        found = filters(texts, (*known, "label", "until"))
        now_ns = time.time_ns()
        until = tuple(point_in_time_ns(text, now_ns, "filter until") for text in found.pop("until", ()))
        return cls(made_before_ns=until, labels=found.pop("label", ()), others=found)

    @classmethod
    def unused(cls, seconds: float) -> Chosen:
        """What nobody used for so long; 0 = anything."""
        return cls(unused_ns=time.time_ns() - int(seconds * 1e9) if seconds else None)

    def matches(self, made_ns: int, used_ns: int, labels: Mapping[str, str]) -> bool:
        """Whether something made and last used then may go."""
        if self.unused_ns is not None and max(made_ns, used_ns) > self.unused_ns:
            return False
        return all(made_ns < limit for limit in self.made_before_ns) and label_matches(labels, self.labels)


def remove_containers(app: App, chosen: Chosen) -> list[str]:
    """Stopped containers; a container was last used when it ended."""
    from builder.containers import prune
    from runtime.jsonlog import parse_time

    def matches(container: Container) -> bool:
        ended_ns = parse_time(container.state.finished_at) or 0
        labels = container.data.get("Config", {}).get("Labels") or {}
        return chosen.matches(container.row.created_ns, ended_ns, labels)

    return [container.id for container in prune(app.store, matches)]


def remove_images(app: App, chosen: Chosen, *, everything: bool) -> list[str]:
    """Images without a name, or with ``everything`` all, that no container needs; what to say of each."""
    from builder.images import list_images, remove
    from builder.images.naming import container_of

    dangling = [boolean(text, "dangling") for text in chosen.others.get("dangling", ())]
    everything = everything or not all(dangling)
    stored = {image.id: image.created_ns for image in app.store.images.list()}
    lines: list[str] = []
    for row in {row.id: row for row in list_images(app.store)}.values():
        fits = chosen.unused_ns is None or stored.get(row.id, 0) <= chosen.unused_ns
        fits = fits and all(row.created_ns < limit for limit in chosen.made_before_ns)
        if not fits or not (everything or row.dangling) or not label_matches(dict(row.labels), chosen.labels):
            continue
        if container_of(app.store, row.id) is not None:
            continue
        try:
            lines += map(str, remove(app.store, str(row.id), force=True))
        except PybuildError as error:
            app.note(f"pybuild: {error.message}")
    return lines


def remove_volumes(app: App, chosen: Chosen, *, everything: bool) -> list[str]:
    """Anonymous volumes, or all, that no container has mounted."""
    from cli.commands.volume import users, volume_labels

    everything = everything or any(boolean(text, "all") for text in chosen.others.get("all", ()))
    gone = []
    for row in app.store.volumes.list():
        try:
            changed_ns = os.stat(row.path).st_mtime_ns
        except OSError:
            changed_ns = 0
        if not (everything or row.anonymous) or users(app, row.name):
            continue
        if chosen.matches(row.created_ns, changed_ns, volume_labels(row)) and app.store.volumes.remove(
            row.name
        ):
            gone.append(row.name)
    return gone


def remove_builds(app: App, chosen: Chosen) -> list[str]:
    """Builds on record that neither run nor are pinned."""
    from builder.build import history

    return [
        record.ref
        for record in history.records(app.store)
        if not record.running
        and not record.pinned
        and chosen.matches(record.created_ns, record.completed_ns or 0, {})
        and app.store.builds.remove(record.ref)
    ]
