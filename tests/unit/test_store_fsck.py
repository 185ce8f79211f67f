"""``fsck`` sees every way in which a state directory can be broken, and says nothing of one that is in order."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cache.containerstore import ContainerRow
from builder.cache.fsck import check
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.errors import StoreError
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import DiffId, Digest
from tests.support.cacheimages import make_image


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with something of everything."""
    root = tmp_path_factory.mktemp("fsck") / "root"
    with Store.open(root, snapshotter="native") as store:
        layer = store.blobs.put(b"layer" * 100)
        store.blobs.put(b"loose")
        base = store.snapshots.commit(store.snapshots.prepare(None))
        active = store.snapshots.prepare(base.id)
        (active.upper / "f").write_text("x")
        top = store.snapshots.commit(active)
        descriptor = Descriptor(media_type=OCI_LAYER, digest=layer, size=500)
        store.snapshots.set_layer(top.id, compression="none", diff_id=DiffId(layer), descriptor=descriptor)
        store.records.save(CacheRecord("key", "op", (top.id, None), parts={"a": ["b"]}))
        store.images.tag("app", make_image(store.blobs, b"image layer").descriptor)
        store.volumes.create("vol")
        rootfs = store.snapshots.prepare(top.id)
        store.containers.create(ContainerRow("c1", "c", "", rootfs.id, 1, {}))
        with store.cache_mounts.acquire("apt", "locked") as mount:
            (mount / "f").write_text("x")
        store.builds.add("b1", {})
        store.builds.finish("b1", "completed")
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "root")
    return tmp_path / "root"


def codes(root: Path, *, fast: bool = False) -> set[str]:
    return {item.code for item in check(root, fast=fast)}


