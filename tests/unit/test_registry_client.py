"""The registry client against an in-process registry: documents, blobs, faults, redirects (REG-03…05, SIM-05)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from builder.errors import (
    DigestMismatch,
    InvalidValue,
    NotFoundInRegistry,
    RateLimited,
    RegistryError,
    Unauthorized,
)
from builder.oci.descriptor import DOCKER_INDEX, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import Manifest
from builder.oci.reference import Reference
from builder.registry.auth import Credentials, DockerConfig
from builder.registry.client import RegistryClient
from builder.registry.hosts import RegistryConfig
from builder.registry.progress import Transfer
from builder.registry.pull import fetch_blobs
from builder.registry.push import push
from builder.registry.retry import Retrier, retry_after_s
from tests.support.registry import Fault, Registry, running_registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


def client_of(
    registry: Registry, *, credentials: Credentials | None = None, **options: object
) -> RegistryClient:
    auths = ((registry.host, credentials),) if credentials else ()
    config = RegistryConfig(docker=DockerConfig(auths=auths), timeout_s=5, **options)  # type: ignore[arg-type]
    return RegistryClient(config, retrier=Retrier((0.0, 0.0, 0.0), sleep=lambda _s: None))


def blob(data: bytes, kind: str = OCI_LAYER) -> Descriptor:
    return Descriptor(media_type=kind, digest=Digest.of(data), size=len(data))


@dataclass
class Blobs:
    """A blob store in memory."""

    data: dict[Digest, bytes] = field(default_factory=dict)

    def has(self, digest: Digest, /) -> bool:
        return digest in self.data

    def read(self, digest: Digest, limit: int, /) -> bytes:
        return self.data[digest]

    def open(self, digest: Digest, /):  # type: ignore[no-untyped-def]
        import io

        return io.BytesIO(self.data[digest])

    @contextmanager
    def writer(self, *, expected: Digest | None = None, size: int | None = None):  # type: ignore[no-untyped-def]
        yield _Writer(self, expected)

    def put(self, data: bytes, kind: str = OCI_LAYER) -> Descriptor:
        self.data[Digest.of(data)] = data
        return blob(data, kind)


class _Writer:
    def __init__(self, blobs: Blobs, expected: Digest | None) -> None:
        self.blobs, self.bytes, self.expected = blobs, bytearray(), expected

    def write(self, data: bytes) -> None:
        self.bytes += data

    def commit(self) -> None:
        if Digest.of(bytes(self.bytes)) != self.expected:
            raise DigestMismatch("not what was announced")
        self.blobs.put(bytes(self.bytes))


def image(blobs: Blobs, layers: int = 3, size: int = 5000) -> Descriptor:
    found = [blobs.put(bytes([n]) * size) for n in range(layers)]
    config = blobs.put(b'{"architecture":"amd64","os":"linux"}', OCI_CONFIG)
    data = Manifest(config=config, layers=tuple(found)).to_bytes()
    return replace(blobs.put(data), media_type=OCI_MANIFEST)


def test_push_then_pull_moves_every_blob_once(registry: Registry) -> None:
    blobs, client = Blobs(), client_of(registry)
    root = image(blobs)
    ref = Reference.parse(f"{registry.host}/a/b:v1")
    push(client, ref, root, blobs)
    assert registry.tags["a/b", "v1"] == str(root.digest)
    assert client.resolve(ref).digest == root.digest
    found, data = client.manifest(ref)
    assert (found.digest, found.media_type, data) == (root.digest, OCI_MANIFEST, blobs.data[root.digest])
    target, seen = Blobs(), []
    document = json.loads(data)
    layers = [Descriptor.from_json(layer) for layer in document["layers"]]
    fetch_blobs(client, ref, [*layers, layers[0]], target, on_transfer=seen.append)
    assert all(target.data[layer.digest] == blobs.data[layer.digest] for layer in layers)
    assert sum(event.done for event in seen) == len(layers)
    before = registry.count("GET", "/blobs/")
    fetch_blobs(client, ref, layers, target)
    assert registry.count("GET", "/blobs/") == before
    puts = registry.count("PUT", "uploads")
    push(client, ref, root, blobs)
    assert registry.count("PUT", "uploads") == puts  # HEAD found them all (REG-PUSH-2)


def test_no_more_than_four_blobs_move_at_once(registry: Registry) -> None:
    blobs, client = Blobs(), client_of(registry)
    layers = [blobs.put(bytes([n]) * 40000) for n in range(12)]
    for data in blobs.data.values():
        registry.put_blob("x/y", data)
    fetch_blobs(client, Reference.parse(f"{registry.host}/x/y"), layers, Blobs())
    assert 1 < registry.max_busy <= 4


def test_download_goes_on_where_it_broke_off(registry: Registry) -> None:
    data = bytes(range(256)) * 4000
    registry.put_blob("r", data)
    registry.faults += [
        Fault(match="GET .*blobs", truncate_at=300_000),
        Fault(match="GET .*blobs", truncate_at=10),
    ]
    target = Blobs()
    fetch_blobs(client_of(registry), Reference.parse(f"{registry.host}/r"), [blob(data)], target)
    assert target.data[Digest.of(data)] == data
    ranges = [seen.headers.get("range") for seen in registry.seen if "blobs" in seen.path]
    assert ranges[0] is None
    assert ranges[1] == "bytes=300000-"


def test_wrong_bytes_are_refused_and_not_kept(registry: Registry) -> None:
    data = b"payload" * 100
    registry.put_blob("r", data)
    registry.faults.append(Fault(match="GET .*blobs", corrupt=True, times=9))
    target = Blobs()
    with pytest.raises(DigestMismatch):
        fetch_blobs(client_of(registry), Reference.parse(f"{registry.host}/r"), [blob(data)], target)
    assert not target.data


def test_blob_longer_than_its_descriptor_is_cut_off(registry: Registry) -> None:
    data = b"x" * 100_000
    registry.put_blob("r", data)
    short = Descriptor(media_type=OCI_LAYER, digest=Digest.of(data), size=10)
    with pytest.raises(DigestMismatch):
        fetch_blobs(client_of(registry), Reference.parse(f"{registry.host}/r"), [short], Blobs())


def test_manifest_of_another_digest_is_refused(registry: Registry) -> None:
    data = b'{"schemaVersion":2}'
    registry.manifests["r", str(Digest.of(b"other"))] = (OCI_MANIFEST, data)
    with pytest.raises(DigestMismatch):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r@{Digest.of(b'other')}"))


def test_document_that_lies_about_its_kind_is_refused(registry: Registry) -> None:
    blobs = Blobs()
    root = image(blobs)
    registry.put_manifest("r", "v", blobs.data[root.digest], DOCKER_INDEX)
    with pytest.raises(InvalidValue):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))


def test_endless_manifest_is_cut_off(registry: Registry) -> None:
    registry.put_manifest("r", "v", b" " * (5 * 1024 * 1024), OCI_MANIFEST)
    with pytest.raises(RegistryError):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))
    with pytest.raises(InvalidValue):
        client_of(registry).resolve(Reference.parse(f"{registry.host}/r:v"))


def test_schema_1_manifest_is_named_as_such(registry: Registry) -> None:
    registry.put_manifest(
        "r", "v", b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
    with pytest.raises(InvalidValue, match="schema"):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))


def test_server_errors_are_tried_again(registry: Registry) -> None:
    blobs = Blobs()
    root = image(blobs)
    registry.put_manifest("r", "v", blobs.data[root.digest], OCI_MANIFEST)
    registry.faults.append(Fault(match="manifests", status=503, times=3))
    assert client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))[0].digest == root.digest
    registry.faults.append(Fault(match="manifests", status=500, times=9))
    with pytest.raises(RegistryError) as caught:
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))
    assert caught.value.status == 500


def test_dropped_connections_are_tried_again(registry: Registry) -> None:
    blobs = Blobs()
    root = image(blobs)
    registry.faults += [Fault(match="PUT .*uploads", drop=True), Fault(match="PUT .*manifests", drop=True)]
    push(client_of(registry), Reference.parse(f"{registry.host}/r:v"), root, blobs)
    assert registry.tags["r", "v"] == str(root.digest)


def test_retry_after_is_obeyed_and_bounded(registry: Registry) -> None:
    slept: list[float] = []
    client = RegistryClient(RegistryConfig(), retrier=Retrier((1.0,), sleep=slept.append))
    registry.faults.append(Fault(match="manifests", status=429, headers={"Retry-After": "7"}))
    with pytest.raises(NotFoundInRegistry):
        client.manifest(Reference.parse(f"{registry.host}/r:v"))
    assert slept == [7.0]
    registry.faults.append(Fault(match="manifests", status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(RateLimited):
        client.manifest(Reference.parse(f"{registry.host}/r:v"))
    assert retry_after_s("Fri, 01 Jan 2021 00:00:10 GMT", now=1609459200) == 10
    assert retry_after_s("soon") == 0


def test_missing_things_and_dead_registries_have_their_codes(registry: Registry) -> None:
    with pytest.raises(NotFoundInRegistry):
        client_of(registry).resolve(Reference.parse(f"{registry.host}/r:v"))
    with pytest.raises(RegistryError, match="refused"):
        client_of(registry).resolve(Reference.parse("127.0.0.1:1/r:v"))


def test_tags_follow_pages(registry: Registry) -> None:
    for name in ("a", "b", "c", "d", "e"):
        registry.put_manifest("r", name, name.encode(), OCI_MANIFEST)
    registry.page_size = 2
    assert client_of(registry).tags(Reference.parse(f"{registry.host}/r")) == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("native", [True, False])
def test_referrers_with_and_without_the_interface(registry: Registry, native: bool) -> None:
    registry.support_referrers = native
    subject = Digest.of(b"subject")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "text/x",
        "subject": {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 7},
    }
    data = json.dumps(document).encode()
    digest = registry.put_manifest("r", "", data, OCI_MANIFEST)
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(data), "artifactType": "text/x"}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    registry.put_manifest("r", f"sha256-{subject.hex}", index, "application/vnd.oci.image.index.v1+json")
    client, ref = client_of(registry), Reference.parse(f"{registry.host}/r")
    assert [str(item.digest) for item in client.referrers(ref, subject)] == [digest]
    assert client.referrers(ref, subject, "text/y") == ()
    assert client.referrers(ref, Digest.of(b"none")) == ()


def test_blob_is_mounted_from_a_known_repository(registry: Registry) -> None:
    blobs, client = Blobs(), client_of(registry)
    root = image(blobs)
    source = Reference.parse(f"{registry.host}/base/image:1")
    push(client, source, root, blobs)
    puts = registry.count("PUT", "uploads")
    notes: list[Transfer] = []
    layers = [d for d in blobs.data if len(blobs.data[d]) == 5000]
    kept = {d: blobs.data.pop(d) for d in layers}  # EXP-14: not here, yet it can be pushed
    push(
        client,
        Reference.parse(f"{registry.host}/own/image:1"),
        root,
        blobs,
        mount_from=lambda _digest: (source,),
        on_transfer=notes.append,
    )
    assert registry.count("PUT", "uploads") == puts
    assert any(event.note == "mounted from base/image" for event in notes)
    registry.support_mount = False
    blobs.data.update(kept)
    push(client, Reference.parse(f"{registry.host}/third:1"), root, blobs, mount_from=lambda _d: (source,))
    assert registry.count("PUT", "uploads") > puts
    assert not registry.uploads  # the session that a refused mount opened is cancelled


def test_large_blobs_go_in_chunks_when_asked_or_refused(registry: Registry) -> None:
    blobs = Blobs()
    root = image(blobs, layers=1, size=100_000)
    push(client_of(registry, chunk_bytes=30_000), Reference.parse(f"{registry.host}/r:1"), root, blobs)
    assert registry.count("PATCH", "uploads") >= 4
    registry.max_put_bytes = 20_000_000
    registry.faults.append(Fault(match=f"PUT .*uploads.*digest.*{Digest.of(bytes(5000)).hex}", status=413))
    push(
        client_of(registry), Reference.parse(f"{registry.host}/q:1"), image(blobs, layers=1, size=5000), blobs
    )
    assert ("q", "1") in registry.tags


def test_empty_blob_can_be_pushed(registry: Registry) -> None:
    blobs = Blobs()
    empty = blobs.put(b"")
    config = blobs.put(b"{}", OCI_CONFIG)
    data = Manifest(config=config, layers=(empty,)).to_bytes()
    root = replace(blobs.put(data), media_type=OCI_MANIFEST)
    push(client_of(registry), Reference.parse(f"{registry.host}/r:1"), root, blobs, by_digest=True)
    assert ("r", str(root.digest)) in registry.manifests
    assert not registry.tags
    target = Blobs()
    fetch_blobs(client_of(registry), Reference.parse(f"{registry.host}/r"), [empty], target)
    assert target.data == {empty.digest: b""}


def test_credentials_do_not_follow_a_redirect_to_another_host(registry: Registry) -> None:
    """CVE-2020-15157 and kin."""
    data = b"z" * 2000
    registry.put_blob("r", data)
    registry.auth = "basic"
    ada = Credentials(username="ada", password="secret")
    with running_registry() as other:
        other.put_blob("r", data)
        registry.faults.append(
            Fault(match="GET .*blobs", redirect_to=f"{other.url()}/v2/r/blobs/{Digest.of(data)}")
        )
        client = client_of(registry, credentials=ada)
        client.has_blob(client.places(Reference.parse(f"{registry.host}/r"), pull=True)[0], Digest.of(data))
        fetch_blobs(client, Reference.parse(f"{registry.host}/r"), [blob(data)], Blobs())
        assert "authorization" in registry.seen[-1].headers
        assert other.seen
        assert all("authorization" not in seen.headers for seen in other.seen)
        # A stranger that asks for a login gets none either.
        other.auth = "bearer"
        registry.faults.append(
            Fault(match="GET .*blobs", redirect_to=f"{other.url()}/v2/r/blobs/{Digest.of(data)}", times=9)
        )
        with pytest.raises(Unauthorized):
            fetch_blobs(client, Reference.parse(f"{registry.host}/r"), [blob(data)], Blobs())
        assert all("authorization" not in seen.headers for seen in other.seen)
        assert not other.token_requests


def test_foreign_layer_address_gets_no_credentials(registry: Registry) -> None:
    data = b"foreign" * 300
    registry.auth = "basic"
    with running_registry() as other:
        other.put_blob("f", data)
        layer = replace(blob(data), urls=(f"{other.url()}/v2/f/blobs/{Digest.of(data)}",))
        client = client_of(registry, credentials=Credentials(username="ada", password="secret"))
        target = Blobs()
        fetch_blobs(client, Reference.parse(f"{registry.host}/r"), [layer], target)
        assert target.data[layer.digest] == data
        assert all("authorization" not in seen.headers for seen in other.seen)


def test_redirect_to_a_file_or_in_circles_is_not_followed(registry: Registry) -> None:
    registry.faults.append(Fault(match="manifests", redirect_to="file:///etc/passwd"))
    with pytest.raises(RegistryError, match="not followed"):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))
    registry.faults.append(Fault(match="manifests", redirect_to="/v2/r/manifests/v", times=99))
    with pytest.raises(RegistryError, match="too many redirects"):
        client_of(registry).manifest(Reference.parse(f"{registry.host}/r:v"))


def test_first_failure_ends_the_other_transfers(registry: Registry) -> None:
    blobs = Blobs()
    layers = [blobs.put(hashlib.sha256(bytes([n])).digest() * 2000) for n in range(8)]
    for data in blobs.data.values():
        registry.put_blob("r", data)
    registry.faults.append(Fault(match=str(layers[1].digest), status=404, times=9))
    with pytest.raises(NotFoundInRegistry):
        fetch_blobs(client_of(registry), Reference.parse(f"{registry.host}/r"), layers, Blobs())
