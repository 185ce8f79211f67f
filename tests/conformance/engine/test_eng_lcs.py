"""The local cache's state (rows LCS-01 … LCS-06)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.fsck import check
from builder.cache.store import Store
from builder.errors import StoreError
from builder.exporter.types import OutputSpec
from builder.oci.digest import ChainId, Digest
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds here run as root"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def start(own: Lab, text: str, **files: str) -> threading.Thread:
    """A build in a thread, over a store of its own as another process has it."""
    context = own.context({"Dockerfile": text, **files})
    command = Runner(own.store.root)
    thread = threading.Thread(target=lambda: command.build(context, "--network=none"))
    thread.start()
    return thread


# --- LCS-01


@row("LCS-01")
def test_keys_lead_to_chains_of_snapshots_with_blobs(own: Lab) -> None:
    built = own.quick("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
    (top,) = [info for info in own.store.snapshots.list() if "echo 2" in info.description]
    chain = own.store.snapshots.chain(top.id)
    assert [
        ("echo 2" in i.description, "echo 1" in i.description, i.chain_id is not None) for i in chain
    ] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ], "layer on layer on base"
    keys = own.store.db.all("SELECT key FROM record_outputs WHERE snapshot=?", (int(top.id, 36),))
    assert keys, "no key leads to it"
    for (key,) in keys:
        record = own.store.records.lookup(key)
        assert record is not None
        assert record.outputs == (top.id,)
    blob = own.store.snapshots.any_layer(top.id)
    assert blob is not None
    assert blob[1].digest == built.found.manifest.layers[-1].digest


@row("LCS-01")
def test_a_committed_tree_never_changes(own: Lab) -> None:
    own.quick("FROM busybox\nRUN echo 1 > /1\n")
    (one,) = [info for info in own.store.snapshots.list() if "echo 1" in info.description]
    before = own.store.snapshots.diff_dir(one.id)[0].stat().st_mtime_ns
    own.quick("FROM busybox\nRUN echo 1 > /1\nRUN echo changed > /1\n")
    assert own.store.snapshots.diff_dir(one.id)[0].stat().st_mtime_ns == before
    assert (own.store.snapshots.diff_dir(one.id)[0] / "1").read_text() == "1\n"


# --- LCS-02


@row("LCS-02")
def test_what_is_known_of_a_record(own: Lab) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/x bs=1000 count=300\n"
    before = time.time_ns()
    own.quick(text)
    rows = {item.description: item for item in own.store.usage()}
    step = next(item for name, item in rows.items() if "RUN" in name)
    assert (step.record_type, step.kind, len(step.parents)) == ("regular", "snapshot", 1)
    assert before < step.created_ns <= step.last_used_ns < time.time_ns()
    assert 300_000 <= step.size < 400_000
    layer = own.store.snapshots.any_layer(step.id)
    assert layer is not None
    assert str(layer[0]).startswith("sha256:"), "the diff id"
    assert own.store.blobs.has(layer[1].digest)
    base = next(item for item in own.store.snapshots.list() if item.chain_id is not None)
    assert step.parents == (base.id,)
    assert next(item for item in own.store.usage() if item.id == base.id).shared, "an image has it too"
    assert {item.record_type for item in rows.values()} >= {"regular", "exec.cachemount", "internal"}
    own.store.snapshots.set_content_digest(step.id, Digest.of(b"x"))
    assert own.store.snapshots.content_digest(step.id) == Digest.of(b"x")


@row("LCS-02")
def test_uses_are_counted(own: Lab) -> None:
    command = Runner(own.store.root)
    context = own.context({"Dockerfile": "FROM busybox\nRUN echo used\nRUN echo changes\n"})
    command.build(context, "--network=none")

    def uses() -> tuple[int, int]:
        (found,) = [item for item in own.store.usage() if item.description.endswith("RUN echo used")]
        return found.uses, found.last_used_ns

    first = uses()
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo used\nRUN echo changed\n")
    command.build(context, "--network=none")
    assert uses() > first
    assert uses()[1] > first[1]


@row("LCS-02")
def test_sources_have_their_record_types(
    own: Lab, repository: tuple[str, str], site: tuple[str, Path]
) -> None:
    url, root = site
    (root / "download").write_bytes(b"d" * 5000)
    text = (
        f"FROM busybox\nADD {repository[0]}#v1 /git\nADD {url}/download /d\nRUN --mount=target=/c cat /c/f\n"
    )
    own.quick(text, {"f": "x"})
    found: dict[str, set[str]] = {}
    for item in own.store.usage():
        found.setdefault(item.record_type, set()).add(item.kind)
    assert found["source.git.checkout"] == {"snapshot", "mirror"}
    mirror = next(item for item in own.store.usage() if item.kind == "mirror")
    assert repository[0] in mirror.description
    assert mirror.size > 0
    assert mirror.uses >= 1
    assert any(item.description == "download download" for item in own.store.usage())
    assert check(own.store.root) == ()
    own.store.prune(all=True)
    assert os.listdir(own.store.root / "git") == []
    again = own.quick(text + "RUN true\n", {"f": "x"})
    assert again.has("git/a"), "a mirror that was pruned is made again"


# --- LCS-03


@row("LCS-03")
def test_an_active_tree_becomes_immutable_and_a_mount_stays_mutable(own: Lab) -> None:
    active = own.store.snapshots.prepare(None)
    assert next(item for item in own.store.usage() if item.id == active.id).mutable
    done = own.store.snapshots.commit(active)
    assert not next(item for item in own.store.usage() if item.id == done.id).mutable
    with pytest.raises(StoreError):
        own.store.snapshots.commit(active)
    with pytest.raises(StoreError):
        own.store.snapshots.reopen(done.id)
    text = "FROM busybox\nRUN --mount=type=cache,target=/c echo {0} >> /c/log && cat /c/log > /log\n"
    assert own.quick(text.format(1)).read("log") == "1\n"
    assert own.quick(text.format(2)).read("log") == "1\n2\n"
    (mount,) = [item for item in own.store.usage() if item.kind == "cachemount"]
    assert mount.mutable


# --- LCS-04


@row("LCS-04")
def test_equal_layers_of_two_images_are_unpacked_once(own: Lab, tmp_path: Path) -> None:
    first = own.quick("FROM busybox\nRUN echo one > /one\n", tags=("one",))
    second = own.quick("FROM busybox\nRUN echo two > /two\n", tags=("two",))
    with (tmp_path / "both.tar").open("wb") as out:
        images.save(own.store, ["one", "two"], out)
    with Store.open(tmp_path / "other") as other, other.hold() as hold:
        with (tmp_path / "both.tar").open("rb") as file:
            images.load(other, file)
        for name in ("one", "two"):
            image = other.images.resolve(name)
            assert image is not None
            assert images.unpack(other, image, hold)
        infos = other.snapshots.list()
        assert len(infos) == 3, "a base and two layers on it"
        assert len({info.chain_id for info in infos}) == 3
        assert first.found.manifest.layers[0] == second.found.manifest.layers[0]


@row("LCS-04")
def test_a_chain_id_that_is_there_is_taken(store: Store) -> None:
    chain = ChainId(Digest.of(b"chain"))
    one = store.snapshots.commit(store.snapshots.prepare(None), chain_id=chain)
    two = store.snapshots.commit(store.snapshots.prepare(None), chain_id=chain)
    assert one.id == two.id
    assert len(store.snapshots.list()) == 1


@row("LCS-04")
def test_an_image_that_was_built_here_is_not_unpacked_again(own: Lab) -> None:
    made = own.quick("FROM busybox\nRUN echo one > /one\nCOPY --link f /f\n", {"f": "f"}, tags=("app",))
    before = {info.id for info in own.store.snapshots.list()}
    over = own.quick("FROM app\nRUN cat /one /f > /two\n")
    (new,) = [info for info in own.store.snapshots.list() if info.id not in before]
    assert new.parent in before, "the step stands on the tree of the build itself"
    assert over.found.manifest.layers[:-1] == made.found.manifest.layers
    assert over.read("two") == "one\nf"
    command = Runner(own.store.root)
    assert command.run("run", "--rm", "--network=none", "app", "cat", "/one").stdout == b"one\n"
    unpacked = [info.id for info in own.store.snapshots.list() if info.chain_id is not None]
    assert len(unpacked) == 1, "the base, and nothing of the image"
    loaded = own.quick(
        "FROM app\nRUN echo 3 > /three\n", outputs=(OutputSpec.parse("type=image,compression=zstd"),)
    )
    kinds = [layer.media_type.rpartition("+")[2] for layer in loaded.found.manifest.layers]
    assert kinds == ["gzip", "gzip", "gzip", "zstd"], "what it stands on is an image's now"
    assert check(own.store.root) == ()


@row("LCS-04")
def test_a_tree_that_its_layers_do_not_give_is_no_image(own: Lab) -> None:
    spec = OutputSpec.parse("type=image,name=clamped,source-date-epoch=1000,rewrite-timestamp=true")
    own.quick("FROM busybox\nRUN echo one > /one\n", outputs=(spec,))
    assert own.quick("FROM clamped\nRUN stat -c %Y /one > /two\n").read("two") == "1000\n"


# --- LCS-05


@row("LCS-05")
def test_a_killed_build_leaves_nothing_behind(own: Lab) -> None:
    command = Runner(own.store.root)
    context = own.context({"Dockerfile": "FROM busybox\nRUN echo kept > /kept\nRUN sleep 60\n"})
    process = command.start("build", "--network=none", str(context))
    deadline = time.monotonic() + 20
    while not any("sleep 60" in info.description for info in own.store.snapshots.list()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    own.store.prune(all=True)
    assert any("echo kept" in info.description for info in own.store.snapshots.list()), "held while it runs"
    process.kill()
    process.wait()
    time.sleep(1.1)
    assert {item.kind for item in check(own.store.root)} <= {"rubbish"}
    command.run("images")
    assert check(own.store.root) == ()
    assert not any("sleep 60" in info.description for info in own.store.snapshots.list())
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo kept > /kept\n")
    assert own.build(context).cached_steps == 1, "what was finished is kept"


@row("LCS-05")
def test_removals_that_were_marked_are_finished_at_the_next_start(store: Store) -> None:
    digest = store.blobs.put(b"x")
    path = store.blobs.path(digest)
    info = store.snapshots.commit(store.snapshots.prepare(None))
    from builder.cache.trash import trash_blobs, trash_snapshots

    with store.db.write() as tx:
        trash_blobs(tx, (str(digest),))
        trash_snapshots(tx, (int(info.id, 36),))
    assert path.exists(), "only marked"
    Store.open(store.root).close()
    assert not path.exists()
    assert os.listdir(store.root / "snapshots") == []


# --- LCS-06


@row("LCS-06")
def test_two_processes_run_an_equal_step_once(own: Lab) -> None:
    text = "FROM busybox\nRUN sleep 1 && echo done\n"
    threads = [start(own, text), start(own, text)]
    for thread in threads:
        thread.join()
    assert len([info for info in own.store.snapshots.list() if "sleep 1" in info.description]) == 1
    assert sorted(found.status for found in own.store.builds.list()) == ["completed", "completed"]


@row("LCS-06")
def test_a_locked_mount_is_locked_between_processes(own: Lab) -> None:
    step = "RUN --mount=type=cache,id=l,target=/c,sharing=locked"
    text = (
        f"FROM busybox\n{step} test ! -e /c/busy && touch /c/busy && sleep 0.5 && rm /c/busy && echo {{0}}\n"
    )
    for thread in [start(own, text.format(number)) for number in range(3)]:
        thread.join()
    assert [found.status for found in own.store.builds.list()] == ["completed"] * 3


@row("LCS-06")
def test_a_prune_beside_a_build_of_another_process_is_safe(own: Lab) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nCOPY f /f\nRUN sleep 1 && cat /1 /f\n"
    thread = start(own, text, f="x")
    while thread.is_alive():
        own.store.prune(all=True)
    thread.join()
    (found,) = own.store.builds.list()
    assert found.status == "completed"
    assert check(own.store.root) == ()
