"""What the kernel refuses while layers are packed or unpacked: told with the file, and what to try."""

from __future__ import annotations

import errno
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from builder.cache.problems import at_entry
from builder.cache.store import Store
from builder.cache.unpack import apply_layer
from builder.errors import StoreError
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import DiffId
from tests.support.cli import Runner

SPEED = Path("/sys/class/net/lo/speed")
"""A file that says it has 4096 bytes, and gives none: reading it is EINVAL."""


@pytest.mark.root
@pytest.mark.linux
def test_a_file_that_cannot_be_read_while_it_is_packed(tmp_path: Path) -> None:
    (tmp_path / "ctx").mkdir()
    (tmp_path / "ctx/Dockerfile").write_text("FROM scratch\nCOPY f /dir/f\n")
    (tmp_path / "ctx/f").write_text("x")
    command = Runner(tmp_path / "root")
    command.run("build", "-o", "type=cacheonly", str(tmp_path / "ctx"))
    (place,) = (tmp_path / "root/snapshots").glob("*/fs/dir/f")
    subprocess.run(["mount", "--bind", SPEED, place], check=True)
    try:
        done = command.run("build", "-t", "x", str(tmp_path / "ctx"), status=1)
    finally:
        subprocess.run(["umount", place], check=True)
    assert 'cannot pack "/dir/f" into a layer: Invalid argument' in done.err
    assert "Traceback" not in done.err
    command.run("build", "-t", "x", str(tmp_path / "ctx"))


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EIO, "kernel log"), (errno.E2BIG, "extended attributes"), (errno.ENAMETOOLONG, "shorter"),
     (errno.EMFILE, "ulimit"), (errno.ENOSPC, "free some space"), (errno.EINVAL, None)],
)  # fmt: skip
def test_what_to_try(number: int, hint: str | None) -> None:
    error = OSError(number, "as the kernel says", "/proc/self/fd/9/f")
    found = at_entry(error, 'pack "/f" into a layer')
    assert found.message == 'cannot pack "/f" into a layer: as the kernel says'
    assert found.exit_status == 1
    assert found.hint is None if hint is None else hint in str(found.hint)


@pytest.mark.linux
def test_a_blob_that_cannot_be_read_while_it_is_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("f"))
    with Store.open(tmp_path / "root", snapshotter="native") as store:
        digest = store.blobs.put(out.getvalue())
        layer = Descriptor(media_type=OCI_LAYER, digest=digest, size=out.tell())
        file = tmp_path / "root/content/blobs/sha256" / digest.hex
        file.unlink()
        file.symlink_to(SPEED)
        active = store.snapshots.prepare(None)
        with pytest.raises(StoreError, match=r"^cannot unpack layer sha256:.*: Invalid argument") as caught:
            apply_layer(store, active, layer, DiffId(digest))
        assert digest.hex in caught.value.message
