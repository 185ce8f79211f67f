"""Pulling, resolving and pushing between a store and an in-process registry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.store import Store
from builder.errors import InvalidValue, NoSuchImage, NotFoundInRegistry, RegistryError, UsageError
from builder.exporter.image import assemble_index
from builder.oci.platform import Platform
from builder.solver.progress import Event, StatusEvent
from tests.support.registry import Fault, Registry, running_registry
from tests.support.storeimages import make_image

ARM = Platform("linux", "arm64")
LAYERS: tuple[dict[str, bytes], ...] = ({"a": b"1"}, {"b": bytes(100_000)}, {"c": b"3"})


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other") as opened:
        yield opened


def test_pushed_image_comes_back_with_the_same_id(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    """EX-53"""
    name = f"{registry.host}/ns/name:1"
    image = make_image(store, tmp_path, name, layers=LAYERS)
    events: list[Event] = []
    (pushed,) = images.push(store, name, on_event=events.append)
    assert pushed.digest == image.manifest.digest
    ids = {event.id for event in events if isinstance(event, StatusEvent)}
    assert {"pushing layers", f"pushing manifest for {name}@{image.manifest.digest}"} <= ids
    events.clear()
    result = images.pull_image(other, name, on_event=events.append)
    assert (result.image.id, result.changed) == (image.config_digest, True)
    ids = {event.id for event in events if isinstance(event, StatusEvent)}
    assert f"resolve {name}" in ids
    assert {str(layer.descriptor.digest) for layer in image.layers} <= ids
    assert not images.pull_image(other, name).changed
    assert images.inspect_image(other, name)["RepoDigests"] == [
        f"{registry.host}/ns/name@{image.manifest.digest}"
    ]
    by_digest = images.pull(other, f"{registry.host}/ns/name@{image.manifest.digest}")
    assert by_digest.id == image.config_digest
    images.tag(store, name, f"{registry.host}/ns/name:2")
    assert len(images.push(store, f"{registry.host}/ns/name", all_tags=True)) == 2
    assert [r.ref.tag for r in images.pull_all_tags(other, f"{registry.host}/ns/name")] == ["1", "2"]
    with pytest.raises(UsageError):
        images.pull_all_tags(other, name)


def test_push_needs_a_name_that_exists(store: Store, registry: Registry, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1")
    with pytest.raises(UsageError, match="user name"):
        images.push(store, "a:1")
    with pytest.raises(NoSuchImage):
        images.push(store, f"{registry.host}/none")
    with pytest.raises(InvalidValue):
        images.push(store, f"{registry.host}/a@{image.manifest.digest}")


def test_resolving_a_base_fetches_no_layer(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    """SIM-03, SIM-05: the config now, the layers when somebody needs them, then no question any more."""
    name = f"{registry.host}/base:1"
    image = make_image(store, tmp_path, name, layers=LAYERS)
    images.push(store, name)
    found = images.resolve_image(other, name)
    assert (found.config, found.source) == (image.image_config, "registry")
    assert registry.count("GET", "/blobs/") == 1
    assert images.list_images(other) == ()
    images.ensure_layers(other, found)
    assert registry.count("GET", "/blobs/") == 1 + len(LAYERS)
    assert images.find(other, name).id == image.config_digest
    count = len(registry.seen)
    again = images.resolve_image(other, name)
    assert again.source == "store"
    images.ensure_layers(other, again)
    assert len(registry.seen) == count
    assert images.resolve_image(other, name, mode="pull").source == "registry"
    assert [seen.method for seen in registry.seen[count:]] == ["HEAD"]
    with other.hold() as hold:
        assert images.unpack(other, found.manifest, hold)


def test_platform_is_chosen_from_an_index(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/multi:1"
    host, arm = (
        make_image(store, tmp_path),
        make_image(store, tmp_path, platform=ARM, layers=({"arm": b"1"},)),
    )
    root = assemble_index(store, [host, arm])
    store.images.tag(name, root)
    images.push(store, name)
    assert images.resolve_image(other, name, ARM).config == arm.image_config
    pulled = images.pull_image(other, name)
    assert (pulled.digest, pulled.image.id) == (root.digest, host.config_digest)
    assert not other.blobs.has(arm.layers[0].descriptor.digest)
    with pytest.raises(NoSuchImage, match="s390x"):
        images.resolve_image(other, name, Platform("linux", "s390x"))
    # What is only partly here can still be pushed: the platform that is.
    images.tag(other, name, f"{registry.host}/one:1")
    images.push(other, f"{registry.host}/one:1")
    assert registry.tags["one", "1"] == str(host.manifest.digest)


def test_default_mode_asks_for_a_platform_that_is_not_here(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/multi:1"
    host, arm = (
        make_image(store, tmp_path),
        make_image(store, tmp_path, platform=ARM, layers=({"arm": b"1"},)),
    )
    store.images.tag(name, assemble_index(store, [host, arm]))
    images.push(store, name)
    images.pull(other, name)
    found = images.resolve_image(other, name, ARM)
    assert found.source == "registry"
    images.ensure_layers(other, found)
    assert images.resolve_image(other, name, ARM).source == "store"


def test_missing_image_and_dead_registry(store: Store, registry: Registry) -> None:
    with pytest.raises(NotFoundInRegistry):
        images.resolve_image(store, f"{registry.host}/none:1")
    with pytest.raises(RegistryError):
        images.pull(store, "127.0.0.1:1/none:1")
    with pytest.raises(InvalidValue):
        images.pull(store, "Bad Name")


def test_two_pulls_fetch_each_layer_once(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    """REG-PULL-3"""
    name = f"{registry.host}/base:1"
    make_image(store, tmp_path, name, layers=LAYERS)
    images.push(store, name)
    registry.faults.append(Fault(match="GET .*blobs", delay_s=0.1, times=9))
    found = images.resolve_image(other, name)
    before = registry.count("GET", "/blobs/")
    threads = [threading.Thread(target=images.ensure_layers, args=(other, found)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.count("GET", "/blobs/") - before == len(LAYERS)


def test_base_layers_are_mounted_on_a_push_to_the_same_registry(
    store: Store, other: Store, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/base:1"
    make_image(store, tmp_path, name, layers=LAYERS)
    images.push(store, name)
    images.pull(other, name)
    images.tag(other, name, f"{registry.host}/mine:1")
    puts = registry.count("PUT", "/uploads/")
    images.push(other, f"{registry.host}/mine:1")
    assert registry.count("PUT", "/uploads/") == puts
    assert ("mine", "1") in registry.tags
