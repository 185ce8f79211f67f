"""Making an image's history fit its layers (EXP-07, EXP-08, RPR-01); pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder.exporter.times import parse_rfc3339, rfc3339
from builder.exporter.types import LayerRef
from builder.oci.config import History

COMMENT = "buildkit.exporter.image.v0"


def normalize(
    history: Sequence[History],
    layers: Sequence[LayerRef],
    *,
    now: str,
    epoch: int | None = None,
    base_history: int = 0,
) -> tuple[History, ...]:
    """``history`` with exactly one non-empty entry per layer and a time in every new entry.

    Entries from ``base_history`` on are new: their times are at most ``epoch`` (seconds) when that is given,
    and ``now`` where no layer has one.
    """
    fitted = _with_times_of_layers(_fit(list(history), layers, now), layers, now)
    filled = [
        replace(entry, created=now) if entry.created is None and index >= base_history else entry
        for index, entry in enumerate(_fill(fitted))
    ]
    if epoch is None:
        return tuple(filled)
    limit = epoch * 1_000_000_000
    return tuple(
        entry if index < base_history else replace(entry, created=clamp(entry.created, limit))
        for index, entry in enumerate(filled)
    )


def clamp(created: str | None, limit_ns: int) -> str:
    """``created``, or the limit when that is earlier or there is no time."""
    found = parse_rfc3339(created)
    if found is None or found > limit_ns or created is None:
        return rfc3339(limit_ns)
    return created


def _fit(history: list[History], layers: Sequence[LayerRef], now: str) -> list[History]:
    """As many non-empty entries as layers: surplus ones at the end become empty, missing ones are
    appended."""
    count = 0
    for index, entry in enumerate(history):
        if entry.empty_layer:
            continue
        if count >= len(layers):
            history[index] = replace(entry, empty_layer=True)
        else:
            count += 1
    history.extend(
        History(created=layer.created or now, created_by=layer.created_by, comment=COMMENT)
        for layer in layers[count:]
    )
    return history


def _with_times_of_layers(history: list[History], layers: Sequence[LayerRef], now: str) -> list[History]:
    remaining = iter(layers)
    out: list[History] = []
    for entry in history:
        if not entry.empty_layer:
            layer = next(remaining)
            if entry.created is None:
                entry = replace(entry, created=layer.created or (None if layer.base else now))
        out.append(entry)
    return out


def _fill(history: list[History]) -> list[History]:
    """Entries without a time take that of the first later entry that follows a gap, then of their
    predecessor."""
    created = _first_new_time(history)
    after_gap = False
    out: list[History] = []
    for entry in history:
        if entry.created is None:
            after_gap = True
            entry = replace(entry, created=created)
        elif after_gap:
            created = entry.created
        out.append(entry)
    return out


def _first_new_time(history: Sequence[History]) -> str | None:
    """The first time after a gap; without any, the last time there is."""
    created: str | None = None
    gap = False
    for entry in history:
        if entry.created is None:
            gap = True
        else:
            created = entry.created
            if gap:
                break
    return created
