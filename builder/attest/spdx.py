"""What a scanner wrote, as attestations (ATT-10, ATT-11)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

from builder.attest.statement import SPDX
from builder.attest.types import Attestation, Subject
from builder.errors import InvalidValue
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

SUFFIX = ".spdx.json"
CORE = "sbom"
"""The name before the first dot of the document that is about the image itself."""

FindLayer = Callable[[str, Sequence[Descriptor]], Digest | None]
"""Which of an image's layers brought the file at a path; None = none of them."""


def read_scan(files: Iterable[tuple[str, bytes]], find_layer: FindLayer) -> tuple[Attestation, ...]:
    """The attestations in a scanner's output: statements about SPDX documents, or the documents alone.

    Raises InvalidValue.
    """
    return tuple(_attestation(name, data, find_layer) for name, data in files)


def _attestation(name: str, data: bytes, find_layer: FindLayer) -> Attestation:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"the scanner's {name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValue(f"the scanner's {name} is not a JSON object")
    subjects: tuple[Subject, ...] | None = None
    document: Any = value
    if "predicateType" in value:
        if value["predicateType"] != SPDX:
            raise InvalidValue(
                f"the scanner's {name} is about {str(value['predicateType'])[:200]!r}", hint=f"want {SPDX}"
            )
        document, subjects = value.get("predicate"), _subjects(name, value.get("subject"))
    elif "spdxVersion" not in value:
        raise InvalidValue(f"the scanner's {name} is neither an in-toto statement nor an SPDX document")
    if not isinstance(document, dict):
        raise InvalidValue(f"the scanner's {name} has no predicate")
    core = name.partition(".")[0] == CORE
    return Attestation(
        name=name,
        predicate_type=SPDX,
        predicate=partial(_completed if core else _as_is, document, find_layer),
        subjects=subjects,
    )


def _subjects(name: str, value: Any) -> tuple[Subject, ...] | None:
    """The subjects that a scanner names itself; None when it leaves that to us."""
    if not value:
        return None
    try:
        return tuple(
            Subject(
                name=str(item["name"]),
                digest=tuple((str(key), str(text)) for key, text in item["digest"].items()),
            )
            for item in value
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidValue(f"the scanner's {name} has a subject without name and digest") from error


def _as_is(document: dict[str, Any], _find: FindLayer, _layers: Sequence[Descriptor]) -> Mapping[str, Any]:
    return document


def _completed(
    document: dict[str, Any], find_layer: FindLayer, layers: Sequence[Descriptor]
) -> Mapping[str, Any]:
    """With the layer that each file came with, where the scanner did not say so."""
    if not layers:
        return document
    found = deepcopy(document)
    packages = found.get("packages")
    lists = [found.get("files")]
    lists += (
        [item.get("files") for item in packages if isinstance(item, dict)]
        if isinstance(packages, list)
        else []
    )
    for files in lists:
        for item in files if isinstance(files, list) else ():
            if not isinstance(item, dict) or item.get("comment") or not isinstance(item.get("fileName"), str):
                continue
            layer = find_layer(item["fileName"], layers)
            if layer is not None:
                item["comment"] = f"layerID: {layer}"
    return found