def sql(text: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        with sqlite3.connect(root / "db.sqlite") as db:
            db.execute(text)
        db.close()

    return act


def blob(root: Path, data: bytes) -> Path:
    return root / "content/blobs/sha256" / Digest.of(data).hex


def write(path: str, data: bytes) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(data)

    return act


def remove(path: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        target = root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    return act


def make(path: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        (root / path).mkdir(parents=True)

    return act


def edit_index(root: Path) -> None:
    path = root / "content/index.json"
    document = json.loads(path.read_text())
    document["manifests"] = []
    path.write_text(json.dumps(document))


def grow_index(root: Path) -> None:
    path = root / "content/index.json"
    document = json.loads(path.read_text())
    document["manifests"].append({**document["manifests"][0], "annotations": {}})
    path.write_text(json.dumps(document))


def flip(data: bytes) -> Callable[[Path], None]:
    """Other bytes of the same number."""

    def act(root: Path) -> None:
        path = blob(root, data)
        path.chmod(0o644)
        path.write_bytes(bytes(len(data)))

    return act


def pulled_apart(root: Path) -> None:
    """The layer of an image is gone, row and file."""
    path = blob(root, b"image layer")
    sql(f"DELETE FROM blobs WHERE digest='sha256:{path.name}'")(root)
    path.unlink()


def damaged_manifest(root: Path) -> None:
    digest = json.loads((root / "content/index.json").read_text())["manifests"][0]["digest"]
    path = root / "content/blobs/sha256" / digest.removeprefix("sha256:")
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)


CASES: list[tuple[str, Callable[[Path], None]]] = [
    ("version", remove("VERSION")),
    ("version", write("VERSION", b"99\n")),
    ("no-directory", remove("cachemounts")),
    ("foreign", write("notes.txt", b"x")),
    ("database", write("db.sqlite", b"not a database" * 500)),
    ("database", sql("DROP TABLE record_parts")),
    ("blob-missing", lambda root: blob(root, b"loose").unlink()),
    ("blob-unnamed", write("content/blobs/sha256/" + "a" * 64, b"x")),
    ("blob-unnamed", sql("DELETE FROM blobs WHERE size=5")),
    ("blob-foreign", write("content/blobs/sha256/notes", b"x")),
    ("blob-size", sql("UPDATE blobs SET size=6 WHERE size=5")),
    ("blob-digest", flip(b"loose")),
    ("layout", write("content/oci-layout", b"{}")),
    ("layout", remove("content/oci-layout")),
    ("index", write("content/index.json", b"{")),
    ("index", edit_index),
    ("index", grow_index),
    ("index", sql("DELETE FROM image_names")),
    ("image-incomplete", pulled_apart),
    ("image-manifest", damaged_manifest),
    ("image-name", sql("INSERT INTO image_names VALUES('docker.io/library/b:1', 'sha256:0', 1)")),
    ("layer-diff-id", sql(f"UPDATE snapshot_layers SET diff_id='sha256:{'0' * 64}'")),
    ("layer-descriptor", sql("UPDATE snapshot_layers SET descriptor='{}'")),
    ("layer-blob", sql(f"UPDATE snapshot_layers SET digest='sha256:{'0' * 64}'")),
    ("layer-snapshot", sql("UPDATE snapshot_layers SET snapshot=77")),
    ("snapshot-missing", remove("snapshots/1")),
    ("snapshot-missing", remove("snapshots/2/fs")),
    ("snapshot-unnamed", make("snapshots/zz/fs")),
    ("snapshot-parent", sql("DELETE FROM snapshots WHERE id=1")),
    ("snapshot-parent", sql("UPDATE snapshots SET parent=2 WHERE id=2")),
    ("snapshot-parent", sql("UPDATE snapshots SET kind='active', owner=NULL WHERE id=1")),
    ("snapshot-flat", sql("UPDATE snapshots SET flat=99 WHERE id=2")),
    ("snapshot-work", make("snapshots/2/work")),
    ("snapshot-row", sql("UPDATE snapshots SET driver='magic' WHERE id=2")),
    ("snapshot-owner", sql("UPDATE snapshots SET owner='own-dead' WHERE kind='active'")),
    ("snapshot-owner", sql("DELETE FROM containers")),
    ("record-output", sql("DELETE FROM snapshots WHERE id=2")),
    ("record-output", sql("UPDATE records SET outputs='?!'")),
    ("record-outputs", sql("DELETE FROM record_outputs")),
    ("record-outputs", sql("INSERT INTO record_outputs VALUES(1, 'other')")),
    ("record-parts", sql("DELETE FROM record_parts")),
    ("record-parts", sql("UPDATE record_parts SET parts='['")),
    ("record-parts", sql("INSERT INTO record_parts VALUES('other', '{}')")),
    ("cachemount-missing", lambda root: shutil.rmtree(next((root / "cachemounts").iterdir()))),
    ("cachemount-unnamed", make("cachemounts/x")),
    ("volume-missing", remove("volumes/vol/_data")),
    ("volume-unnamed", sql("DELETE FROM volumes")),
    ("container-unnamed", make("containers/x")),
    ("container-tree", sql("UPDATE containers SET snapshot=77")),
    ("mirror", make("git/abc")),
    ("history-unnamed", sql("DELETE FROM builds")),
    ("leftover", sql("UPDATE builds SET status='running', owner='own-dead'")),
    ("leftover", sql("INSERT INTO trash VALUES('snapshots/gone')")),
    ("leftover", make("tmp/stage-git-fffffff-1-1")),
    ("leftover", write("tmp/hold-fffffff-1-1", b"s 1\n")),
    ("leftover", write("tmp/own-fffffff-1-1", b"")),
    ("leftover", write("tmp/lock-0123", b"")),
    ("leftover", write("tmp/pub-sha256-00-1", b"")),
    ("leftover", make("tmp/gone-fffffff-1-1")),
]  # fmt: skip


def test_nothing_is_wrong_with_a_whole_one(root: Path) -> None:
    assert check(root) == ()
    with Store.open(root) as store, store.hold() as hold:
        assert hold.snapshot("1")
        store.snapshots.prepare("1")
        assert check(root) == ()


@pytest.mark.parametrize(("code", "damage"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)])
def test_damage_is_seen(
    root: Path, code: str, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.cache.fsck._AGAIN_S", (0.01,))
    monkeypatch.setattr("builder.cache.fsckrows._YOUNG_S", 0)
    damage(root)
    found = check(root)
    assert code in {item.code for item in found}, found
    for item in found:
        assert item.path
        assert item.message
        assert (item.kind == "rubbish") == (
            item.code in ("leftover", "foreign") or "is gone" in item.message
        ), item
    assert check(root) == found, "checking changed something"


def test_a_directory_from_before_lazy_snapshots_is_in_order(root: Path) -> None:
    sql("DROP TABLE lazy_snapshots")(root)
    assert check(root) == ()
    with Store.open(root, snapshotter="native") as store:
        assert store.usage()
        store.prune()
    assert codes(root) == set()
    sql("UPDATE snapshots SET driver='lazy' WHERE id=1")(root)
    assert codes(root) == {"database"}, "there, it is needed"


def test_fast_reads_no_blob(root: Path) -> None:
    flip(b"loose")(root)
    assert codes(root, fast=True) == set()
    assert codes(root) == {"blob-digest"}


def test_nothing_is_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cache.fsckrows._YOUNG_S", 0)
    (root / "tmp/stage-x-fffffff-1-1").mkdir()

    def listing() -> list[str]:
        return sorted(str(path) for path in root.rglob("*") if not path.name.startswith("db.sqlite-"))

    before = listing()
    assert check(root) != ()
    assert listing() == before


def test_leftovers_are_gone_after_the_next_opening(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cache.fsckrows._YOUNG_S", 0)
    (root / "tmp/stage-x-fffffff-1-1").mkdir()
    (root / "tmp/gone-fffffff-1-1").mkdir()
    assert codes(root) == {"leftover"}
    Store.open(root).close()
    assert check(root) == ()


def test_what_is_not_there_is_no_state_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        check(tmp_path / "nowhere")
