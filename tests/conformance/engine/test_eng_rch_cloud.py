"""Caches in S3, Azure Blob Storage and GitHub's cache service: from one machine to another, and what can go
wrong on the way. The services are ours and check every signature by the published rules.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import PybuildError, UsageError
from tests.support.cloudactions import Actions
from tests.support.cloudcaches import S3, Answer, Azure, Fault, running
from tests.support.cloudplaces import KINDS, TEXT, TWO, Place, build, place, serving
from tests.support.machines import Machines, cache, ran, statuses, warned
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with serving(str(request.param)) as found:
        yield found


@row("RCH-10", "RCH-11", "RCH-12")
def test_from_one_machine_to_another(many: Machines, there: Place) -> None:
    lab, other = many.new(), many.new()
    first = build(lab, cache_to=there.spec + ",mode=max")
    shown = statuses(lab, f"exporting cache to {there.name}")
    assert any(text.startswith("writing layer sha256:") for text in shown)
    assert any(text.startswith("writing manifest ") for text in shown)
    second = build(other, cache_from=there.spec)
    assert ran(other) == []
    assert first.image_id == second.image_id
    assert all(text.startswith("404 ") for text in there.cloud.refused), there.cloud.refused
    writes = there.cloud.count("^(PUT|PATCH) ")
    build(lab, cache_to=there.spec)
    assert there.cloud.count("^(PUT|PATCH) ") == writes + 1, "layers that are there are not sent again"
    third = many.new()
    build(third, TWO, cache_from=there.spec, cache_to=there.spec)
    fourth = many.new()
    for text in (TEXT, TWO):
        build(fourth, text, cache_from=there.spec)
        assert ran(fourth) == [], "exports add up"


@row("RCH-10", "RCH-11", "RCH-12")
def test_names_that_other_tools_see(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    layer = re.compile(r"sha256:[0-9a-f]{64}")
    with running(S3("cache")) as s3, running(Azure()) as azure, running(Actions()) as actions:
        build(
            lab,
            cache_to=cache(
                place("s3", s3).spec + ",prefix=team/,name=one;two",
                place("azblob", azure).spec + ",prefix=/team/,name=one;two",
                place("gha1", actions).spec + ",scope=app",
            ),
        )
    objects = set(s3.buckets["cache"])
    assert {"team/manifests/one", "team/manifests/two"} < objects
    rest = objects - {"team/manifests/one", "team/manifests/two"}
    assert rest
    assert all(layer.fullmatch(name.removeprefix("team/blobs/")) for name in rest)
    blobs = set(azure.containers["buildkit-cache"])
    assert {name.removeprefix("team/") for name in objects} == {name.removeprefix("team/") for name in blobs}
    keys = actions.keys()
    index = "index-app-1-7cbb6a07#1"  # sha256 of refs/heads/topic
    assert index == keys[-1]
    assert all(layer.fullmatch(key.removeprefix("buildkit-blob-1-")) for key in keys[:-1])


@row("RCH-10", "RCH-11", "RCH-12")
@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("type=s3,region=r", r"bucket \(\$AWS_BUCKET\) not set for s3 cache"),
        ("type=s3,bucket=b", r"region \(\$AWS_REGION\) not set for s3 cache"),
        ("type=s3,bucket=b,region=r,upload_parallelism=0", "upload_parallelism must be a positive integer"),
        ("type=s3,bucket=b,region=r,retry_max_attempts=x", "retry_max_attempts must be a positive integer"),
        ("type=s3,bucket=b,region=r,retry_mode=legacy", 'retry_mode must be "standard" or "adaptive"'),
        ("type=s3,bucket=b,region=r,touch_refresh=soon", "failed to parse touch_refresh"),
        ("type=s3,bucket=b,region=r,access_key_id=a", "go together"),
        ("type=s3,bucket=b,region=r,prefix=../", "cannot be part of a name"),
        ("type=s3,bucket=b,region=r,endpoint_url=ftp://x", "endpoint_url is not an address"),
        ("type=s3,bucket=b/c,region=r", "cannot be a bucket"),
        ("type=azblob", "account_url attribute is required for azblob cache"),
        ("type=azblob,account_url=https://u:canary@h", "more than scheme, host and path"),
        ("type=azblob,account_url=https://a.b,secret_access_key=canary!", "secret_access_key is not base64"),
        ("type=gha,url=http://x", "token not set for github actions cache"),
        ("type=gha,token=canary", "url not set for github actions cache"),
        ("type=gha,token=canary,url=http://x,version=3", "failed to parse api version"),
        ("type=gha,token=canary,url=http://x,timeout=long", "failed to parse timeout"),
    ],
)
def test_attributes_that_are_wrong(many: Machines, spec: str, text: str) -> None:
    lab = many.new()
    for which in ("cache_from", "cache_to"):
        with pytest.raises(UsageError, match=text) as caught:
            build(lab, **{which: spec})
        assert "canary" not in f"{caught.value.message}{caught.value.hint}"


@row("RCH-10", "RCH-11", "RCH-12", "RCH-13")
def test_credentials_that_are_wrong(many: Machines, there: Place) -> None:
    lab = many.new()
    build(lab, cache_from=there.wrong)
    assert len(ran(lab)) == 2
    assert "cannot import the cache of" in warned(lab)
    assert "access is denied" in warned(lab)
    assert build(lab, cache_to=there.wrong + ",ignore-error=true").image_id
    assert f"exporting cache to {there.name} failed" in warned(lab)
    with pytest.raises(PybuildError, match="access is denied") as caught:
        build(lab, cache_to=there.wrong)
    assert caught.value.hint
    assert "canary" not in f"{caught.value.message}{lab.watcher.events}"


@row("RCH-10", "RCH-11", "RCH-12", "RCH-13")
def test_services_that_fail(many: Machines, there: Place) -> None:
    lab, other = many.new(), many.new()
    build(lab, cache_to=there.spec)
    there.cloud.faults.append(Fault("^(GET|POST) ", Answer(503, b"<Code>SlowDown</Code>"), times=2))
    build(other, cache_from=there.spec)
    assert ran(other) == [], "tried again"
    there.cloud.faults[:] = [Fault(".", Answer(500))]
    third = many.new()
    build(third, cache_from=there.spec)
    assert len(ran(third)) == 2
    assert "cannot import the cache of" in warned(third)
    assert build(third, cache_to=there.spec + ",ignore-error=true").image_id
    assert "failed" in warned(third)
    with pytest.raises(PybuildError, match="status 500"):
        build(third, cache_to=there.spec)


@row("RCH-10", "RCH-11", "RCH-12", "RCH-14")
def test_blobs_that_break_off_or_lie(many: Machines, there: Place) -> None:
    lab, other, third = many.new(), many.new(), many.new()
    build(lab, cache_to=there.spec)
    blobs = ["/blobs/"]
    if isinstance(there.cloud, Actions):
        items = enumerate(there.cloud.items)
        blobs = [f"/signed/{number}\\?" for number, item in items if "blob" in item.key]
    blob = f"^GET .*({'|'.join(blobs)})"
    there.cloud.faults.append(Fault(blob, Answer(cut=40), times=1, real=True))
    build(other, cache_from=there.spec)
    assert ran(other) == []
    assert any("range" in request.headers for request in there.cloud.seen), "the rest was asked for"
    there.cloud.faults[:] = [Fault(blob, Answer(200, b"x" * 100))]
    result = build(third, cache_from=there.spec)
    assert len(ran(third)) == 2
    assert result.image_id
    assert "cannot be used" in warned(third)


@row("RCH-10", "RCH-11", "RCH-12")
def test_a_document_that_lies(many: Machines, there: Place) -> None:
    lab = many.new()
    build(lab, cache_to=there.spec)
    for wrong in (b"{", b"[]", b'{"records":[{"digest":"x"}]}', b"x" * (3 << 20)):
        there.cloud.faults[:] = [Fault("^GET .*(manifests|/signed/)", Answer(200, wrong))]
        other = many.new()
        build(other, cache_from=there.spec)
        assert len(ran(other)) == 2
        assert "cannot import the cache of" in warned(other)


@row("RCH-11", "RCH-10")
def test_redirects_get_no_credentials(many: Machines, there: Place) -> None:
    lab = many.new()
    with running(S3("cache")) as elsewhere:
        away = Answer(307, b"", {"Location": f"{elsewhere.url}/cache/x"})
        there.cloud.faults.append(Fault(".", away))
        build(lab, cache_from=there.spec)
        assert "redirects are not followed" in warned(lab)
        with pytest.raises(PybuildError, match="redirects are not followed"):
            build(lab, cache_to=there.spec)
        assert elsewhere.seen == []


@row("RCH-10", "RCH-11", "RCH-12")
def test_secrets_stay_where_they_are(many: Machines, there: Place, tmp_path: Path) -> None:
    lab = many.new()
    build(lab, cache_to=there.spec)
    there.cloud.faults.append(Fault("^(GET|POST) ", Answer(500, b'{"message": "canary-gha-token"}')))
    build(lab, TWO, cache_from=there.spec, cache_to=there.spec + ",ignore-error=true")
    secrets = [text.encode() for key, text in cache(there.spec)[0].attrs if "key" in key or "token" in key]
    secrets = [secret for secret in secrets if b"AKID" not in secret]
    assert secrets
    for path in lab.store.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path
    assert not any(secret.decode() in repr(lab.watcher.events) for secret in secrets)
    assert "canary-signature" not in repr(lab.watcher.events)


@row("RCH-15", "RCH-10", "RCH-11", "RCH-12")
def test_two_machines_export_at_once(many: Machines, there: Place) -> None:
    labs = [many.new(), many.new()]
    failures: list[BaseException] = []
    meet = threading.Barrier(2)

    def one(number: int) -> None:
        try:
            meet.wait()
            build(labs[number], (TEXT, TWO)[number], cache_to=there.spec)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    other = many.new()
    results = []
    for text in (TEXT, TWO):
        build(other, text, cache_from=there.spec)
        results.append(ran(other))
    assert [] in results, "what was written last can be read"
