"""Prune and everything that it removes: ages, filters, limits, what is told (GC-02)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.build import history
from builder.cache.store import Store
from cli import main
from tests.support.buildlab import Lab
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
Run = Callable[..., str]
DAY = 86400 * 10**9
TEXT = "FROM busybox\nRUN --mount=type=cache,id=kept,target=/c echo a > /c/f\nCOPY f /f\n"
EVERYTHING = ("prune", "--force", "--volumes", "--history")


@pytest.fixture
def cli(own: Lab, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: the text that it prints, and its complaints."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main.main(["--root", str(own.store.root), *words]) == status
        shown = capsys.readouterr()
        return shown.err if status else shown.out

    return run


def kinds(store: Store) -> dict[str, int]:
    """How many there are of everything that prune can remove."""
    found = dict.fromkeys(("snapshot", "blob", "cachemount", "mirror", "history"), 0)
    for item in store.usage():
        found[item.kind] += 1
    found["image"] = sum(not image.names for image in store.images.list())
    found["container"] = len(store.containers.list())
    found["volume"] = len(store.volumes.list())
    found["build"] = len(list(history.records(store)))
    return found


def one_of_each(own: Lab, cli: Run) -> dict[str, int]:
    """Make at least one thing of every kind."""
    own.build(own.context({"f": "x"}), TEXT)  # an image without a name, a cache mount, a log
    own.store.snapshots.commit(own.store.snapshots.prepare(None))
    own.store.blobs.put(b"a loose blob")
    mirror = own.store.root / "git" / ("a" * 64)
    mirror.mkdir(parents=True)
    (mirror / "HEAD").write_text("ref: refs/heads/main\n")
    (mirror / "objects").mkdir()
    cli("create", "--network=none", "busybox", "true")
    own.store.volumes.create()
    found = kinds(own.store)
    assert all(found.values()), found
    return found


def aged(store: Store) -> None:
    """Everything was used two days ago."""
    for table, columns in {
        "snapshots": ("last_used_ns",),
        "blobs": ("last_used_ns",),
        "cache_mounts": ("last_used_ns",),
        "images": ("created_ns",),
        "containers": ("created_ns",),
        "volumes": ("created_ns",),
        "builds": ("created_ns", "completed_ns"),
    }.items():
        for column in columns:
            store.db.run(f"UPDATE {table} SET {column}={column}-?", (2 * DAY,))
    then = time.time_ns() - 2 * DAY
    for path in (*store.root.glob("git/*"), *store.root.glob("history/*")):
        os.utime(path, ns=(then, then))
    for volume in store.volumes.list():
        os.utime(volume.path, ns=(then, then))


@row("GC-02")
def test_what_is_young_stays_whatever_it_is(own: Lab, cli: Run) -> None:
    before = one_of_each(own, cli)
    for words in (("--keep-duration", "24h"), ("--filter", "until=24h")):
        out = cli(*EVERYTHING, "--all", *words)
        assert kinds(own.store) == before, words
        assert out.splitlines() == ["Total:\t0B"]
    aged(own.store)
    out = cli(*EVERYTHING, "--keep-duration", "24h")
    left = kinds(own.store)
    assert (left["image"], left["container"], left["volume"], left["build"]) == (0, 0, 0, 0)
    assert (left["cachemount"], left["mirror"]) == (0, 0)
    for title in ("Containers", "Images", "Volumes", "Builds"):
        assert f"Deleted {title}:\n" in out
    cli(*EVERYTHING, "--keep-duration", "24h", "--all")
    assert kinds(own.store) == dict.fromkeys(before, 0)
    assert own.store.images.list() == ()


@row("GC-02")
def test_of_two_the_older_one_goes(own: Lab, cli: Run) -> None:
    """One age for each: what was used since stays beside what was not."""
    first = own.build(own.context({"f": "1"}), TEXT)
    aged(own.store)
    second = own.build(own.context({"f": "2"}), TEXT)
    cli(*EVERYTHING, "--keep-duration", "24h")
    left = [str(image.id) for image in own.store.images.list() if not image.names]
    assert left == [second.image_id]
    assert [record.ref for record in history.records(own.store)] == [second.build_id]
    assert not Path(own.store.builds.directory(str(first.build_id))).exists()


@row("GC-02")
def test_limits_on_size_and_fields_are_for_build_cache(own: Lab, cli: Run) -> None:
    before = one_of_each(own, cli)
    for words in (["--keep-storage", "100GB"], ["--keep-storage-min", "100GB"], ["--free-storage", "1"]):
        cli(*EVERYTHING, "--all", *words)
        assert kinds(own.store) == before, words
    out = cli(*EVERYTHING, "--all", "--filter", "type==exec.cachemount").splitlines()
    assert kinds(own.store) == before | {"cachemount": 0}
    assert [line.split()[0] for line in out] == ["ID", out[1].split()[0], "Total:"]
    assert out[1].split()[0].endswith("*")


@row("GC-02")
def test_logs_that_are_needed_stay_and_are_not_counted(own: Lab, cli: Run) -> None:
    pinned = own.build(own.context({"f": "1"}), TEXT)
    loose = own.build(own.context({"f": "2"}), TEXT)
    own.store.builds.pin(str(pinned.build_id))
    rows = {item.id: item for item in own.store.usage() if item.kind == "history"}
    assert {name: (item.in_use, item.uses) for name, item in rows.items()} == {
        "history": (False, 1),
        "history-kept": (True, 1),
    }
    report = own.store.prune(all=True, filters=("type==internal",))
    assert [(item.id, item.size) for item in report.rows] == [("history", rows["history"].size)]
    assert report.size == rows["history"].size
    assert Path(own.store.builds.directory(str(pinned.build_id))).exists()
    assert not Path(own.store.builds.directory(str(loose.build_id))).exists()
    assert history.find(own.store, str(loose.build_id)).status == "completed", "its record stays"


@row("GC-02")
def test_filters_of_the_other_prunes(own: Lab, cli: Run) -> None:
    for value in ("1", "2"):
        own.build(own.context({"f": value}), TEXT + f"LABEL n={value}\n")
        cli("create", "--network=none", "--label", f"n={value}", "busybox", "true")
        cli("volume", "create", "--label", f"n={value}", f"v{value}")
    for verb, made in (("image", "image"), ("container", "container"), ("volume", "volume")):
        more = ("--all",) if verb == "volume" else ()
        for words, left in (("until=24h", 2), ("label=n=3", 2), ("label=n=1", 1), ("until=0s", 0)):
            cli(verb, "prune", "--force", *more, "--filter", words)
            assert kinds(own.store)[made] == left, (verb, words)
        assert "Invalid filter" in cli(verb, "prune", "--force", "--filter", "colour=red", status=2)


@row("GC-02", "LCS-04")
def test_the_tree_of_an_image_that_a_container_keeps_is_known_after_all_is_pruned(own: Lab, cli: Run) -> None:
    own.build(own.context({"f": "1"}), "FROM busybox\nRUN echo one > /one\nCOPY --link f /f\n", tags=("app",))
    cli("create", "--network=none", "--name", "first", "app", "cat", "/one")
    cli("builder", "prune", "--force", "--all")
    before = {info.id for info in own.store.snapshots.list() if info.kind == "committed"}
    cli("run", "--rm", "--network=none", "app", "cat", "/one")
    after = {info.id for info in own.store.snapshots.list() if info.kind == "committed"}
    assert len(after - before) <= 1, "the files of containers, and no tree of the image"
    assert not any(info.chain_id for info in own.store.snapshots.list() if info.id in after - before)


@row("GC-02")
def test_the_total_has_what_images_containers_and_volumes_took(own: Lab, cli: Run, tmp_path: Path) -> None:
    def removed(*words: str) -> float:
        last = cli("prune", "--force", *words).splitlines()[-1].removeprefix("Total:\t")
        number, unit = float(last.rstrip("kMGB")), last.lstrip("0123456789.")
        return number * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]

    random = os.urandom(3 << 20)
    own.build(own.context({"big": random}), "FROM scratch\nCOPY big /\n", tags=("big",))
    archive = str(tmp_path / "big.tar")
    cli("save", "-o", archive, "big")
    cli("rmi", "-f", "big")
    removed("--all")
    cli("load", "-i", archive)
    assert 3.1e6 < removed("--all") < 3.4e6, "an image that was never unpacked is no build cache"
    cli("load", "-i", archive)
    cli("create", "--name", "kept", "--network=none", "big", "/big")
    volume = own.store.volumes.create()
    (Path(volume.path) / "f").write_bytes(random[: 1 << 20])
    cli("rm", "kept")
    assert 1e6 < removed("--volumes") - removed("--volumes") < 1.2e6
