"""Signatures by the examples of AWS, large uploads in parts, and addresses of buckets."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime

import pytest

from builder.errors import PybuildError
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.registry.hosts import RegistryConfig
from builder.remotecache import azblob, gha, s3
from builder.remotecache.backend import Access
from builder.remotecache.named import NamedCache
from builder.remotecache.sigv4 import Keys, signed
from builder.remotecache.spec import CacheSpec
from builder.remotecache.surroundings import completed
from tests.support.cloudactions import Actions
from tests.support.cloudcaches import S3, Answer, Azure, Fault, running
from tests.support.cloudplaces import place

EXAMPLE = Keys(
    access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)
ACCESS = Access(registry=RegistryConfig(retry_waits_s=(0.01,)))
LARGE = 70 << 20


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            (("Range", "bytes=0-9"),),
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            (("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")),
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle=", (), b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/?prefix=J&max-keys=2",
            (),
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_of_aws(
    method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes, signature: str
) -> None:
    _, authorization = signed(
        method,
        f"https://examplebucket.s3.amazonaws.com{target}",
        headers,
        payload_sha256=hashlib.sha256(body).hexdigest(),
        keys=EXAMPLE,
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert authorization.endswith(f"Signature={signature}")
    assert "wJalr" not in repr(EXAMPLE)


def spec(text: str) -> CacheSpec:
    return CacheSpec.parse(text)[0]


def base(text: str) -> str:
    made = s3.exporter(spec(f"type=s3,{text}"), ACCESS)
    assert isinstance(made.files, s3.Bucket)
    return made.files.base


def test_addresses_of_buckets() -> None:
    assert base("bucket=b,region=eu-west-1") == "https://b.s3.eu-west-1.amazonaws.com"
    assert base("bucket=b,region=cn-north-1") == "https://b.s3.cn-north-1.amazonaws.com.cn"
    assert base("bucket=b.c,region=r") == "https://s3.r.amazonaws.com/b.c", "no certificate is for b.c.s3"
    assert base("bucket=b,region=r,endpoint_url=https://h:9/p/") == "https://b.h:9/p"
    assert base("bucket=b,region=r,endpoint_url=https://h:9,use_path_style=1") == "https://h:9/b"
    assert base("bucket=b,region=r,endpoint_url=http://10.0.0.1:9") == "http://10.0.0.1:9/b"


def test_the_environment_does_not_mix_keys() -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_SESSION_TOKEN": "c",
        "AWS_BUCKET": "d",
    }
    own, none = completed([spec("type=s3,access_key_id=x,secret_access_key=y"), spec("type=s3")], env.get)
    assert own.attr("session_token") == ""
    assert own.attr("bucket") == "d"
    assert none.attr("session_token") == "c"
    told = {"ACTIONS_CACHE_SERVICE_V2": "1", "ACTIONS_RESULTS_URL": "r", "ACTIONS_RUNTIME_TOKEN": "t"}
    first, second = completed([spec("type=gha"), spec("type=gha,url=u")], told.get)
    assert (first.attr("url_v2"), second.attr("url_v2")) == ("r", "")
    other = spec("type=local,dest=x")
    assert completed([other], told.get) == (other,)


def put(made: NamedCache | gha.ActionsCache, data: bytes) -> Descriptor:
    blob = Descriptor(media_type="x/y", digest=Digest.of(data), size=len(data))
    sent: list[int] = []
    made.put(blob, lambda: io.BytesIO(data), sent.append)
    assert sent[-1] == len(data)
    assert sent == sorted(sent)
    assert made.has(blob)
    return blob


def test_large_blobs_go_in_parts() -> None:
    data = bytes(LARGE)
    with running(S3("cache")) as cloud:
        put(s3.exporter(spec(place("s3", cloud).spec), ACCESS), data)
        assert cloud.count("^PUT .*partNumber=") == 2
        assert max(map(len, cloud.buckets["cache"].values())) == LARGE
    with running(Azure()) as azure:
        put(azblob.exporter(spec(place("azblob", azure).spec), ACCESS), data)
        assert azure.count("comp=block&") == 2
        assert max(map(len, azure.containers["buildkit-cache"].values())) == LARGE
    for kind, pattern, count in (("gha1", "^PATCH ", 3), ("gha2", "comp=block&", 2)):
        with running(Actions()) as actions:
            put(gha.exporter(spec(place(kind, actions).spec), ACCESS), data)
            assert actions.count(pattern) == count
            assert len(actions.items[0].data) == LARGE


def test_an_upload_in_parts_that_fails_is_taken_back() -> None:
    with running(S3("cache")) as cloud:
        made = s3.exporter(spec(place("s3", cloud).spec), ACCESS)
        cloud.faults.append(Fault("partNumber=2", Answer(403)))
        with pytest.raises(PybuildError, match="access is denied"):
            put(made, bytes(70 << 20))
        assert cloud.count("^DELETE ") == 1
        assert cloud.uploads == {}


def test_very_large_objects_are_touched_in_parts() -> None:
    with running(S3("cache")) as cloud:
        made = s3.exporter(spec(place("s3", cloud).spec), ACCESS)
        blob = put(made, b"small")
        key = f"blobs/{blob.digest}"
        cloud.claimed[key], cloud.modified["cache", key] = 11 << 30, 0
        assert made.has(Descriptor(media_type="x/y", digest=blob.digest, size=11 << 30))
        assert cloud.count("^PUT .*partNumber=") == 3
        assert cloud.modified["cache", key] > 0
        assert not made.has(blob), "another size is another file"


def test_no_piece_of_a_token_gets_into_a_message() -> None:
    with running(Actions()) as cloud:
        given = spec(place("gha2", cloud).spec)
        token = given.attr("token")
        assert len(token) > 300
        told = f'{{"code": "x", "msg": "{"." * 200}{token}"}}'.encode()
        cloud.faults.append(Fault(".", Answer(400, told)))
        with pytest.raises(PybuildError) as caught:
            gha.importer(given, ACCESS).load(print)
        assert token[:20] not in caught.value.message
        assert "***" in caught.value.message


def test_a_service_that_wants_to_be_left_alone() -> None:
    with running(S3("cache")) as cloud:
        made = s3.importer(spec(place("s3", cloud).spec), ACCESS)
        cloud.faults.append(Fault(".", Answer(503, b"", {"Retry-After": "3600"}), times=1))
        with pytest.raises(PybuildError, match="503"):
            made.load(print)
