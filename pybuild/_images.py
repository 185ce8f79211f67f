"""``client.images``: thin callers of the image use cases."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from builder import images as cases
from builder.cache.reserve import given_up
from builder.cache.store import Store
from builder.oci.platform import Platform
from builder.registry.hosts import RegistryConfig
from builder.solver.progress import OnEvent

if TYPE_CHECKING:
    from builder.cache.types import StoredImage
    from builder.images import HistoryRow, ImageRow, PushResult
    from pybuild._build import Path


class Images:
    """The images of a client. ``ref`` is a name, an id or the beginning of one; NoSuchImage if none."""

    def __init__(self, store: Store, registries: Callable[[], RegistryConfig]) -> None:
        self._store = store
        self._registries = registries

    def list(
        self, reference: str | None = None, *, filters: Mapping[str, str] | None = None
    ) -> tuple[ImageRow, ...]:
        """One row per name, newest first; ``filters`` as in ``images --filter``."""
        pairs = tuple((filters or {}).items())
        return cases.list_images(self._store, filters=pairs, reference=reference)

    def get(self, ref: str) -> StoredImage:
        """The image: id, names, config, size."""
        return cases.find(self._store, ref)

    def exists(self, ref: str) -> bool:
        """Whether the store has it."""
        return self._store.images.resolve(ref) is not None

    def inspect(self, ref: str, *, platform: str | None = None) -> dict[str, Any]:
        """What ``image inspect`` shows."""
        return cases.inspect_image(self._store, ref, platform=_platform(platform))

    def history(self, ref: str, *, platform: str | None = None) -> tuple[HistoryRow, ...]:
        """How it was made, newest entry first."""
        return cases.history(self._store, ref, platform=_platform(platform))

    def pull(self, ref: str, *, platform: str | None = None, on_event: OnEvent | None = None) -> StoredImage:
        """Fetch it from its registry."""
        return cases.pull(self._store, ref, _platform(platform), on_event, self._registries())

    def push(
        self,
        ref: str,
        *,
        platform: str | None = None,
        all_tags: bool = False,
        on_event: OnEvent | None = None,
    ) -> tuple[PushResult, ...]:
        """Send it to the registry that its name says."""
        wanted = _platform(platform)
        return cases.push(self._store, ref, on_event, self._registries(), platform=wanted, all_tags=all_tags)

    def tag(self, ref: str, name: str) -> None:
        """Give it one more name."""
        cases.tag(self._store, ref, name)

    def remove(self, ref: str, *, force: bool = False) -> tuple[str, ...]:
        """Remove a name, and the image with its last one; what was done, as ``rmi`` says it."""
        with given_up(str(self._store.root)):
            return tuple(map(str, cases.remove(self._store, ref, force=force)))

    def save(
        self,
        refs: str | Sequence[str],
        out: Path | BinaryIO,
        *,
        format: Literal["docker", "oci"] = "docker",  # noqa: A002 - what the flag is called
        platform: str | None = None,
    ) -> None:
        """Write images to a file or stream."""
        names = (refs,) if isinstance(refs, str) else tuple(refs)
        target = FilePath(out) if isinstance(out, str | os.PathLike) else out
        cases.save(self._store, names, target, format, platform=_platform(platform))

    def load(self, source: Path | bytes | BinaryIO, *, platform: str | None = None) -> tuple[str, ...]:
        """Load the images of an archive; their names, or ids where they have none."""
        with ExitStack() as stack:
            stream = _stream(source, stack)
            loaded = cases.load(self._store, stream, platform=_platform(platform))
        return tuple(item.name or str(item.id) for item in loaded)

    def import_(
        self, source: Path | bytes | BinaryIO, name: str | None = None, *, changes: Sequence[str] = ()
    ) -> str:
        """Make an image of a tar of a file system; its id."""
        with ExitStack() as stack:
            return str(cases.import_(self._store, _stream(source, stack), name, tuple(changes)))


def _platform(text: str | None) -> Platform | None:
    return Platform.parse(text) if text else None


def _stream(source: Path | bytes | BinaryIO, stack: ExitStack) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        return source
    from builder.errors import SourceUnavailable

    path = FilePath(source)
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise SourceUnavailable(f"{path}: {error.strerror}", code="file-not-found") from error
