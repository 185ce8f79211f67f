"""Builds driven through the use case, over one store and one launcher, with a busybox base."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from builder import images
from builder.build import BuildRequest, BuildResult, build
from builder.cache.store import Store
from builder.cache.tree import View
from builder.images.select import platform_manifest
from builder.oci.platform import Platform
from cli.machine import LazyMachine
from tests.support.solving import Watcher, busybox_tree

MORE_APPLETS = ("cp", "mv", "sed", "find", "sort", "tar", "chmod", "chown", "df", "mkfifo", "readlink", "du", "nc", "ulimit", "md5sum", "tr", "touch")  # fmt: skip


def base_tar(tmp: Path) -> bytes:
    """A tar of a busybox root directory."""
    tree = tmp / "busybox-tree"
    if not tree.exists():
        busybox_tree(tree)
        for applet in MORE_APPLETS:
            if not (tree / "bin" / applet).is_symlink():
                os.symlink("busybox", tree / "bin" / applet)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(tree, arcname=".")
    return out.getvalue()


class Lab:
    """A store with ``busybox:latest`` in it, and builds over it."""

    def __init__(self, tmp: Path, snapshotter: Literal["auto", "overlay", "native"] = "auto") -> None:
        self.tmp = tmp
        self.store = Store.open(tmp / "root", snapshotter=snapshotter)
        self._machine = LazyMachine()
        self._count = 0
        self.watcher = Watcher()
        self.base = images.import_(self.store, io.BytesIO(base_tar(tmp)), "busybox:latest")

    def close(self) -> None:
        """End the launcher and close the store."""
        self._machine.close()
        self.store.close()

    def context(self, files: dict[str, str | bytes | tuple[str, int]] | None = None) -> Path:
        """A fresh directory with these files; (text, mode) sets a mode."""
        self._count += 1
        root = self.tmp / f"context{self._count}"
        root.mkdir()
        self.write(root, files or {})
        return root

    def write(self, root: Path, files: dict[str, str | bytes | tuple[str, int]]) -> None:
        """Write files below ``root``."""
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text, mode = content if isinstance(content, tuple) else (content, 0o644)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            path.chmod(mode)

    def build(self, context: Path | str, text: str | None = None, **more: Any) -> BuildResult:
        """Build; ``text`` is written as the context's Dockerfile. ``watcher`` has the progress afterwards."""
        if text is not None:
            (Path(context) / "Dockerfile").write_text(text)
        more.setdefault("network", "none")
        return self.run(BuildRequest(context=str(context), **more))

    def run(self, request: BuildRequest) -> BuildResult:
        """Carry out a request as it is."""
        self.watcher = Watcher()
        return build(self.store, request, on_event=self.watcher, machine=self._machine.machine())

    def quick(self, text: str, files: dict[str, Any] | None = None, **more: Any) -> Built:
        """Build a Dockerfile in a fresh context."""
        return Built(self, self.build(self.context(files), text, **more))

    def fresh(self) -> bool:
        """Whether the last build ran anything but internal and source steps."""
        return bool(self.steps_run())

    def steps_run(self) -> list[str]:
        """The Dockerfile steps that the last build really ran."""
        return [
            name for name in self.watcher.ran() if not name.startswith(("[internal]", "exporting", "[context"))
            and " FROM " not in name
        ]  # fmt: skip


class Built:
    """A build's result with its image at hand."""

    def __init__(self, lab: Lab, result: BuildResult, platform: str | None = None) -> None:
        self.lab = lab
        self.result = result
        self.id = result.image_id
        image = lab.store.images.resolve(str(result.digest)) or lab.store.images.resolve(str(result.image_id))
        assert image is not None
        wanted = Platform.parse(platform) if platform else None
        self.found = platform_manifest(lab.store, image.manifest, wanted, "built")
        self.config = self.found.config
        self.json: dict[str, Any] = self.config.to_json()

    @contextmanager
    def tree(self) -> Iterator[View]:
        """The image's files."""
        with self.lab.store.hold() as hold:
            snapshot = images.unpack(self.lab.store, self.found.descriptor, hold)
            with View(self.lab.store.snapshots.layers(snapshot)) as view:
                yield view

    def read(self, path: str) -> str:
        """The text of a file."""
        with self.tree() as view:
            return view.read(view.resolve(path), 1 << 20).decode()

    def stat(self, path: str) -> os.stat_result:
        """The stat of a file."""
        with self.tree() as view:
            found = view.lstat(path)
        assert found is not None, f"{path} is not in the image"
        return found

    def has(self, path: str) -> bool:
        """Whether a path exists."""
        with self.tree() as view:
            return view.lstat(path) is not None

    def names(self, path: str = "") -> list[str]:
        """The names in a directory."""
        with self.tree() as view:
            return [name for name, _ in view.scandir(path)]

    @property
    def layers(self) -> int:
        """How many layers the image has."""
        return len(self.found.manifest.layers)

    def layer_names(self, index: int = -1) -> list[str]:
        """What is in one layer, the last by default."""
        data = self.lab.store.blobs.read(self.found.manifest.layers[index].digest, 1 << 26)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
            return tar.getnames()

    def history(self) -> list[str]:
        """``created_by`` of the entries that this build made."""
        return [entry.created_by for entry in self.config.history]
