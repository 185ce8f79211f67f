"""The client, pull and push against Debian's docker-registry: what a registry of others really answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.store import Store
from builder.errors import NotFoundInRegistry
from builder.exporter.image import assemble_index
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.registry.client import RegistryClient
from builder.registry.hosts import RegistryConfig
from tests.support.registryd import RegistryDaemon
from tests.support.storeimages import make_image

LAYERS: tuple[dict[str, bytes], ...] = ({"a": b"1"}, {"b": bytes(range(256)) * 2000}, {"c": b"3"})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryDaemon]:
    running = RegistryDaemon.start(tmp_path_factory.mktemp("registry"))
    yield running
    running.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other") as opened:
        yield opened


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_round_trip(
    daemon: RegistryDaemon, store: Store, other: Store, tmp_path: Path, compression: str
) -> None:
    name = f"{daemon.address}/team/{compression}:v1"
    image = make_image(store, tmp_path, name, layers=LAYERS, compression=compression)
    assert images.push(store, name)[0].digest == image.manifest.digest
    pulled = images.pull_image(other, name)
    assert (pulled.image.id, pulled.digest) == (image.config_digest, image.manifest.digest)
    with other.hold() as hold:
        assert images.unpack(other, pulled.image, hold)


def test_index_round_trip(daemon: RegistryDaemon, store: Store, other: Store, tmp_path: Path) -> None:
    name = f"{daemon.address}/team/multi:v1"
    arm = make_image(store, tmp_path, platform=Platform("linux", "arm64"), layers=({"arm": b"1"},))
    root = assemble_index(store, [make_image(store, tmp_path, layers=LAYERS), arm])
    store.images.tag(name, root)
    images.push(store, name)
    assert images.resolve_image(other, name, Platform("linux", "arm64")).config == arm.image_config


def test_chunked_uploads_tags_mounts_and_misses(daemon: RegistryDaemon, store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, layers=LAYERS)
    for tag in ("one", "two"):
        store.images.tag(f"{daemon.address}/chunks:{tag}", image.manifest)
        images.push(store, f"{daemon.address}/chunks:{tag}", registry=RegistryConfig(chunk_bytes=100_000))
    client = RegistryClient(RegistryConfig())
    ref = Reference.parse(f"{daemon.address}/chunks")
    assert client.tags(ref) == ("one", "two")
    store.images.tag(f"{daemon.address}/mounted:1", image.manifest)
    images.push(store, f"{daemon.address}/mounted:1")
    assert client.resolve(Reference.parse(f"{daemon.address}/mounted:1")).digest == image.manifest.digest
    assert client.referrers(ref, image.manifest.digest) == ()
    with pytest.raises(NotFoundInRegistry):
        client.resolve(Reference.parse(f"{daemon.address}/chunks:three"))
    with pytest.raises(NotFoundInRegistry):
        client.tags(Reference.parse(f"{daemon.address}/never"))
    client.ping(daemon.address)
    client.close()
