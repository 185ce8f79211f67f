"""``images`` and ``history`` as rows (IC-IMAGES, IC-HIST)."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import BlobMissing, NoSuchImage, UsageError
from builder.exporter.times import parse_rfc3339
from builder.images.select import find, platform_manifest
from builder.images.sizes import layer_sizes
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import Reference

NONE = "<none>"
MISSING = "<missing>"
_FILTERS = ("dangling", "label", "reference", "before", "since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One name of an image, or an image without any; absent texts are ``<none>``. Sizes in bytes."""

    repository: str
    tag: str
    digest: str
    id: Digest
    created_ns: int
    size: int
    platform: Platform
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def dangling(self) -> bool:
        """Whether the image has no name."""
        return self.repository == NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One entry of an image's history; ``id`` is ``<missing>`` for all but the image itself."""

    id: str
    created_ns: int | None
    created_by: str
    size: int
    comment: str = ""
    tags: tuple[str, ...] = ()


def list_images(
    store: Store, *, filters: Sequence[tuple[str, str]] = (), reference: str | None = None
) -> tuple[ImageRow, ...]:
    """The images of the store, newest first, one row per name (IC-IMAGES-2).

    ``filters`` are pairs such as ``("dangling", "true")``, ``("label", "k=v")``, ``("reference", "x*")``,
    ``("before", image)``, ``("since", image)``, ``("until", RFC 3339 time)``; ``reference`` is a repository
    or pattern. Raises UsageError for another filter.
    """
    keep = _Filter(store, filters, reference)
    rows = [
        (image, row)
        for image in store.images.list()
        if keep.image(image)
        for row in _rows(store, image, keep)
    ]
    rows.sort(key=lambda pair: (-pair[1].created_ns, pair[1].repository, pair[1].tag))
    return tuple(row for _, row in rows)


def _rows(store: Store, image: StoredImage, keep: _Filter) -> list[ImageRow]:
    size = image_size(store, image)
    created = created_ns(image)

    def row(repository: str, tag: str, digest: str) -> ImageRow:
        return ImageRow(
            repository=repository,
            tag=tag,
            digest=digest,
            id=image.id,
            created_ns=created,
            size=size,
            platform=image.config.platform,
            labels=image.config.labels,
        )

    digest = str(image.manifest.digest)
    rows = []
    for name in map(Reference.parse, image.names):
        if keep.name(name):
            rows.append(row(name.familiar_name, name.tag or NONE, digest))
    if image.names:
        return rows
    for name in map(Reference.parse, image.digests):
        if keep.name(name):
            rows.append(row(name.familiar_name, NONE, digest))
    if not image.digests and not keep.by_name:
        rows.append(row(NONE, NONE, NONE))
    return rows


class _Filter:
    """What ``filters`` and ``reference`` let through."""

    def __init__(self, store: Store, filters: Sequence[tuple[str, str]], reference: str | None) -> None:
        self._labels: list[str] = []
        self._references: list[str] = [reference] if reference else []
        self._dangling: bool | None = None
        self._before: list[int] = []
        self._since: list[int] = []
        for key, value in filters:
            self._add(store, key, value)

    @property
    def by_name(self) -> bool:
        """Whether an image needs a name to pass."""
        return bool(self._references)

    def _add(self, store: Store, key: str, value: str) -> None:
        if key not in _FILTERS:
            raise UsageError(f"Invalid filter '{key}'", hint=f"known: {', '.join(_FILTERS)}")
        match key:
            case "label":
                self._labels.append(value)
            case "reference":
                self._references.append(value)
            case "before":
                self._before.append(created_ns(find(store, value)))
            case "since":
                self._since.append(created_ns(find(store, value)))
            case "until":
                time_ns = parse_rfc3339(value)
                if time_ns is None:
                    raise UsageError(
                        f"invalid time {value!r} for filter until", hint="want 2006-01-02T15:04:05Z"
                    )
                self._before.append(time_ns)
            case _:
                if value.lower() not in ("true", "1", "false", "0"):
                    raise UsageError(f"invalid filter 'dangling={value}'", hint="true or false")
                self._dangling = value.lower() in ("true", "1")

    def image(self, image: StoredImage) -> bool:
        """Whether the image itself passes."""
        if self._dangling is not None and self._dangling != (not image.names and not image.digests):
            return False
        labels = dict(image.config.labels)
        for wanted in self._labels:
            key, equals, value = wanted.partition("=")
            if key not in labels or (equals and labels[key] != value):
                return False
        created = created_ns(image)
        return all(created < limit for limit in self._before) and all(
            created > limit for limit in self._since
        )

    def name(self, name: Reference) -> bool:
        """Whether one of its names passes."""
        return not self._references or any(_matches(pattern, name) for pattern in self._references)


def _matches(pattern: str, name: Reference) -> bool:
    """Patterns match like paths: ``*`` stays within a component (IC-IMAGES-1)."""
    with_tag = [f"{own}:{name.tag}" for own in (name.familiar_name, name.name) if name.tag]
    texts = with_tag if _has_tag(pattern) else [name.familiar_name, name.name]
    return any(_path_match(text, pattern) for text in texts)


def _has_tag(pattern: str) -> bool:
    return ":" in pattern.rpartition("/")[2]


def _path_match(text: str, pattern: str) -> bool:
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True)
    )


def created_ns(image: StoredImage) -> int:
    """When the image was made; 0 when its config does not say."""
    return parse_rfc3339(image.config.created) or 0


def image_size(store: Store, image: StoredImage) -> int:
    """What the layers take when unpacked, as far as that is known, else as blobs."""
    try:
        found = platform_manifest(store, image.manifest, None, str(image.id))
    except (NoSuchImage, BlobMissing):
        return 0
    return sum(layer_sizes(store, found))


def history(store: Store, text: str, *, platform: Platform | None = None) -> tuple[HistoryRow, ...]:
    """How the image was made, newest entry first (IC-HIST). Raises NoSuchImage."""
    image = find(store, text)
    found = platform_manifest(store, image.manifest, platform, text)
    sizes = iter(layer_sizes(store, found))
    rows = [
        HistoryRow(
            id=MISSING,
            created_ns=parse_rfc3339(entry.created),
            created_by=entry.created_by,
            size=0 if entry.empty_layer else next(sizes, 0),
            comment=entry.comment,
        )
        for entry in found.config.history
    ]
    rows += [HistoryRow(id=MISSING, created_ns=None, created_by="", size=size) for size in sizes]
    if not rows:
        rows = [HistoryRow(id=MISSING, created_ns=parse_rfc3339(found.config.created), created_by="", size=0)]
    top = rows[-1]
    names = tuple(Reference.parse(name).familiar for name in image.names)
    rows[-1] = HistoryRow(
        id=str(found.config_digest),
        created_ns=top.created_ns,
        created_by=top.created_by,
        size=top.size,
        comment=top.comment,
        tags=names,
    )
    return tuple(reversed(rows))
