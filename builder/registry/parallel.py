"""Run one function over a few items in threads; the first failure wins and ends the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from builder.cancelling import carried
from builder.registry.progress import Stop, Stopped

T = TypeVar("T")


def each(call: Callable[[T], None], items: Sequence[T], *, workers: int, stop: Stop) -> None:
    """``call`` every item, at most ``workers`` at once; raises the first failure after all have ended."""
    if len(items) <= 1 or workers <= 1:
        for item in items:
            call(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    failures: list[BaseException] = []

    def run(item: T) -> None:
        try:
            stop.check()
            call(item)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            failures.append(error)
            stop.set()

    with ThreadPoolExecutor(max_workers=min(workers, len(items)), thread_name_prefix="transfer") as pool:
        try:
            task = carried(run)
            for future in [pool.submit(task, item) for item in items]:
                future.result()
        except BaseException:
            stop.set()
            raise
    if failures:
        raise failures[0]
