"""Image model values: grammar at the type boundary, and texts that round-trip."""

import json

import pytest

from builder.errors import InvalidValue
from builder.oci.config import HealthCheck, History, ImageConfig, set_env
from builder.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from builder.oci.digest import DiffId, Digest, chain_ids
from builder.oci.manifest import Index, Manifest, parse_document
from builder.oci.platform import Platform, best_match, candidates, normalize
from builder.oci.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:abc", f"sha256:{HEX.upper()}", f"md5:{'a' * 32}", f"sha256:{'a' * 63}/",
     "sha256:../../etc/passwd", f"sha256:{HEX}\n", f"sha512:{HEX}"],
)  # fmt: skip
def test_digests_outside_the_grammar_are_refused(text):
    with pytest.raises(InvalidValue):
        Digest.parse(text)


def test_chain_ids_follow_the_specification():
    first, second = Digest("sha256", HEX), Digest("sha256", "b" * 64)
    chains = chain_ids((DiffId(first), DiffId(second)))
    assert chains[0] == first
    assert chains[1] == Digest.of(f"{first} {second}".encode())


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x/y:t", "localhost:5000/x/y:t", "localhost:5000/x/y:t"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        (f"ghcr.io/a/b@sha256:{HEX}", f"ghcr.io/a/b@sha256:{HEX}", f"ghcr.io/a/b@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}", f"a:t@sha256:{HEX}"),
    ],
)
def test_references_are_normalised_and_round_trip(text, full, familiar):
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        "A",
        "a/B",
        "a//b",
        "-a",
        "a:b:c",
        "a b",
        "a@sha256:1",
        "../x",
        "x:" + "t" * 129,
        "http://x/y",
    ],
)
def test_bad_references_are_refused(text):
    with pytest.raises(InvalidValue):
        Reference.parse(text)


def test_latest_is_the_default_only_without_tag_and_digest():
    assert Reference.parse("a").with_default_tag().tag == "latest"
    assert Reference.parse("a:1").with_default_tag().tag == "1"
    assert Reference.parse(f"a@sha256:{HEX}").with_default_tag().tag is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/amd64/v1", "linux/amd64"),
        ("LINUX/AMD64/V3", "linux/amd64/v3"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
    ],
)
def test_platforms_plt_01(text, want):
    assert str(Platform.parse(text)) == want


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "nosuch", "linux/amd 64"])
def test_bad_platforms_are_refused(text):
    with pytest.raises(InvalidValue):
        Platform.parse(text)


def test_platform_match_order_plt_02():
    offered = (Platform("linux", "386"), Platform("linux", "amd64"), Platform("linux", "amd64", "v2"))
    assert best_match(Platform("linux", "amd64", "v3"), offered) == 2
    assert best_match(Platform("linux", "amd64"), offered) == 1
    assert best_match(Platform("linux", "amd64"), offered[:1]) == 0
    assert best_match(Platform("linux", "s390x"), offered) is None
    assert best_match(normalize(Platform("linux", "arm64")), (Platform("linux", "arm", "v7"),)) == 0


def test_config_keeps_what_it_does_not_know():
    text = {
        "architecture": "amd64", "os": "linux", "os.version": "1", "moby.x": {"a": [1]},
        "config": {"Env": ["A=1"], "Cmd": None, "Entrypoint": [], "StrangeKey": 5, "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }  # fmt: skip
    config = ImageConfig.from_json(text)
    assert config.cmd is None
    assert config.entrypoint == ()
    out = config.to_json()
    assert out["moby.x"] == {"a": [1]}
    assert out["config"]["StrangeKey"] == 5
    assert ImageConfig.from_bytes(config.to_bytes()) == config
    assert list(out) == sorted(out)


def test_config_leaves_out_empty_fields():
    config = ImageConfig(platform=Platform("linux", "amd64"), healthcheck=HealthCheck(test=("NONE",)))
    assert json.loads(config.to_bytes()) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{", b'{"config": 1}', b'{"config": {"Env": [1]}}', b'{"rootfs": {"diff_ids": ["../x"]}}',
     b'{"history": [1]}', b"[" * 100000],
)  # fmt: skip
def test_broken_configs_are_refused(value):
    with pytest.raises(InvalidValue):
        ImageConfig.from_bytes(value)


def test_env_is_replaced_in_place_env_01():
    env = ("A=1", "B=2")
    assert set_env(env, "A", "3") == ("A=3", "B=2")
    assert set_env(env, "C", "") == ("A=1", "B=2", "C=")
    assert set_env(env, "a", "x") == ("A=1", "B=2", "a=x")


def _descriptor(media_type=OCI_LAYER_GZIP):
    return Descriptor(media_type=media_type, digest=Digest("sha256", HEX), size=3, annotations=(("k", "v"),))


def test_manifests_round_trip():
    manifest = Manifest(config=_descriptor(), layers=(_descriptor(), _descriptor()))
    assert parse_document(manifest.to_bytes()) == manifest
    index = Index(manifests=(_descriptor(OCI_MANIFEST),))
    assert parse_document(index.to_bytes(), OCI_INDEX) == index
    assert list(json.loads(manifest.to_bytes())) == ["schemaVersion", "mediaType", "config", "layers"]


@pytest.mark.parametrize(
    "value",
    [
        {"schemaVersion": 1},
        {"schemaVersion": 2, "manifests": [], "layers": []},
        {"schemaVersion": 2, "mediaType": "text/html"},
        {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": {}, "layers": []},
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": "sha256:..", "size": 1}]},
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": f"sha256:{HEX}", "size": -1}]},
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": {}},
    ],
)
def test_ambiguous_or_broken_documents_are_refused(value):
    with pytest.raises(InvalidValue):
        parse_document(json.dumps(value).encode())


def test_a_document_that_contradicts_its_carrier_is_refused():
    data = Index(manifests=()).to_bytes()
    with pytest.raises(InvalidValue, match="served as"):
        parse_document(data, OCI_MANIFEST)


def test_history_round_trips():
    config = ImageConfig(
        platform=Platform("linux", "amd64"),
        history=(History(created="2020-01-01T00:00:00Z", created_by="RUN x", comment="c", author="a"),),
    )
    assert ImageConfig.from_bytes(config.to_bytes()).history == config.history


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux//v7", "(1)/amd64", "linux/(arm)", ".(.(/(", "a/b/c/d", "linux/ärm"]
)
def test_malformed_platforms_are_refused(text):
    with pytest.raises(InvalidValue):
        Platform.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "linux/amd64/v99999999999",
        "linux/arm/v99999999",
        "linux/arm/v4",
        "linux/arm64/v9.99999999999",
        "linux/arm64/v8.89",
        "linux/arm64/.89",
    ],
)
def test_no_variant_makes_many_candidates(text):
    assert 1 <= len(candidates(Platform.parse(text))) < 32
