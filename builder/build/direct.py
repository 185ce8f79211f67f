"""File operations whose result only goes into an image file: packed as a layer, written nowhere as a tree.

The snapshot of such a step is lazy: whoever mounts it later has it made of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from builder.build.layers import LayerMaker, LayerOptions
from builder.build.request import BuildRequest
from builder.cache.differ import Change, planned_changes, root_change
from builder.cache.pack import pack_changes
from builder.cache.plannedtree import PlannedTree
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.types import Recipe
from builder.cancelling import check
from builder.exporter.types import OutputSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.solver.env import Direct

_FILES = frozenset({"oci", "docker"})


def direct_layers(
    store: Store,
    request: BuildRequest,
    outputs: Sequence[OutputSpec],
    makers: Mapping[LayerOptions, LayerMaker],
) -> Direct | None:
    """How to pack such results; None when an output looks at trees, or wants layers that lose something.

    An image in the store is there to be run, so its trees are made while it is built.
    """
    if len(makers) != 1 or any(spec.type not in _FILES for spec in outputs) or request.squash:
        return None
    (options,) = makers
    if options.clamp_s is not None or options.buildkit:
        return None

    def direct(parent: str | None, base: View, tree: PlannedTree, description: str) -> str:
        return _packed(store, options, parent, base, tree, description)

    return direct


def _packed(
    store: Store,
    options: LayerOptions,
    parent: str | None,
    base: View,
    tree: PlannedTree,
    description: str,
) -> str:
    """A lazy snapshot on ``parent``, a committed one whose tree is ``base``, with its layer in the store."""
    from builder.cache.lazy import add

    packed = pack_changes(
        store.blobs,
        _checked([*root_change(base, tree), *planned_changes(base, tree)]),
        tree,
        compression=options.compression,
        level=options.level,
    )
    with store.db.write():
        snapshot = add(store, parent, Recipe("image"), description=description)
        store.snapshots.set_layer(
            snapshot, compression=options.variant, diff_id=packed.diff_id, descriptor=packed.descriptor
        )
    return snapshot


def _checked(found: Sequence[Change]) -> Iterator[Change]:
    """The same changes; stops with Cancelled when the build is."""
    for change in found:
        check()
        yield change
