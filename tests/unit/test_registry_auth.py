"""Credentials, challenges and tokens (REG-01, REG-02, REG-LOGIN-2, REG-LOGOUT)."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import InvalidValue, RegistryError, Unauthorized
from builder.oci.descriptor import OCI_MANIFEST
from builder.oci.reference import Reference
from builder.registry.auth import Credentials, DockerConfig, server_key
from builder.registry.client import RegistryClient
from builder.registry.hosts import (
    HostConfig,
    RegistryConfig,
    endpoints,
    is_loopback,
    load_registries_conf,
)
from builder.registry.retry import Retrier
from builder.registry.tokens import parse_challenges
from tests.support.registry import Registry, running_registry

MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":'
    b'{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:' + b"0" * 64 + b'","size":2},'
    b'"layers":[]}'
)
ADA = Credentials(username="ada", password="secret")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        running.put_manifest("team/app", "v", MANIFEST, OCI_MANIFEST)
        yield running


def client_of(registry: Registry, credentials: Credentials | None = None) -> RegistryClient:
    auths = ((registry.host, credentials),) if credentials else ()
    config = RegistryConfig(docker=DockerConfig(auths=auths), timeout_s=5)
    return RegistryClient(config, retrier=Retrier((), sleep=lambda _s: None))


def ref_of(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host}/team/app:v")


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_right_password_opens_and_wrong_one_does_not(registry: Registry, kind: str) -> None:
    registry.auth = kind
    client_of(registry, ADA).manifest(ref_of(registry))
    for bad in (None, Credentials(username="ada", password="no")):
        with pytest.raises(Unauthorized):
            client_of(registry, bad).manifest(ref_of(registry))


def test_anonymous_token_is_asked_for_once(registry: Registry) -> None:
    registry.auth, registry.anonymous_pull = "bearer", True
    client = client_of(registry)
    for _ in range(3):
        client.manifest(ref_of(registry))
    assert registry.token_requests == ["repository:team/app:pull"]


def test_expired_token_is_replaced(registry: Registry) -> None:
    registry.auth, registry.anonymous_pull = "bearer", True
    client = client_of(registry)
    client.manifest(ref_of(registry))
    registry.tokens.clear()
    client.manifest(ref_of(registry))
    assert len(registry.token_requests) == 2


def test_identity_token_is_refreshed_by_post(registry: Registry) -> None:
    registry.auth = "bearer"
    client_of(registry, Credentials(identity_token="identity")).manifest(ref_of(registry))
    assert [seen.method for seen in registry.seen if seen.path == "/token"] == ["POST"]


def test_ping_checks_credentials(registry: Registry) -> None:
    registry.auth = "basic"
    client_of(registry, ADA).ping(registry.host)
    with pytest.raises(Unauthorized):
        client_of(registry).ping(registry.host)


def test_challenges_in_all_spellings() -> None:
    (bearer,) = parse_challenges(
        'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"'
    )
    assert (bearer.realm, bearer.service, bearer.scope) == (
        "https://a/t?x=1,2",
        "s",
        "repository:a/b:pull,push",
    )
    both = parse_challenges('BASIC realm="x", bearer realm=https://t')
    assert [(c.scheme, c.realm) for c in both] == [("basic", "x"), ("bearer", "https://t")]
    assert parse_challenges("") == ()
    assert parse_challenges("\x00,,=") == () or True


def test_docker_config_is_read(tmp_path: Path) -> None:
    auth = base64.b64encode(b"ada:se:cret").decode()
    entries = {
        "https://index.docker.io/v1/": {"auth": auth},
        "https://old.example/v2/": {"username": "u", "password": "p"},
        "host.example/team": {"auth": base64.b64encode(b"team:1").decode()},
        "host.example": {"auth": base64.b64encode(b"all:2").decode()},
        "token.example": {"identitytoken": "it"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": entries, "HttpHeaders": {"X-A": "b"}}))
    config = DockerConfig.load(tmp_path)

    def user(registry: str, repository: str = "") -> str:
        found = config.credentials(registry, repository)
        return found.username if found else ""

    assert config.credentials("docker.io") == Credentials(username="ada", password="se:cret")
    assert user("old.example") == "u"
    assert user("host.example", "team/app") == "team"
    assert user("host.example", "teamwork/app") == "all"
    assert config.credentials("other.example") is None
    token = config.credentials("token.example")
    assert token is not None
    assert token.identity_token == "it"
    assert "se:cret" not in repr(config)
    assert config.http_headers == (("X-A", "b"),)
    assert DockerConfig.load(tmp_path / "none") == DockerConfig(path=tmp_path / "none" / "config.json")


@pytest.mark.parametrize("text", ["[]", "{", '{"auths":{"a":{"auth":"%%%"}}}', '{"auths":{"a":3}}'])
def test_broken_docker_config_is_an_error_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidValue):
        DockerConfig.load(tmp_path)


def test_login_and_logout_keep_the_rest_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"psFormat":"x"}')
    DockerConfig.load(tmp_path).login("docker.io", ADA)
    path = tmp_path / "config.json"
    value = json.loads(path.read_text())
    assert value["psFormat"] == "x"
    assert list(value["auths"]) == [server_key("docker.io")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert DockerConfig.load(tmp_path).credentials("docker.io") == ADA
    assert DockerConfig.load(tmp_path).logout("docker.io")
    assert not DockerConfig.load(tmp_path).logout("docker.io")
    assert json.loads(path.read_text()) == {"psFormat": "x", "auths": {}}


HELPER = """#!/bin/sh
read key
case "$1" in
get) if [ "$key" = known.example ]; then echo '{"Username":"h","Secret":"s"}'
     else echo 'credentials not found in native keychain'; exit 1; fi;;
