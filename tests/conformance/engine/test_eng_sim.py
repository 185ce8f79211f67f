"""Images as sources (SIM rows)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.cache.store import Store
from builder.errors import (
    BlobMissing,
    DigestMismatch,
    InvalidValue,
    NoSuchImage,
    PybuildError,
    SourceUnavailable,
)
from builder.exporter.image import assemble_index
from builder.exporter.types import OutputSpec
from builder.oci.config import ImageConfig
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference
from builder.solver.progress import StatusEvent
from builder.sources.policy import Policy
from tests.support.buildlab import Built, Lab
from tests.support.registry import Fault, Registry, running_registry
from tests.support.rows import row
from tests.support.storeimages import make_image

root_only = pytest.mark.root
ARM = Platform("linux", "arm64")
LAYERS: tuple[dict[str, bytes], ...] = ({"a": b"1"}, {"b": bytes(50_000)}, {"c": b"3"})


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


@pytest.fixture
def pushed(store: Store, registry: Registry, tmp_path: Path) -> str:
    """The name of an image of three layers in the registry."""
    name = f"{registry.host}/base:1"
    make_image(store, tmp_path, name, layers=LAYERS)
    images.push(store, name)
    return name


def statuses(lab: Lab) -> list[str]:
    return [event.id for event in lab.watcher.events if isinstance(event, StatusEvent)]


@row("SIM-01")
@root_only
def test_names_and_progress(lab: Lab, registry: Registry, pushed: str) -> None:
    for text, full in (
        ("alpine", "docker.io/library/alpine:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("localhost/x", "localhost/x:latest"),
        (f"q.io/x@sha256:{'0' * 64}", f"q.io/x@sha256:{'0' * 64}"),
    ):
        assert str(Reference.parse(text).with_default_tag()) == full
    lab.quick(f"FROM {pushed}\nCOPY x /\n", {"x": ""})
    seen = statuses(lab)
    layers = [digest for (_, digest), data in registry.blobs.items() if not data.startswith(b"{")]
    assert f"resolve {pushed}" in seen
    assert len(layers) == 3
    assert {f"extracting {digest}" for digest in layers} | set(layers) <= set(seen)
    totals = {
        e.id: (e.current, e.total)
        for e in lab.watcher.events
        if isinstance(e, StatusEvent) and e.id in layers and e.completed_ns
    }
    assert all(current == total > 0 for current, total in totals.values())
    digest = registry.tags["base", "1"]
    built = lab.quick(f"FROM {pushed.removesuffix(':1')}@{digest}\nCOPY x /\n", {"x": ""})
    assert built.names() == ["a", "b", "c", "x"]


@row("SIM-02")
@root_only
def test_platforms(lab: Lab, store: Store, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/multi:1"
    host, arm = (
        make_image(store, tmp_path),
        make_image(store, tmp_path, platform=ARM, layers=({"arm": b"1"},)),
    )
    store.images.tag(name, assemble_index(store, [host, arm]))
    images.push(store, name)
    context = lab.context({"Dockerfile": f"FROM {name}\n"})
    assert Built(lab, lab.build(context)).names() == ["etc"]
    assert Built(lab, lab.build(context, platforms=("linux/arm64",))).names() == ["arm"]
    with pytest.raises(SourceUnavailable, match="no match for platform in manifest: linux/s390x"):
        lab.build(context, platforms=("linux/s390x",))
    single = f"{registry.host}/single:1"
    make_image(store, tmp_path, single, platform=ARM, layers=({"arm": b"1"},))
    images.push(store, single)
    with Store.open(tmp_path / "other") as other:
        assert images.resolve_image(other, single, Platform("linux", "s390x")).config.platform == ARM
        registry.put_manifest(
            "old", "1", b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+json"
        )
        with pytest.raises(InvalidValue, match="schema 1"):
            images.resolve_image(other, f"{registry.host}/old:1")


@row("SIM-03")
@root_only
def test_one_request_per_name(lab: Lab, store: Store, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/once:1"
    make_image(store, tmp_path, name, layers=({"a": b"only in this image"},))
    images.push(store, name)
    before = len(registry.seen)

    def asked() -> list[str]:
        return [seen.method for seen in registry.seen[before:] if "/manifests/" in seen.path]

    text = f"FROM {name} AS a\nFROM {name} AS b\nCOPY --from={name} /a /x\nCOPY --from=a /a /y\n"
    lab.quick(text)
    assert asked() == ["HEAD", "GET"]
    lab.quick(text, pull=True)  # asked once more, by HEAD: the document is here
    assert asked() == ["HEAD", "GET", "HEAD"]


@row("SIM-04")
def test_modes(store: Store, registry: Registry, pushed: str, tmp_path: Path) -> None:
    make_image(store, tmp_path, pushed, layers=({"newer": b""},))  # the store has another one by this name
    local = store.images.resolve(pushed)
    assert local is not None
    count = len(registry.seen)
    for mode in ("default", "local"):
        assert images.resolve_image(store, pushed, mode=mode).digest == local.manifest.digest
    assert len(registry.seen) == count
    assert str(images.resolve_image(store, pushed, mode="pull").digest) == registry.tags["base", "1"]
    with Store.open(tmp_path / "empty") as empty:
        for mode in ("default", "local"):
            assert images.resolve_image(empty, pushed, mode=mode).source == "registry"  # type: ignore[arg-type]


@row("SIM-05")
@root_only
def test_layers_come_when_they_are_needed(lab: Lab, store: Store, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/lazy:1"
    make_image(store, tmp_path, name, layers=({"lazy": b"1"}, {"lazy2": b"2"}))
    images.push(store, name)

    def fetched() -> int:
        return registry.count("GET", "/lazy/blobs/")

    context = lab.context({"x": "", "Dockerfile": f"FROM {name} AS unused\nFROM scratch\nCOPY x /\n"})
    lab.build(context)
    assert registry.count("GET", "/lazy/") == 0  # a stage that is not needed is not even resolved
    lab.build(context, f"FROM {name}\nLABEL a=b\n", outputs=())
    assert fetched() <= 3
    registry.faults.append(Fault(match="GET .*/blobs/", corrupt=True, times=99))
    other = f"{registry.host}/bad:1"
    make_image(store, tmp_path, other, layers=({"bad": b"1"},))
    images.push(store, other)
    with pytest.raises(PybuildError) as caught:
        lab.build(context, f"FROM {other}\nCOPY x /\n")
    assert "digest" in str(caught.value)


@row("SIM-05")
def test_foreign_layers_come_from_their_urls(
    store: Store, registry: Registry, pushed: str, site: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = site
    document = json.loads(registry.manifests["base", registry.tags["base", "1"]][1])
    layer = document["layers"][0]
    data = registry.blobs.pop(("base", layer["digest"]))
    (folder / "foreign").write_bytes(data)
    layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer["urls"] = [f"{url}/foreign"]
    registry.put_manifest("base", "foreign", json.dumps(document).encode(), document["mediaType"])
    name = f"{registry.host}/base:foreign"
    with Store.open(tmp_path / "other") as other:
        found = images.resolve_image(other, name)
        images.ensure_layers(other, found)
        assert other.blobs.has(found.layers[0].digest)
    (folder / "foreign").write_bytes(data[::-1])
    with Store.open(tmp_path / "third") as third, pytest.raises(DigestMismatch):
        images.ensure_layers(third, images.resolve_image(third, name))


def with_attr(key: str, value: str) -> tuple[Policy, ...]:
    rule = {
        "action": "CONVERT",
        "selector": {"identifier": "docker-image://*@sha256:*"},
        "updates": {"attrs": {key: value}},
    }
    return (Policy.parse(json.dumps({"rules": [rule]}).encode()),)


@row("SIM-06")
@root_only
def test_checksum_and_layer_limit(lab: Lab, registry: Registry, pushed: str) -> None:
    context = lab.context({"x": "", "Dockerfile": f"FROM {pushed}\nCOPY x /\n"})

    def build(key: str, value: str) -> Any:
        return lab.build(context, source_policies=with_attr(key, value))

    digest = registry.tags["base", "1"]
    assert Built(lab, build("image.checksum", digest)).names() == ["a", "b", "c", "x"]
    wrong = "sha256:" + "1" * 64
    with pytest.raises(SourceUnavailable) as caught:
        build("image.checksum", wrong)
    assert (
        caught.value.message == f"image digest {digest} for {pushed} does not match expected checksum {wrong}"
    )
    with pytest.raises(
        SourceUnavailable, match="layer limit 4 is greater than the number of layers in the image 3"
    ):
        build("image.layerlimit", "4")
    out = lab.tmp / "limited"
    lab.build(
        context,
        source_policies=with_attr("image.layerlimit", "2"),
        outputs=(OutputSpec(type="local", dest=str(out)),),
    )
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "x"]


@row("SIM-07")
@root_only
def test_empty_images_and_attestations(lab: Lab, store: Store, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/empty:1"
    make_image(store, tmp_path, name, layers=(), config=ImageConfig(platform=host_platform()))
    images.push(store, name)
    built = lab.quick(f"FROM {name}\nCOPY x /\n", {"x": ""})
    assert (built.names(), built.layers) == (["x"], 1)
    multi = f"{registry.host}/attested:1"
    image = make_image(store, tmp_path, layers=({"real": b""},))
    index = json.loads(store.blobs.read(assemble_index(store, [image]).digest, 1 << 20))
    real = index["manifests"][0]
    note = {
        **real,
        "digest": f"sha256:{'2' * 64}",
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    registry.put_manifest(
        "attested", "", store.blobs.read(image.manifest.digest, 1 << 20), image.manifest.media_type
    )
    registry.put_blob("attested", store.blobs.read(image.config_digest, 1 << 20))
    registry.put_manifest(
        "attested", "1", json.dumps({**index, "manifests": [note, real]}).encode(), index["mediaType"]
    )
    with Store.open(tmp_path / "other") as other:
        assert images.resolve_image(other, multi).manifest.digest == image.manifest.digest


@row("SIM-05")
def test_layer_that_nobody_has(store: Store, registry: Registry, pushed: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "other") as other:
        found = images.resolve_image(other, pushed)
        for key in [key for key in registry.blobs if key[1] == str(found.layers[1].digest)]:
            del registry.blobs[key]
        with pytest.raises(PybuildError) as caught:
            images.ensure_layers(other, found)
        assert not isinstance(caught.value, (BlobMissing, NoSuchImage))
        assert registry.host in caught.value.message
        assert images.list_images(other) == ()  # no name without its layers
