"""Progress of image use cases as events."""

from __future__ import annotations

from builder.exporter.steps import Steps
from builder.registry.progress import OnTransfer, Transfer


def transfers(steps: Steps) -> OnTransfer:
    """Reports the transfers of blobs under their digests (SIM-01)."""

    def moved(transfer: Transfer) -> None:
        steps.transfer(
            transfer.id,
            transfer.current,
            transfer.total,
            transfer.started_ns,
            done=transfer.done,
            note=transfer.note,
        )

    return moved