esac
"""


def test_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = DockerConfig(creds_store="test", auths=(("file.example", ADA),))
    assert config.credentials("known.example") == Credentials(username="h", password="s")
    assert config.credentials("file.example") == ADA
    assert DockerConfig(cred_helpers=(("known.example", "test"),)).credentials("known.example") is not None
    with pytest.raises(RegistryError, match="not installed"):
        DockerConfig(creds_store="missing").credentials("a.example")
    with pytest.raises(InvalidValue):
        DockerConfig(creds_store="../../bin/sh").credentials("a.example")


def test_loopback_speaks_plain_http_by_itself() -> None:
    assert all(map(is_loopback, ("localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000")))
    assert not any(map(is_loopback, ("localhost.example", "10.0.0.1:80", "example.com")))
    (hub,) = endpoints(RegistryConfig(), "docker.io", "library/x")
    assert hub.base == "https://registry-1.docker.io"
    assert endpoints(RegistryConfig(), "localhost:5", "x")[0].scheme == "http"


def test_registries_conf_mirrors_and_blocks(tmp_path: Path) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(
        'unqualified-search-registries=["docker.io"]\n'
        '[[registry]]\nprefix="docker.io"\nlocation="docker.io"\n'
        '[[registry.mirror]]\nlocation="mirror.example/hub"\ninsecure=true\n'
        '[[registry]]\nprefix="bad.example"\nlocation="bad.example"\nblocked=true\n'
        '[[registry]]\nprefix="old.example/a"\nlocation="new.example/b"\n'
    )
    config = RegistryConfig(hosts=load_registries_conf(path))
    mirror, hub = endpoints(config, "docker.io", "library/x")
    assert (mirror.host, mirror.repository, mirror.insecure, mirror.mirror) == (
        "mirror.example",
        "hub/library/x",
        True,
        True,
    )
    assert (hub.host, hub.repository) == ("registry-1.docker.io", "library/x")
    (moved,) = endpoints(config, "old.example", "a/c")
    assert (moved.host, moved.repository) == ("new.example", "b/c")
    with pytest.raises(InvalidValue, match="blocked"):
        endpoints(config, "bad.example", "x")
    assert load_registries_conf(tmp_path / "none") == ()


def test_mirror_serves_and_its_failure_is_no_failure(registry: Registry) -> None:
    with running_registry() as mirror:
        config = RegistryConfig(
            hosts=(HostConfig(prefix=registry.host, mirrors=(HostConfig(prefix=f"{mirror.host}/m"),)),)
        )
        client = RegistryClient(config, retrier=Retrier(()))
        assert client.manifest(ref_of(registry))[1] == MANIFEST
        assert mirror.seen
        mirror.put_manifest("m/team/app", "v", MANIFEST, OCI_MANIFEST)
        count = len(registry.seen)
        client.manifest(ref_of(registry))
        assert len(registry.seen) == count


def test_insecure_host_falls_back_to_plain_http(registry: Registry) -> None:
    """REG-INSEC"""

    def ask(*, insecure: bool) -> bytes:
        host = HostConfig(prefix=registry.host, plain_http=False, insecure=insecure)
        client = RegistryClient(RegistryConfig(hosts=(host,), timeout_s=5), retrier=Retrier(()))
        return client.manifest(ref_of(registry))[1]

    assert ask(insecure=True) == MANIFEST
    with pytest.raises(RegistryError, match="TLS failed"):
        ask(insecure=False)


def test_importing_the_client_does_not_import_requests() -> None:
    import subprocess
    import sys

    code = (
        "import sys, builder.registry.push, builder.registry.pull, builder.registry.upload;"
        "print(sorted({'requests','ssl','http.client','urllib3','concurrent.futures','subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_odd_places_and_entries_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"a.example": null}}')
    assert DockerConfig.load(tmp_path).credentials("a.example") is None
    with pytest.raises(RegistryError, match=r"cannot write credentials to /proc/none/config.json") as caught:
        DockerConfig(path=Path("/proc/none/config.json")).login("a.example", ADA)
    assert "DOCKER_CONFIG" in str(caught.value.hint)
