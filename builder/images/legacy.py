"""Archives from before image configs: one directory per layer with ``json`` and ``layer.tar`` (IMG-02,
IMG-06)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from builder.cache.store import Store
from builder.errors import InvalidValue
from builder.images.loading import Found, layer_descriptor, plain_digest, publish_image
from builder.images.staged import StagedArchive
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import DiffId
from builder.oci.reference import Reference

MAX_LAYERS = 1000
_MAX_JSON_BYTES = 1024 * 1024
_MAX_EMPTY_TAR = 10240


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One directory of the archive."""

    id: str
    parent: str
    meta: dict[str, Any]


def read_legacy(store: Store, staged: StagedArchive) -> tuple[Found, ...]:
    """The images of a v1 archive, () when it is none. Raises InvalidValue, BlobMissing."""
    layers = _layers(staged)
    if not layers:
        return ()
    names = _names(staged)
    tops = names or {
        layer: [] for layer in layers if not any(other.parent == layer for other in layers.values())
    }
    return tuple(
        Found(root=_image(store, staged, _chain(layers, top, staged.name)), names=tuple(refs))
        for top, refs in tops.items()
    )


def _layers(staged: StagedArchive) -> dict[str, _Layer]:
    found: dict[str, _Layer] = {}
    for name in staged.names():
        directory, _, base = name.rpartition("/")
        if (
            base != "json"
            or not directory
            or "/" in directory
            or staged.member(f"{directory}/layer.tar") is None
        ):
            continue
        meta = _object(staged, name)
        parent = meta.get("parent") or ""
        if not isinstance(parent, str):
            raise InvalidValue(f"{staged.name}: {name} has no valid parent")
        found[directory] = _Layer(id=directory, parent=parent, meta=meta)
    return found


def _names(staged: StagedArchive) -> dict[str, list[Reference]]:
    """``repositories``: {repository: {tag: id}}."""
    if staged.member("repositories") is None:
        return {}
    found: dict[str, list[Reference]] = {}
    for repository, tags in _object(staged, "repositories").items():
        if not isinstance(tags, dict):
            raise InvalidValue(f"{staged.name}: repositories must map tags to ids")
        for tag, layer in tags.items():
            found.setdefault(str(layer), []).append(Reference.parse(f"{repository}:{tag}"))
    return found


def _chain(layers: dict[str, _Layer], top: str, name: str) -> list[_Layer]:
    """From the bottom to ``top``."""
    chain: list[_Layer] = []
    current = top
    while current:
        if current not in layers:
            raise InvalidValue(f"{name} is incomplete: layer {current[:80]} is not in it")
        if len(chain) >= MAX_LAYERS:
            raise InvalidValue(f"{name}: layers go in circles")
        chain.append(layers[current])
        current = layers[current].parent
    return chain[::-1]


def _image(store: Store, staged: StagedArchive, chain: list[_Layer]) -> Descriptor:
    history: list[History] = []
    diff_ids: list[DiffId] = []
    descriptors: list[Descriptor] = []
    for layer in chain:
        entry = _history(layer.meta)
        member = staged.member(f"{layer.id}/layer.tar")
        assert member is not None
        if member.size <= _MAX_EMPTY_TAR and not staged.bytes_of(member).strip(b"\0"):
            history.append(replace(entry, empty_layer=True))
            continue
        descriptor = layer_descriptor(store, staged, member, None)
        plain = descriptor.media_type == OCI_LAYER
        diff_ids.append(DiffId(member.digest if plain else plain_digest(store, member.digest)))
        descriptors.append(descriptor)
        history.append(entry)
    top = chain[-1].meta
    config = ImageConfig.from_json(
        {
            "os": top.get("os") or "linux",
            "architecture": top.get("architecture") or "amd64",
            "created": top.get("created"),
            "author": top.get("author") or "",
            "config": top.get("config") or {},
        }
    )
    config = replace(config, diff_ids=tuple(diff_ids), history=tuple(history))
    return publish_image(store, config.to_bytes(), tuple(descriptors))


def _history(meta: dict[str, Any]) -> History:
    """A layer's metadata as a history entry."""
    container = meta.get("container_config")
    command = container.get("Cmd") if isinstance(container, dict) else None
    if isinstance(command, list):
        command = " ".join(str(part) for part in command)
    created = meta.get("created")
    return History(
        created=created if isinstance(created, str) else None,
        created_by=command if isinstance(command, str) else "",
        author=str(meta.get("author") or ""),
        comment=str(meta.get("comment") or ""),
    )


def _object(staged: StagedArchive, name: str) -> dict[str, Any]:
    data = staged.document(name, _MAX_JSON_BYTES) or b""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{staged.name}: {name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValue(f"{staged.name}: {name} must be a JSON object")
    return value
