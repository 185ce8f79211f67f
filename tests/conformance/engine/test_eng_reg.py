"""The registry client (REG rows)."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.cache.store import Store
from builder.errors import PybuildError, RegistryError, Unauthorized, UsageError
from builder.exporter.types import OutputSpec
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.reference import Reference
from builder.registry.auth import Credentials, DockerConfig
from builder.registry.client import RegistryClient
from builder.registry.hosts import HostConfig, RegistryConfig, endpoints, is_loopback
from builder.registry.http import TlsOptions
from builder.registry.pull import fetch_blobs
from builder.registry.push import plan
from builder.registry.retry import Retrier
from builder.solver.progress import StatusEvent, VertexEvent
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.registry import Fault, Registry, running_registry
from tests.support.rows import row
from tests.support.storeimages import make_image

root_only = pytest.mark.root
_PLAIN = RegistryConfig()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


def known(registry: Registry, *, password: str = "secret", **more: Any) -> RegistryConfig:
    credentials = Credentials(username="ada", password=password)
    return RegistryConfig(docker=DockerConfig(auths=((registry.host, credentials),)), **more)


def put(store: Store, registry: Registry, tmp_path: Path, name: str, config: RegistryConfig = _PLAIN) -> str:
    full = f"{registry.host}/{name}"
    make_image(store, tmp_path, full, layers=({name: name.encode()},))
    images.push(store, full, registry=config)
    return full


@row("REG-01")
@root_only
def test_credentials_of_docker(command: Runner, registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.auth = "bearer"
    name = put(store, registry, tmp_path, "private:1", known(registry))
    home = tmp_path / "docker"
    home.mkdir()
    anonymous = command.run("pull", name, status=1, env={"DOCKER_CONFIG": str(home)}).err
    assert registry.host in anonymous
    auth = base64.b64encode(b"ada:secret").decode()
    (home / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    command.run("pull", name, env={"DOCKER_CONFIG": str(home)})
    assert registry.token_requests[-1] == "repository:private:pull"
    helper = tmp_path / "bin/docker-credential-eng"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\necho "{\\"Username\\": \\"ada\\", \\"Secret\\": \\"secret\\"}"\n')
    helper.chmod(0o755)
    import os

    path = {"PATH": f"{helper.parent}:{os.environ['PATH']}", "DOCKER_CONFIG": str(home)}
    for more in ({"credHelpers": {registry.host: "eng"}}, {"credsStore": "eng"}):
        (home / "config.json").write_text(json.dumps(more))
        command.run("rmi", name)
        command.run("pull", name, env=path)
    (home / "config.json").write_text(json.dumps({"auths": {registry.host: {"identitytoken": "identity"}}}))
    command.run("pull", name, env=path)
    fallback = tmp_path / "home"
    (fallback / ".docker").mkdir(parents=True)
    (fallback / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    command.run("pull", name, env={"DOCKER_CONFIG": "", "HOME": str(fallback)})


@row("REG-01")
def test_tokens_are_kept_and_basic_works(registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.auth = "bearer"
    config = known(registry, user_agent="tokens")
    name = put(store, registry, tmp_path, "n:1", config)
    pushes = len(registry.token_requests)
    assert all(
        scope.startswith("repository:n:pull") for asked in registry.token_requests for scope in asked.split()
    )
    assert pushes <= 2
    with Store.open(tmp_path / "other") as other:
        images.pull(other, name, registry=config)
    assert len(registry.token_requests) <= pushes + 1
    registry.auth = "basic"
    with Store.open(tmp_path / "third") as third:
        images.pull(third, name, registry=known(registry, user_agent="basic"))
        with pytest.raises(Unauthorized, match=f"{registry.host} refuses the user name or password"):
            images.pull(third, name, registry=known(registry, password="wrong"))
        with pytest.raises(Unauthorized, match=f"{registry.host} wants a user name and password"):
            images.pull(third, name, registry=RegistryConfig(user_agent="anonymous"))


@row("REG-02")
@root_only
def test_auth_is_a_step(lab: Lab, registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.auth = "bearer"
    name = put(store, registry, tmp_path, "team/base:1", known(registry))
    config = known(registry, user_agent="step")
    lab.build(lab.context({"x": "", "Dockerfile": f"FROM {name}\nCOPY x /\n"}), registry=lambda: config)
    steps = {e.name for e in lab.watcher.events if isinstance(e, VertexEvent) and e.completed_ns}
    assert f"[auth] team/base:pull token for {registry.host}" in steps
    assert not any("secret" in name for name in steps)


@row("REG-02")
def test_mounting_asks_for_both_repositories(registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.auth = "bearer"
    config = known(registry, user_agent="mount")
    name = put(store, registry, tmp_path, "one:1", config)
    with Store.open(tmp_path / "other") as other:
        images.pull(other, name, registry=config)
        images.tag(other, name, f"{registry.host}/two:1")
        images.push(other, f"{registry.host}/two:1", registry=config)
    assert any(
        {"repository:one:pull", "repository:two:pull,push"} <= set(asked.split())
        for asked in registry.token_requests
    )
    assert registry.count("PUT", "/two/blobs/uploads/") == 0


@row("REG-03")
def test_how_hosts_are_spoken_to(tmp_path: Path) -> None:
    for host in ("localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.9.9.9"):
        assert is_loopback(host)
        assert endpoints(RegistryConfig(), host, "x")[-1].scheme == "http"
    assert endpoints(RegistryConfig(), "registry.lan", "x")[-1].scheme == "https"
    tls = TlsOptions(ca_file="/ca", client_cert="/c", client_key="/k")
    hosts = (
        HostConfig(prefix="plain.lan", plain_http=True),
        HostConfig(prefix="open.lan", insecure=True),
        HostConfig(prefix="own.lan", tls=tls),
        HostConfig(prefix="hub.lan", mirrors=(HostConfig(prefix="m1.lan"), HostConfig(prefix="m2.lan/sub"))),
    )
    config = RegistryConfig(hosts=hosts)
    assert endpoints(config, "plain.lan", "x")[-1].scheme == "http"
    assert not endpoints(config, "open.lan", "x")[-1].tls.verify
    assert endpoints(config, "own.lan", "x")[-1].tls == tls
    tried = [(place.host, place.repository) for place in endpoints(config, "hub.lan", "a/b")]
    assert tried == [("m1.lan", "a/b"), ("m2.lan", "sub/a/b"), ("hub.lan", "a/b")]
    assert OutputSpec.parse("type=registry,name=a,registry.insecure=true").insecure


@row("REG-03")
def test_mirrors_are_tried_in_order(registry: Registry, store: Store, tmp_path: Path) -> None:
    put(store, registry, tmp_path, "cache/x:1")
    mirrors = (HostConfig(prefix="127.0.0.1:1"), HostConfig(prefix=f"{registry.host}/cache"))
    config = RegistryConfig(hosts=(HostConfig(prefix="up.example", mirrors=mirrors),), retry_waits_s=())
    with Store.open(tmp_path / "other") as other:
        assert images.pull(other, "up.example/x:1", registry=config).names == ("up.example/x:1",)


@row("REG-04")
def test_four_transfers_at_once(registry: Registry, store: Store) -> None:
    blobs = [bytes([n]) * 200_000 for n in range(12)]
    wanted = [
        Descriptor(media_type="x", digest=Digest.parse(registry.put_blob("r", b)), size=len(b)) for b in blobs
    ]
    client = RegistryClient(RegistryConfig())
    fetch_blobs(client, Reference.parse(f"{registry.host}/r"), wanted, store.blobs)
    assert 2 <= registry.max_busy <= 4
    client.close()


@row("REG-05")
def test_retries_and_waits(registry: Registry, store: Store, tmp_path: Path) -> None:
    name = put(store, registry, tmp_path, "r:1")
    slept: list[float] = []
    said: list[str] = []

    def client() -> RegistryClient:
        slept.clear()
        said.clear()
        return RegistryClient(
            RegistryConfig(),
            retrier=Retrier(RegistryConfig().retry_waits_s, sleep=slept.append, on_retry=said.append),
        )

    for fault in (
        Fault(match="HEAD .*/manifests/", status=503, times=2),
        Fault(match="HEAD .*/manifests/", drop=True, times=2),
    ):
        registry.faults.append(fault)
        client().resolve(Reference.parse(name))
        assert slept == [1.0, 2.0]
        assert said[0].startswith("error: ")
        assert said[0].endswith("retrying in 1s")
    registry.faults.append(Fault(match="HEAD .*/manifests/", status=500, times=9))
    with pytest.raises(RegistryError, match="status 500"):
        client().resolve(Reference.parse(name))
    assert slept == [1.0, 2.0, 4.0]
    registry.faults.clear()
    registry.faults.append(Fault(match="HEAD .*/manifests/", status=400))
    with pytest.raises(RegistryError):
        client().resolve(Reference.parse(name))
    assert slept == []  # only what may pass is tried again


@row("REG-05")
def test_downloads_go_on_by_range(registry: Registry) -> None:
    data = bytes(range(256)) * 4000
    blob = Descriptor(media_type="x", digest=Digest.parse(registry.put_blob("r", data)), size=len(data))
    registry.faults.append(Fault(match="GET .*/blobs/", truncate_at=300_000))
    out = io.BytesIO()
    RegistryClient(RegistryConfig(retry_waits_s=(0.0,))).fetch_blob(
        Reference.parse(f"{registry.host}/r"), blob, out
    )
    assert out.getvalue() == data
    ranges = [seen.headers.get("range") for seen in registry.seen if seen.method == "GET"]
    assert ranges[0] is None
    assert str(ranges[1]).startswith("bytes=")
    assert int(str(ranges[1])[6:-1]) > 0


@row("REG-06")
@root_only
def test_push(lab: Lab, registry: Registry) -> None:
    name = f"{registry.host}/out:1"
    context = lab.context({"a": "1", "Dockerfile": "FROM scratch\nCOPY a /\n"})
    lab.build(context, tags=(name,), outputs=(OutputSpec(type="image", push=True),))
    methods = [(seen.method, seen.path) for seen in registry.seen]
    first_manifest = next(i for i, (m, p) in enumerate(methods) if m == "PUT" and "/manifests/" in p)
    assert all("/manifests/" in p for m, p in methods[first_manifest:] if m == "PUT")
    heads = [p for m, p in methods if m == "HEAD" and "/blobs/" in p]
    assert len(heads) == 2
    digest = registry.tags["out", "1"]
    seen = {event.id for event in lab.watcher.events if isinstance(event, StatusEvent)}
    assert {"pushing layers", f"pushing manifest for {name}@{digest}"} <= seen
    uploads = registry.count("POST", "/uploads/")
    lab.build(context, tags=(name,), outputs=(OutputSpec(type="image", push=True),))
    assert registry.count("POST", "/uploads/") == uploads  # what is there is not sent again
    with pytest.raises(PybuildError, match=rf"^failed to push {name}"):
        registry.faults.append(Fault(match="PUT .*/manifests/", status=400))
        lab.build(context, tags=(name,), outputs=(OutputSpec(type="image", push=True),))
    registry.faults.clear()
    with pytest.raises(UsageError, match=rf"can't push tagged ref {name} by digest"):
        lab.build(context, tags=(name,), outputs=(OutputSpec(type="image", push=True, push_by_digest=True),))
    bare = f"{registry.host}/bare"
    lab.build(context, outputs=(OutputSpec(type="image", names=(bare,), push=True, push_by_digest=True),))
    assert not [key for key in registry.tags if key[0] == "bare"]
    assert [key for key in registry.manifests if key[0] == "bare"]


@row("REG-06")
def test_mounts_and_layers_that_are_not_pushed(registry: Registry, store: Store, tmp_path: Path) -> None:
    name = put(store, registry, tmp_path, "from:1")
    with Store.open(tmp_path / "other") as other:
        images.pull(other, name)
        images.tag(other, name, f"{registry.host}/to:1")
        images.push(other, f"{registry.host}/to:1")
    assert registry.count("PUT", "/to/blobs/uploads/") == 0
    assert {digest for repo, digest in registry.blobs if repo == "to"} == {
        d for repo, d in registry.blobs if repo == "from"
    }
    document = json.loads(registry.manifests["from", registry.tags["from", "1"]][1])
    layer = document["layers"][0]
    layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    data = json.dumps(document).encode()
    with store.blobs.writer() as writer:
        writer.write(data)
        digest, size = writer.commit()
    going = plan(Descriptor(media_type=document["mediaType"], digest=digest, size=size), store.blobs)
    assert [str(blob.digest) for blob in going.blobs] == [document["config"]["digest"]]


@row("REG-05")
@root_only
def test_retries_are_told(lab: Lab, registry: Registry, store: Store, tmp_path: Path) -> None:
    name = put(store, registry, tmp_path, "told:1")
    registry.faults.append(Fault(match="HEAD .*/told/manifests/", status=503))
    config = RegistryConfig(retry_waits_s=(0.01, 0.01), user_agent="told")
    started = time.monotonic()
    lab.build(lab.context({"x": "", "Dockerfile": f"FROM {name}\nCOPY x /\n"}), registry=lambda: config)
    assert time.monotonic() - started < 10
    steps = [event.name for event in lab.watcher.events if isinstance(event, VertexEvent)]
    assert any("error: " in name and "retrying in 0.01s" in name for name in steps)
