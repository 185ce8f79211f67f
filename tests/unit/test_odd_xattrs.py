"""Extended attributes that cannot be read or set: they end no build, and none that a layer carries is lost unseen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.copytree import merge_trees
from builder.cache.treepaths import copy_xattrs, read_xattrs
from tests.support.buildlab import Lab

REPO = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.linux]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
FOREIGN = bytes.fromhex("0100000300200000000000000000000000000000") + (4242).to_bytes(4, "little")
"""The same capability for user namespaces whose root user is 4242."""
AS_USER = """\
import os, sys
from pathlib import Path
from builder.cache.contenthash import ContentHasher
from builder.cache.copytree import merge_trees
from builder.cache.treepaths import copy_xattrs, read_xattrs
from builder.cache.tree import View
from builder.llb.ops import Copy
from builder.cache.layer import pack
from builder.cache.differ import everything
tree, target = map(Path, sys.argv[1:])
try:
    os.getxattr(tree / "f", "security.capability")
except OSError as error:
    print(error.errno)
print(sorted(read_xattrs(str(tree / "f"))), sorted(read_xattrs(str(tree / "d"))))
ContentHasher(View([tree])).select((Copy(src="/", dest="/", dir_contents=True),))
layer = bytearray()
pack(everything(View([tree])), View([tree]), layer.extend)
print(b"SCHILY.xattr.user.k=v" in layer, b"security.label" in layer)
merge_trees((str(tree),), str(target))
print(sorted(os.listxattr(target / "d")), sorted(os.listxattr(target / "f")))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "f").write_text("f")
    for name in ("d", "f"):
        for key, value in {"user.k": b"v", "trusted.k": b"t", "security.label": b"l"}.items():
            os.setxattr(root / name, key, value)
    os.setxattr(root / "f", "security.capability", FOREIGN)
    return root


def test_in_a_user_namespace(tree: Path, tmp_path: Path) -> None:
    """What is not ours to read (capabilities of others) or to set (labels) is passed over; the rest is there."""
    target = tmp_path / "target"
    target.mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", AS_USER, tree, target],
        capture_output=True, text=True, cwd=REPO, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unreadable, read, packed, copied = done.stdout.splitlines()
    assert unreadable == str(errno.EOVERFLOW)
    assert read == "['security.label', 'user.k'] ['security.label', 'user.k']", (
        "trusted ones are not even listed"
    )
    assert packed == "True False"
    assert copied == "['user.k'] ['user.k']"


def test_names_that_vanish_between_list_and_get(tree: Path) -> None:
    ended = threading.Event()

    def flicker() -> None:
        while not ended.is_set():
            os.setxattr(tree / "f", "user.flicker", b"x")
            os.removexattr(tree / "f", "user.flicker")

    worker = threading.Thread(target=flicker)
    worker.start()
    try:
        for _ in range(3000):
            assert read_xattrs(str(tree / "f"))["user.k"] == b"v"
    finally:
        ended.set()
        worker.join()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Path]:
    """A file system that has no extended attributes."""
    place = tmp_path / "plain"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_context_on_a_file_system_without_them(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        os.setxattr(plain, "user.k", b"v")
    (plain / "d").mkdir()
    (plain / "d/f").write_text("f")
    os.mkfifo(plain / "d/pipe")
    lab = Lab(tmp_path / "lab")
    try:
        assert lab.quick("FROM scratch\nCOPY . /\n").layers == 1
        lab.build(plain, "FROM scratch\nCOPY d /d\n")
    finally:
        lab.close()


def test_what_a_layer_carries_is_not_lost_unseen(tree: Path, plain: Path) -> None:
    with pytest.raises(OSError) as caught:
        copy_xattrs(str(tree / "d"), str(plain))
    assert caught.value.errno == errno.ENOTSUP
    os.removexattr(tree / "d", "user.k")
    copy_xattrs(str(tree / "d"), str(plain))
    os.setxattr(tree / "f", "security.capability", CAPABILITY)
    (tree / "d").rmdir()
    with pytest.raises(OSError):
        merge_trees((str(tree),), str(plain))
