"""Trees given as mappings: relative path to content, as the tar streams that the builder reads."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from builder.errors import UsageError

Content = bytes | str | tuple[bytes | str, int]
"""A file's content (text is UTF-8), or content and mode; the mode is 0644 unless told."""
Tree = Mapping[str, Content]


def tar_of(tree: Tree) -> io.BytesIO:
    """The files of ``tree`` as a tar: owned by root, without times, so that equal trees are equal bytes.

    A path that ends with a slash is a directory. Raises UsageError for a path that leads out of the tree.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree):
            given = tree[path]
            content, mode = given if isinstance(given, tuple) else (given, None)
            data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else bytes(content)
            entry = tarfile.TarInfo(_checked(path))
            if path.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, mode or 0o755
                tar.addfile(entry)
                continue
            entry.mode, entry.size = 0o644 if mode is None else mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    return out


def _checked(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise UsageError(f"{path!r} is not a relative path inside the tree")
    return "/".join(parts)
