"""Several machines with one base image and nothing else in common, to carry caches between."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder import images
from builder.remotecache.spec import CacheSpec, parse_all
from builder.solver.progress import StatusEvent, VertexEvent, WarningEvent
from tests.support.buildlab import Lab

INTERNAL = ("importing", "exporting", "preparing", "[internal]", "[context")


class Machines:
    """Makes machines; all have the same ``busybox:latest``."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._labs: list[Lab] = []
        self._base = b""

    def new(self) -> Lab:
        """A machine that never built anything."""
        tmp = self._tmp / f"machine{len(self._labs)}"
        tmp.mkdir()
        if self._labs:
            (tmp / "busybox-tree").symlink_to(self._labs[0].tmp / "busybox-tree")
        lab = Lab(tmp)
        self._labs.append(lab)
        if not self._base:
            out = io.BytesIO()
            images.save(lab.store, ["busybox:latest"], out)
            self._base = out.getvalue()
        else:
            images.load(lab.store, io.BytesIO(self._base))
        return lab

    def close(self) -> None:
        for lab in self._labs:
            lab.close()


@contextmanager
def machines(tmp: Path) -> Iterator[Machines]:
    made = Machines(tmp)
    try:
        yield made
    finally:
        made.close()


def cache(*texts: str) -> tuple[CacheSpec, ...]:
    """Places for caches as the command line names them."""
    return parse_all(texts)


def ran(lab: Lab) -> list[str]:
    """The steps that the last build ran, by what stands after their number."""
    steps = [name.partition("] ")[2] for name in lab.steps_run() if not name.startswith(INTERNAL)]
    return [step for step in steps if not step.startswith("error:")]


def warned(lab: Lab) -> str:
    return "\n".join(event.short for event in lab.watcher.events if isinstance(event, WarningEvent))


def statuses(lab: Lab, vertex: str) -> list[str]:
    """What was shown below the steps of this name."""
    digests = {e.digest for e in lab.watcher.events if isinstance(e, VertexEvent) and e.name == vertex}
    shown = [e.id for e in lab.watcher.events if isinstance(e, StatusEvent) and e.vertex in digests]
    return list(dict.fromkeys(shown))


class LayoutCache:
    """The documents of a cache in a directory."""

    def __init__(self, root: Path, tag: str = "latest") -> None:
        self.root = root
        index = json.loads((root / "index.json").read_text())
        name = "org.opencontainers.image.ref.name"
        (entry,) = [e for e in index["manifests"] if e.get("annotations", {}).get(name) == tag]
        self.manifest = json.loads(self.blob(entry["digest"]))
        if "config" in self.manifest:
            descriptor = self.manifest["config"]
        else:
            descriptor = self.manifest["manifests"][-1]
        self.config_digest = descriptor["digest"]
        self.config: dict[str, Any] = json.loads(self.blob(self.config_digest))

    def blob(self, digest: str) -> bytes:
        return (self.root / "blobs" / digest.replace(":", "/")).read_bytes()

    def record(self, digest: str) -> dict[str, Any]:
        (found,) = [item for item in self.config["records"] if item["digest"] == digest]
        return found

    def results(self) -> list[dict[str, Any]]:
        return [item for item in self.config["records"] if "layers" in item or "chains" in item]


def inline_records(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The records in an image config."""
    records = json.loads(base64.b64decode(config["moby.buildkit.cache.v0"]))
    assert isinstance(records, list)
    return records
