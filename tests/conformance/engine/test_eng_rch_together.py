"""Exports to one place at the same time keep each other's records (RCH-15, BET-07)."""

from __future__ import annotations

import fcntl
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from builder.cache.cacheconfig import DIFF_ID_ANNOTATION, CacheConfig
from builder.cache.cachegraph import GraphBuilder
from builder.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from builder.oci.digest import Digest
from builder.remotecache.backend import OnBytes, Say, Sink
from builder.remotecache.exporting import merged
from builder.remotecache.publishing import Publishing, holds
from tests.support.cli import Runner
from tests.support.machines import LayoutCache, Machines, cache
from tests.support.registry import Fault, Registry, running_registry
from tests.support.rows import row

TEXT = "FROM scratch\nCOPY {0} /{0}\n"


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def file(context: Path, name: str) -> Path:
    context.mkdir()
    (context / name).write_text(name)
    (context / "Dockerfile").write_text(TEXT.format(name))
    return context


@pytest.mark.root
@pytest.mark.linux
@row("RCH-15", "BET-07")
def test_two_processes_export_to_one_directory(tmp_path: Path) -> None:
    place, names = tmp_path / "cache", ("one", "two", "three")
    contexts = {name: file(tmp_path / name, name) for name in names}
    runners = {name: Runner(tmp_path / f"machine-{name}" / "root") for name in names}
    runners["one"].build(contexts["one"], "--cache-to", f"type=local,dest={place}")
    first = set(layers(place))
    with (place / "index.json.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = [exporting(runners[name], contexts[name], place) for name in names[1:]]
        # Both have read what is there, have uploaded their layers, and wait for their turn.
        wait_for(lambda: all("sending cache export" in log(contexts[name]) for name in names[1:]))
        uploaded = set(layers(place)) - first
        assert len(uploaded) == 2
        for name in uploaded:
            (place / "blobs/sha256" / name).unlink()  # what a reset=true does to blobs that nothing names yet
    for process, name in zip(running, names[1:], strict=True):
        assert process.wait(60) == 0, log(contexts[name])
    assert len(LayoutCache(place).results()) == 3
    reader = Runner(tmp_path / "reader" / "root")
    for name in names:
        shown = reader.build(contexts[name], "--cache-from", f"type=local,src={place}").err
        assert "CACHED" in shown and "cannot" not in shown, shown


def exporting(machine: Runner, context: Path, place: Path) -> subprocess.Popen[bytes]:
    with context.with_suffix(".log").open("wb") as shown:
        options = ("--progress=plain", "--cache-to", f"type=local,dest={place}")
        return machine.start("build", *options, context, stderr=shown)


def log(context: Path) -> str:
    return context.with_suffix(".log").read_text()


def layers(place: Path) -> list[str]:
    return [path.name for path in (place / "blobs/sha256").iterdir() if path.read_bytes()[:2] == b"\x1f\x8b"]


@pytest.mark.root
@pytest.mark.linux
@row("RCH-15", "BET-07")
def test_who_is_slow_to_upload_adds_to_what_came_meanwhile(many: Machines) -> None:
    slow, fast = many.new(), many.new()
    with running_registry() as registry:
        place = cache(f"type=registry,ref={registry.host}/c")
        registry.faults.append(Fault(match="(PUT|PATCH) .*/blobs/uploads/", delay_s=1.0))
        worker = threading.Thread(
            target=slow.build, args=(slow.context({"a": "a"}), TEXT.format("a")), kwargs={"cache_to": place}
        )
        worker.start()
        wait_for(lambda: registry.faults[0].times == 0)
        fast.build(fast.context({"b": "b"}), TEXT.format("b"), cache_to=place)
        assert worker.is_alive() and results(registry) == 1
        worker.join()
        assert results(registry) == 2


def results(registry: Registry) -> int:
    manifest = json.loads(registry.manifests["c", registry.tags["c", "latest"]][1])
    document = json.loads(registry.blobs["c", manifest["config"]["digest"]])
    return sum("layers" in record for record in document["records"])


def config_of(*names: str) -> CacheConfig:
    builder = GraphBuilder()
    add(builder, *names)
    return builder.config()


def add(builder: GraphBuilder, *names: str) -> None:
    for name in names:
        digest = Digest.of(name.encode())
        layer = Descriptor(
            media_type=OCI_LAYER_GZIP,
            digest=digest,
            size=1,
            annotations=((DIFF_ID_ANNOTATION, str(digest)),),
        )
        builder.add(str(digest), (), [((layer,), 1)])


class Place:
    """A place that cannot keep others out: they write when the test says so."""

    name, workers, label = "exporting", 1, "place"

    def __init__(self, *intruders: str) -> None:
        self.there: tuple[CacheConfig, ...] = ()
        self.intruders = list(intruders)
        self.blobs: set[Digest] = set()
        self.written = 0

    def load(self, say: Say) -> tuple[CacheConfig, ...]:
        return self.there

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self.blobs

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        self.blobs.add(blob.digest)

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None: ...

    @contextmanager
    def turn(self) -> Iterator[bool]:
        yield False

    def publish(self, config: CacheConfig, say: Say) -> None:
        assert {blob.digest for blob in config.blobs()} <= self.blobs, "no document without its blobs"
        self.there = (config,)
        self.written += 1
        if self.intruders:
            self.there = (config_of(self.intruders.pop(0)),)  # read before, written after


@row("RCH-15")
@pytest.mark.parametrize("count", [0, 1, 3])
def test_who_is_overwritten_adds_its_records_again(count: int) -> None:
    others = [f"other{number}" for number in range(count)]
    place = Place(*others)
    for name in others:
        place.blobs.add(Digest.of(name.encode()))

    def upload(blobs: Iterable[Descriptor]) -> None:
        place.blobs |= {blob.digest for blob in blobs}

    own = config_of("own")
    upload(own.blobs())
    publishing = Publishing(
        exporter=place,
        load=lambda: place.load(print),
        merge=lambda found: merged(lambda builder: add(builder, "own"), found, ()),
        upload=upload,
    )
    publishing.run(own, (), lambda _: None)
    assert place.written == count + 1
    assert holds(place.there, own)
    assert not others or holds(place.there, config_of(others[-1]))


@row("RCH-15")
def test_what_holds_what() -> None:
    small, large = config_of("a"), config_of("a", "b")
    assert holds((large,), small) and not holds((small,), large) and not holds((), small)
