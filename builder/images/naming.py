"""``tag`` and ``rmi`` (IC-TAG, IC-RMI-1…4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import BlobMissing, InvalidValue, NoSuchImage, StoreError
from builder.images.select import find
from builder.oci.digest import Digest
from builder.oci.reference import Reference

_TRIES = 3
InUse = Callable[[Digest], str | None]


@dataclass(frozen=True, slots=True)
class RemovedLine:
    """One line of what ``rmi`` did."""

    action: Literal["Untagged", "Deleted"]
    name: str

    def __str__(self) -> str:
        return f"{self.action}: {self.name}"


class ImageConflict(StoreError):
    """An image cannot be removed while something needs it."""

    code = "image-conflict"


def tag(store: Store, source: str, target: str) -> Digest | None:
    """Give the image ``source`` (name or id) one more name; returns the image that had it before, if another.

    Raises NoSuchImage, InvalidValue.
    """
    reference = Reference.parse(target).with_default_tag()
    if reference.digest is not None:
        raise InvalidValue(f"refusing to create a tag with a digest reference: {target}")
    image, before = _named(store, source, str(reference))
    store.events.add("image", "tag", str(image.id), {"name": reference.familiar})
    return before


def _named(store: Store, source: str, name: str) -> tuple[StoredImage, Digest | None]:
    """``source`` gets the name. One that was replaced or removed meanwhile is looked for again."""
    for _ in range(_TRIES):
        image = find(store, source)
        try:
            return image, store.images.tag(name, image.manifest)
        except BlobMissing:
            continue
    image = find(store, source)
    return image, store.images.tag(name, image.manifest)


def remove(
    store: Store, text: str, *, force: bool = False, in_use: InUse | None = None, free: bool = True
) -> tuple[RemovedLine, ...]:
    """Remove a name, and the image with its last one; or, by id, the image with all names.

    ``in_use`` says which container needs an image (by default any in the store). Content that nothing else
    needs goes at once; what builds keep of it is build cache. Without ``free`` all waits for the next prune.
    Raises NoSuchImage, ImageConflict.
    """
    image = find(store, text)
    name = _own_name(image, text)
    users = in_use or (lambda image_id: container_of(store, image_id))
    if name is not None and len(image.names) + len(_digest_names(store, image)) > 1:
        return (_untag(store, image, name),)
    user = users(image.id)
    if not free:
        return _remove(store, image, name, text, user, force=force)
    from builder.cache.release import content_of, release

    same = [str(other.manifest.digest) for other in store.images.list() if other.id == image.id]
    content = content_of(store, same)
    lines = _remove(store, image, name, text, user, force=force)
    if any(line.action == "Deleted" for line in lines):
        release(store, content)
    return lines


def _remove(
    store: Store, image: StoredImage, name: str | None, text: str, user: str | None, *, force: bool
) -> tuple[RemovedLine, ...]:
    if name is not None:
        return _remove_last(store, image, name, user, force=force)
    return _remove_id(store, image, text, user, force=force)


def container_of(store: Store, image_id: Digest) -> str | None:
    """A container that was made from the image."""
    for row in store.containers.list():
        if row.image_id == str(image_id):
            return row.id
    return None


def _remove_last(
    store: Store, image: StoredImage, name: str, user: str | None, *, force: bool
) -> tuple[RemovedLine, ...]:
    if user is not None and not force:
        shown = Reference.parse(name).familiar
        raise ImageConflict(
            f"conflict: unable to remove repository reference {shown!r} (must force) - "
            f"container {user[:12]} is using its referenced image {image.id.hex[:12]}"
        )
    lines = [_untag(store, image, name)]
    if user is None and not _others(store, image):
        lines += _delete(store, image)
    return tuple(lines)


def _remove_id(
    store: Store, image: StoredImage, text: str, user: str | None, *, force: bool
) -> tuple[RemovedLine, ...]:
    same = [other for other in store.images.list() if other.id == image.id]
    names = [name for other in same for name in (*other.names, *_digest_names(store, other))]
    if not force and len({Reference.parse(name).name for name in names}) > 1:
        raise ImageConflict(
            f"conflict: unable to delete {text} (must be forced) - image is referenced in "
            "multiple repositories"
        )
    if user is not None and not force:
        raise ImageConflict(
            f"conflict: unable to delete {image.id.hex[:12]} (must be forced) - image is being used by "
            f"container {user[:12]}",
            hint="remove the container first",
        )
    lines = [_untag(store, image, name) for name in names]
    return (*lines, *_delete(store, image))


def _delete(store: Store, image: StoredImage) -> list[RemovedLine]:
    try:
        store.images.remove(image.id, tagged=False)
    except NoSuchImage:
        return []
    store.events.add("image", "delete", str(image.id), {})
    return [RemovedLine("Deleted", str(image.id))]


def _untag(store: Store, image: StoredImage, name: str) -> RemovedLine:
    store.images.untag(name)
    shown = Reference.parse(name).familiar
    store.events.add("image", "untag", str(image.id), {"name": shown})
    return RemovedLine("Untagged", shown)


def _own_name(image: StoredImage, text: str) -> str | None:
    """``text`` as the image's full name; None when it is an id."""
    try:
        ref = Reference.parse(text).with_default_tag()
    except InvalidValue:
        return None
    if str(ref) in image.names:
        return str(ref)
    return str(ref) if ref.digest is not None and str(ref) in image.digests else None


def _digest_names(store: Store, image: StoredImage) -> tuple[str, ...]:
    """Names of the form ``name@digest`` that the image was given (pulled by digest)."""
    return tuple(
        name
        for name in image.digests
        if (found := store.images.resolve(name)) is not None
        and found.manifest.digest == image.manifest.digest
        and Reference.parse(name).name not in {Reference.parse(other).name for other in image.names}
    )


def _others(store: Store, image: StoredImage) -> bool:
    """Whether a manifest with the same id still has a name."""
    return any(
        other.id == image.id and (other.names or _digest_names(store, other)) for other in store.images.list()
    )
