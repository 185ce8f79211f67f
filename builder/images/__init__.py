"""The image use cases: pull, push, tag, remove, list, inspect, save, load, import, unpack.

Everything takes the store first and returns values. Names are looked up on first use, so that importing this
package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.images.changes import apply_changes
    from builder.images.importing import import_
    from builder.images.inspection import docker_config_json, inspect_image
    from builder.images.layout import import_layout
    from builder.images.listing import HistoryRow, ImageRow, history, list_images
    from builder.images.loading import Loaded, import_archive, load
    from builder.images.naming import ImageConflict, RemovedLine, remove, tag
    from builder.images.resolve import ResolvedBase, ensure_layers, resolve_image
    from builder.images.saving import save
    from builder.images.select import PlatformManifest, find, platform_manifest
    from builder.images.transfer import PullResult, PushResult, pull, pull_all_tags, pull_image, push
    from builder.images.unpacking import unpack, unpack_layers

_HOMES = {
    "changes": ("apply_changes",),
    "importing": ("import_",),
    "inspection": ("docker_config_json", "inspect_image"),
    "layout": ("import_layout",),
    "listing": ("HistoryRow", "ImageRow", "history", "list_images"),
    "loading": ("Loaded", "import_archive", "load"),
    "naming": ("ImageConflict", "RemovedLine", "remove", "tag"),
    "resolve": ("ResolvedBase", "ensure_layers", "resolve_image"),
    "saving": ("save",),
    "select": ("PlatformManifest", "find", "platform_manifest"),
    "transfer": ("PullResult", "PushResult", "pull", "pull_all_tags", "pull_image", "push"),
    "unpacking": ("unpack", "unpack_layers"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "HistoryRow",
    "ImageConflict",
    "ImageRow",
    "Loaded",
    "PlatformManifest",
    "PullResult",
    "PushResult",
    "RemovedLine",
    "ResolvedBase",
    "apply_changes",
    "docker_config_json",
    "ensure_layers",
    "find",
    "history",
    "import_",
    "import_archive",
    "import_layout",
    "inspect_image",
    "list_images",
    "load",
    "platform_manifest",
    "pull",
    "pull_all_tags",
    "pull_image",
    "push",
    "remove",
    "resolve_image",
    "save",
    "tag",
    "unpack",
    "unpack_layers",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
