"""Fetching blobs in parallel: at most four at once (REG-04), equal blobs once, each verified before it is
kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol

from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.reference import Reference
from builder.registry.client import RegistryClient
from builder.registry.parallel import each
from builder.registry.progress import Meter, OnTransfer, Stop


class Writer(Protocol):
    """One blob being written; nothing is kept without ``commit``, which checks what was expected."""

    def write(self, data: bytes, /) -> object: ...

    def commit(self) -> object: ...

    def __enter__(self) -> Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


class Target(Protocol):
    """Where blobs go."""

    def has(self, digest: Digest, /) -> bool: ...

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> Writer: ...


Guard = Callable[[Digest], AbstractContextManager[object]]


def fetch_blobs(
    client: RegistryClient,
    ref: Reference,
    descriptors: Iterable[Descriptor],
    target: Target,
    *,
    on_transfer: OnTransfer | None = None,
    guard: Guard | None = None,
) -> None:
    """Bring every blob that ``target`` lacks from the repository of ``ref``.

    ``guard`` is held around each one, so that processes that want the same blob fetch it once (REG-PULL-3).
    Raises RegistryError or DigestMismatch; the first failure ends the others.
    """
    wanted = {descriptor.digest: descriptor for descriptor in descriptors}
    stop = Stop()

    def one(descriptor: Descriptor) -> None:
        meter = Meter(str(descriptor.digest), descriptor.size, on_transfer)

        def moved(current: int) -> None:
            stop.check()
            meter.at(current)

        with guard(descriptor.digest) if guard is not None else nullcontext():
            if target.has(descriptor.digest):
                meter.finish("already exists")
                return
            with target.writer(expected=descriptor.digest, size=descriptor.size) as writer:
                client.fetch_blob(ref, descriptor, writer, on_bytes=moved, verify=False)
                writer.commit()
        meter.finish()

    missing = []
    for descriptor in wanted.values():
        if target.has(descriptor.digest):
            Meter(str(descriptor.digest), descriptor.size, on_transfer).finish("already exists")
        else:
            missing.append(descriptor)
    each(one, missing, workers=client.config.max_transfers, stop=stop)
