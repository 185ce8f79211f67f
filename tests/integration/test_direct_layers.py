"""A COPY whose result only goes into an image file is packed and not written as a tree; all else is as ever."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pybuild
from builder.solver.progress import Event, VertexEvent
from tests.support import bases
from tests.support.cli import Runner

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "root")
    made.load(bases.archive("busybox"))
    yield made
    made.clean()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "src/deep").mkdir(parents=True)
    (root / "src/deep/f").write_text("content")
    (root / "src/hard").hardlink_to(root / "src/deep/f")
    (root / "src/link").symlink_to("deep/f")
    (root / "src/tool").write_text("#!/bin/sh\n")
    (root / "src/tool").chmod(0o4755)
    return root


def lazy(runner: Runner) -> list[str]:
    """Descriptions of the snapshots that are no trees."""
    return [description for description, driver in snapshots(runner.root) if driver == "lazy"]


def snapshots(root: Path) -> list[tuple[str, str]]:
    """Description and driver of each."""
    with sqlite3.connect(root / "db.sqlite") as db:
        return db.execute("SELECT description, driver FROM snapshots ORDER BY id").fetchall()


def top_layer(archive: Path) -> list[tuple[Any, ...]]:
    with tarfile.open(archive) as image:

        def document(digest: str) -> bytes:
            return image.extractfile("blobs/" + digest.replace(":", "/")).read()  # type: ignore[union-attr]

        index = json.loads(image.extractfile("index.json").read())  # type: ignore[union-attr]
        manifest = json.loads(document(index["manifests"][0]["digest"]))
        with tarfile.open(fileobj=io.BytesIO(document(manifest["layers"][-1]["digest"]))) as layer:
            return [
                (e.name, e.type, e.mode, e.uid, e.gid, e.linkname, 0 if e.isdir() else e.mtime, e.size)
                for e in layer
            ]


def test_packed_and_not_written(runner: Runner, context: Path, tmp_path: Path) -> None:
    """The layer is that of a build whose trees are made, and the tree is made when a step wants it."""
    copy = "FROM busybox\nCOPY --chown=7:8 src /app/src/\n"
    (context / "Dockerfile").write_text(copy)
    runner.build(context, "-o", f"type=oci,dest={tmp_path}/packed.tar")
    assert lazy(runner) == ["[2/2] COPY --chown=7:8 src /app/src/"]
    other = Runner(tmp_path / "other")
    other.load(bases.archive("busybox"))
    try:
        other.build(context, "-t", "written")
        assert lazy(other) == []
        other.run("save", "--format=oci", "-o", tmp_path / "written.tar", "written")
    finally:
        other.clean()
    assert top_layer(tmp_path / "packed.tar") == top_layer(tmp_path / "written.tar")
    (context / "Dockerfile").write_text(copy + "RUN cd /app/src && cat link hard && stat -c %a,%u,%g tool\n")
    built = runner.build(context, "-t", "next", "--progress=plain")
    assert "contentcontent" in built.err and "4755,7,8" in built.err
    assert lazy(runner) == []
    runner.run("debug", "fsck")


def test_only_what_nobody_reads(runner: Runner, context: Path, tmp_path: Path) -> None:
    """A copy that a later step builds on is written, and so is one for an output that is a tree."""
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src /a/\nCOPY src /b/\nCOPY --link src /c/\n")
    runner.build(context, "-o", f"type=docker,dest={tmp_path}/i.tar")
    assert {"COPY src /b/", "COPY --link src /c/"} <= {name.partition("] ")[2] for name in lazy(runner)}
    assert "COPY src /a/" not in " ".join(lazy(runner))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY src /d/\n")
    runner.build(context, "-o", f"{tmp_path}/tree")
    assert (tmp_path / "tree/d/deep/f").read_text() == "content"
    assert "COPY src /d/" not in " ".join(lazy(runner))


def test_what_cannot_be_planned_is_written(runner: Runner, context: Path, tmp_path: Path) -> None:
    """An archive to extract needs a tree; errors are those of a written tree."""
    with tarfile.open(context / "a.tar", "w") as tar:
        tar.add(context / "src/tool", "tool")
    (context / "Dockerfile").write_text("FROM busybox\nADD a.tar /x/\n")
    runner.build(context, "-o", f"type=oci,dest={tmp_path}/i.tar")
    assert lazy(runner) == []
    assert ("x/tool", 0o4755) in [(entry[0], entry[2]) for entry in top_layer(tmp_path / "i.tar")]
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src/tool /bin\nCOPY missing /\n")
    failed = runner.build(context, "-o", f"type=oci,dest={tmp_path}/i.tar", status=1)
    assert '"/missing": not found' in failed.err
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src/tool/ /bin/busybox/x\n")
    failed = runner.build(context, "-o", f"type=oci,dest={tmp_path}/i.tar", status=1)
    assert "cannot copy to non-directory: /bin/busybox" in failed.err


def test_space_is_freed_and_the_blob_stays_with_its_snapshot(
    runner: Runner, context: Path, tmp_path: Path
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src /a/\n")
    runner.build(context, "-o", f"type=oci,dest={tmp_path}/i.tar")
    runner.run("rmi", "busybox")
    runner.run("debug", "fsck")
    runner.run("load", "--input", bases.archive("busybox"))
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src /a/\nRUN cat /a/deep/f\n")
    built = runner.build(context, "-t", "kept", "--progress=plain")
    assert "CACHED" in built.err and " content" in built.err
    runner.run("rmi", "kept")
    runner.run("prune", "--all", "--force")
    runner.run("debug", "fsck")
    assert not list((runner.root / "snapshots").iterdir())


def test_what_changed_while_it_was_packed_is_written(context: Path, tmp_path: Path) -> None:
    """SLO-06: what was packed may be some of the old and some of the new content."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY src /src\n")
    changed: list[str] = []

    def change(event: Event) -> None:
        if isinstance(event, VertexEvent) and "COPY" in event.name and event.started_ns and not changed:
            changed.append(event.name)
            (context / "src/tool").write_text("#!/bin/sh\nanother\n")

    root = tmp_path / "quiet"
    output = f"type=oci,dest={tmp_path}/out.tar"
    pybuild.build(context, outputs=[output], root=root, on_event=change)
    assert changed
    assert [driver == "lazy" for _, driver in snapshots(root)] == [True, False], "packed, then written"
    assert ("src/tool", 18) in [(entry[0], entry[-1]) for entry in top_layer(tmp_path / "out.tar")]
