"""What ``rmi`` frees at once, cache mounts as archives, and the verbs around them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.fsck import check
from builder.cache.mirrors import delete_mirror, lock_name, mirrors, note_use
from builder.cache.store import Store
from tests.support.buildlab import Lab, base_tar
from tests.support.cli import Runner

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds here run as root"),
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def command(lab: Lab) -> Runner:
    return Runner(lab.store.root)


def content(store: Store) -> set[str]:
    return {str(digest) for digest, _ in store.blobs.iter()}


def test_rmi_frees_an_image_that_was_loaded_with_what_was_unpacked_of_it(lab: Lab) -> None:
    before = content(lab.store)
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        tar.addfile(member := tarfile.TarInfo("only-here"))
    archive.seek(0)
    images.import_(lab.store, archive, "other")
    image = lab.store.images.resolve("other")
    assert image is not None
    with lab.store.hold() as hold:
        images.unpack(lab.store, image, hold)
    assert content(lab.store) > before
    images.remove(lab.store, "other")
    assert content(lab.store) == before, member
    assert lab.store.snapshots.list() == ()
    assert check(lab.store.root) == ()


def test_rmi_keeps_what_others_need(lab: Lab) -> None:
    first = lab.quick("FROM busybox\nRUN echo 1 > /1\n", tags=("one", "again"))
    lab.quick("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n", tags=("two",))
    layers = {str(item.digest) for item in first.found.manifest.layers}
    images.remove(lab.store, "again")
    assert lab.store.images.resolve("one") is not None
    images.remove(lab.store, "one")
    assert layers <= content(lab.store), "image two has them"
    assert str(first.found.manifest.config.digest) not in content(lab.store)
    images.remove(lab.store, "two")
    assert layers <= content(lab.store), "the build cache has them"
    assert lab.quick("FROM busybox\nRUN echo 1 > /1\n").result.cached_steps == 1
    assert check(lab.store.root) == ()
    lab.store.prune(all=True)
    (left,) = [image for image in lab.store.images.list() if not image.names]
    images.remove(lab.store, str(left.id))
    assert content(lab.store) == {str(d) for d in _of(lab, "busybox")}


def _of(lab: Lab, name: str) -> set[object]:
    from builder.cache.usage import blob_closure

    image = lab.store.images.resolve(name)
    assert image is not None
    return set(blob_closure(lab.store, [str(image.manifest.digest)]))


def test_rmi_leaves_what_a_running_build_holds(lab: Lab, tmp_path: Path) -> None:
    images.import_(lab.store, io.BytesIO(base_tar(tmp_path)), "base")
    context = lab.context({"Dockerfile": "FROM base\nRUN sleep 1 && echo x > /x\n"})
    thread = threading.Thread(target=lambda: lab.build(context))
    thread.start()
    time.sleep(0.4)
    images.remove(lab.store, "base", force=True)
    thread.join()
    assert lab.store.builds.list()[0].status == "completed"
    assert check(lab.store.root) == ()


def test_no_prune_leaves_content_to_the_next_prune(lab: Lab, command: Runner) -> None:
    before = content(lab.store)
    command.run("rmi", "--no-prune", "busybox")
    assert content(lab.store) == before
    lab.store.prune()
    assert content(lab.store) == set()


def test_mounts_travel(lab: Lab, command: Runner, tmp_path: Path) -> None:
    lab.quick(
        "FROM busybox\nRUN --mount=type=cache,id=pk,target=/c"
        " mkdir /c/d && echo 1 > /c/d/f && ln -s d/f /c/l && chmod 640 /c/d/f && chown 7:8 /c/d/f\n"
    )
    (row,) = [
        json.loads(line) for line in command.run("builder", "mounts", "ls", "--format=json").out.splitlines()
    ]
    assert (row["ID"], row["Sharing"], row["InUse"]) == ("/pk", "shared", "false")
    assert command.run("builder", "mounts", "ls", "-q").out == "/pk\n"
    archive = tmp_path / "pk.tar"
    command.run("builder", "mounts", "export", "pk", "-o", archive)
    assert archive.read_bytes() == command.run("builder", "mounts", "export", "/pk").stdout
    with tarfile.open(archive) as tar:
        entry = tar.getmember("d/f")
        assert (entry.mode, entry.uid, entry.gid) == (0o640, 7, 8)
    other = Runner(tmp_path / "other")
    other.run("import", tmp_path / "base.tar", "busybox") if (tmp_path / "base.tar").exists() else None
    other.run("builder", "mounts", "import", "pk", archive)
    assert other.run("builder", "mounts", "export", "pk").stdout == archive.read_bytes()
    assert "--force" in other.run("builder", "mounts", "import", "pk", archive, status=1).err
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    other.run("builder", "mounts", "import", "--force", "pk", "-", stdin=empty.getvalue())
    assert other.run("builder", "mounts", "export", "pk").stdout != archive.read_bytes()
    other.run("builder", "mounts", "rm", "pk")
    assert other.run("builder", "mounts", "ls", "-q").out == ""
    for words in (("export", "pk"), ("rm", "pk"), ("import", "x", tmp_path / "none")):
        assert other.run("builder", "mounts", *words, status=None).status in (1, 2)
    assert check(other.root) == ()


def test_an_import_that_fails_changes_nothing(lab: Lab, command: Runner) -> None:
    with lab.store.cache_mounts.acquire("/pk", "shared") as directory:
        (directory / "f").write_text("kept")
    for bad in (b"", b"no archive" * 200):
        command.run("builder", "mounts", "import", "--force", "pk", "-", stdin=bad, status=1)
    with lab.store.cache_mounts.acquire("/pk", "shared") as directory:
        assert (directory / "f").read_text() == "kept"
        assert "in use" in command.run("builder", "mounts", "rm", "pk", status=1).err
    assert check(lab.store.root) == ()


def test_a_mirror_in_use_stays(lab: Lab) -> None:
    name = "b" * 64
    directory = lab.store.root / "git" / name
    directory.mkdir(parents=True)
    note_use(directory, "https://example.com/r.git")
    note_use(directory, "https://example.com/r.git")
    (found,) = mirrors(str(lab.store.root))
    assert (found.name, found.remote, found.uses) == (name, "https://example.com/r.git", 2)
    with lab.store.lock(lock_name(name)):
        assert not delete_mirror(str(lab.store.root), name)
        lab.store.prune(all=True)
        assert directory.exists()
    lab.store.prune(all=True)
    assert not directory.exists()


def test_fsck_by_hand(lab: Lab, command: Runner) -> None:
    assert command.run("debug", "fsck").err == "clean\n"
    digest = next(iter(lab.store.blobs.iter()))[0]
    path = lab.store.blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    shown = command.run("debug", "fsck", status=1)
    assert f"blob-digest        content/blobs/sha256/{digest.hex}: " in shown.out
    document = json.loads(command.run("debug", "fsck", "--json", status=1).out)
    assert document["clean"] is False
    assert {"blob-digest"} <= {item["code"] for item in document["findings"]}
    assert {"code", "path", "message", "kind"} == set(document["findings"][0])
