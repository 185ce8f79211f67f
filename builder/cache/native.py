"""Snapshots as full copies, for where overlay cannot be had: a new one begins as a copy of its parent's tree.

Whiteouts do not exist here; a parent that was made by overlay is merged while it is copied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from builder.cache.problems import translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.types import Driver


class NativeSnapshotter:
    """See ``protocols.Snapshotter``."""

    driver: Driver = "native"
    userxattr = False

    def make(self, directory: str, layers: Sequence[str], *, stacked: bool) -> None:  # noqa: ARG002
        """``fs`` is a copy of the whole parent tree."""
        with translated("make a snapshot"):
            os.mkdir(directory, 0o700)
            os.mkdir(f"{directory}/fs", 0o755)
            os.chmod(f"{directory}/fs", 0o755)  # noqa: S103 (the root of a tree, whatever the umask)
            if layers:
                from builder.cache.copytree import merge_trees

                merge_trees(layers, f"{directory}/fs")

    def settle(self, directory: str) -> None:
        """Nothing to do: a copy has no helpers."""
