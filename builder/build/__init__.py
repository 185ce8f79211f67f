"""The build use case: a request in, an image (and its exports) out.

``build`` is the one entry; ``BuildRequest`` and ``BuildResult`` are values. What a build needs from the
machine (the store, credentials, secrets' values) arrives in the arguments: nothing here reads the
environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.build.request import BuildRequest, BuildResult

if TYPE_CHECKING:
    from builder.build.machine import Machine
    from builder.cache.store import Store
    from builder.solver.cancel import Cancel
    from builder.solver.progress import OnEvent

__all__ = ["BuildRequest", "BuildResult", "build"]


def build(
    store: Store,
    request: BuildRequest,
    *,
    on_event: OnEvent,
    machine: Machine,
    cancel: Cancel | None = None,
) -> BuildResult:
    """Build what ``request`` asks for. Raises PybuildError; Cancelled when ``cancel`` was set meanwhile.

    ``on_event`` may be called from several threads. Everything heavy is imported only when the result of an
    earlier build does not answer the request.
    """
    if request.reproducible:
        from builder.build.reproducing import build_reproducible

        return build_reproducible(store, request, on_event=on_event, machine=machine, cancel=cancel)
    from builder.build import memo

    if memo.is_eligible(request):
        known = memo.recall(store, request, on_event)
        if known is not None:
            return known
    from builder.build.run import run_build

    return run_build(store, request, on_event=on_event, machine=machine, cancel=cancel)
