"""Names and ids of images, and index.json beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.store import Store
from builder.errors import BlobMissing, InvalidValue, NoSuchImage
from builder.oci.platform import Platform, host_platform
from tests.support.cacheimages import absent, make_image, make_index


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def index_names(store: Store) -> list[str | None]:
    data = json.loads((store.root / "content/index.json").read_text())
    return [
        item.get("annotations", {}).get("org.opencontainers.image.ref.name") for item in data["manifests"]
    ]


def test_a_tagged_image_is_found_by_name_id_and_prefix(store: Store) -> None:
    made = make_image(store.blobs, b"layer")
    assert store.images.tag("app:1", made.descriptor) is None
    hexpart = made.config.digest.hex
    for text in (
        "app:1",
        "docker.io/library/app:1",
        str(made.config.digest),
        hexpart,
        hexpart[:1],
        hexpart[:12],
    ):
        found = store.images.resolve(text)
        assert found is not None, text
        assert found.id == made.config.digest
    assert found is not None
    assert found.names == ("docker.io/library/app:1",)
    assert found.digests == (f"docker.io/library/app@{made.descriptor.digest}",)
    assert found.manifest == made.descriptor
    assert found.config.env == ("A=1",)
    for text in ("app", "app:2", "", "sha256:", "sha512:" + hexpart, "nope", "BAD name", "g"):
        assert store.images.resolve(text) is None, text


def test_a_name_with_a_digest_is_found(store: Store) -> None:
    made = make_image(store.blobs, b"layer")
    store.images.tag("app:1", made.descriptor)
    assert store.images.resolve(f"app@{made.descriptor.digest}") is not None
    assert store.images.resolve(f"other@{made.descriptor.digest}") is None


def test_several_names_and_moving_one(store: Store) -> None:
    first = make_image(store.blobs, b"1", env="A=1")
    second = make_image(store.blobs, b"2", env="A=2")
    store.images.tag("app", first.descriptor)
    store.images.tag("app:same", first.descriptor)
    assert store.images.tag("app", first.descriptor) is None
    assert store.images.tag("app", second.descriptor) == first.config.digest
    found = store.images.resolve("app:same")
    assert found is not None
    assert found.names == ("docker.io/library/app:same",)
    assert store.images.untag("app:same")
    assert not store.images.untag("app:same")
    assert {image.names for image in store.images.list()} == {(), ("docker.io/library/app:latest",)}
    assert index_names(store) == [None, "docker.io/library/app:latest"]


def test_removing_by_id_takes_all_names(store: Store) -> None:
    made = make_image(store.blobs, b"1")
    store.images.tag("b", made.descriptor)
    store.images.tag("a", made.descriptor)
    names = store.images.remove(made.config.digest)
    assert names == ("docker.io/library/a:latest", "docker.io/library/b:latest")
    assert store.images.list() == ()
    assert index_names(store) == []
    with pytest.raises(NoSuchImage):
        store.images.remove(made.config.digest)


def test_an_ambiguous_prefix_is_refused(store: Store) -> None:
    seen: dict[str, str] = {}
    for number in range(40):
        made = make_image(store.blobs, b"1", env=f"A={number}")
        store.images.add(made.descriptor)
        first = made.config.digest.hex[0]
        if first in seen:
            with pytest.raises(InvalidValue):
                store.images.resolve(first)
            assert store.images.resolve(made.config.digest.hex[:20]) is not None
            return
        seen[first] = made.config.digest.hex
    raise AssertionError("forty digests with different first digits")


def test_an_index_stands_for_the_image_of_this_machine(store: Store) -> None:
    other = Platform("linux", "s390x" if host_platform().architecture != "s390x" else "amd64")
    mine = make_image(store.blobs, b"1", env="A=mine")
    theirs = make_image(store.blobs, b"1", env="A=theirs", platform=other)
    index = make_index(store.blobs, (theirs.descriptor, other), (mine.descriptor, host_platform()))
    store.images.tag("multi", index)
    found = store.images.resolve("multi")
    assert found is not None
    assert found.id == mine.config.digest
    assert found.manifest == index


def test_an_index_with_only_some_images_present(store: Store) -> None:
    other = Platform("linux", "s390x")
    theirs = make_image(store.blobs, b"1", platform=other)
    index = make_index(store.blobs, (absent(b"gone"), host_platform()), (theirs.descriptor, other))
    assert store.images.add(index) == theirs.config.digest
    with pytest.raises(BlobMissing):
        store.images.add(make_index(store.blobs, (absent(b"gone"), host_platform())))


def test_an_image_needs_its_blobs(store: Store) -> None:
    with pytest.raises(BlobMissing):
        store.images.tag("app", absent(b"gone"))
    made = make_image(store.blobs, b"1")
    store.blobs.delete(made.config.digest)
    with pytest.raises(BlobMissing):
        store.images.tag("app", made.descriptor)
    assert store.images.list() == ()


def test_a_bad_name_is_refused(store: Store) -> None:
    made = make_image(store.blobs, b"1")
    with pytest.raises(InvalidValue):
        store.images.tag("Upper Case", made.descriptor)


def test_index_json_follows_after_a_batch_and_after_a_crash(store: Store) -> None:
    made = make_image(store.blobs, b"1")
    with store.batch():
        store.images.tag("a", made.descriptor)
    assert index_names(store) == ["docker.io/library/a:latest"]
    store.db.run("UPDATE meta SET value='0' WHERE key='index_written'")
    (store.root / "content/index.json").write_text("{}")
    Store.open(store.root).close()
    assert index_names(store) == ["docker.io/library/a:latest"]
