"""What only one of the cloud caches has: touching and hosts of S3, scopes and numbers of GitHub's; and the
environment that they take their attributes from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PybuildError, UsageError
from builder.registry.hosts import RegistryConfig
from builder.remotecache.spec import CacheSpec
from tests.support.cli import Runner
from tests.support.cloudactions import READ, WRITE, Actions, Item
from tests.support.cloudcaches import S3, Answer, Azure, Fault, running
from tests.support.cloudplaces import FILES, KINDS, TEXT, TWO, Place, build, place, serving
from tests.support.machines import Machines, cache, ran, warned
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with serving(str(request.param)) as found:
        yield found


# --- S3


def s3(cloud: S3, more: str = "") -> str:
    return place("s3", cloud).spec + more


@row("RCH-11")
def test_old_objects_are_touched(many: Machines) -> None:
    lab = many.new()
    with running(S3("cache")) as cloud:
        build(lab, cache_to=s3(cloud))
        blobs = [key for key in cloud.buckets["cache"] if key.startswith("blobs/")]
        old, fresh = blobs[0], blobs[1]
        cloud.modified["cache", old] = time.time() - 25 * 3600
        cloud.modified["cache", fresh] = time.time() - 23 * 3600
        build(lab, cache_to=s3(cloud))
        assert time.time() - cloud.modified["cache", old] < 60
        assert time.time() - cloud.modified["cache", fresh] > 3600
        build(lab, cache_to=s3(cloud, ",touch_refresh=22h"))
        assert time.time() - cloud.modified["cache", fresh] < 60
        cloud.modified["cache", old] = 0
        failed = b"<?xml version='1.0'?>\n<Error><Code>InternalError</Code></Error>"
        cloud.faults.append(Fault(f"^PUT .*{old[-20:]}", Answer(200, failed), times=1))
        build(lab, cache_to=s3(cloud))
        assert time.time() - cloud.modified["cache", old] < 60, "an error in a reply of status 200 is one"


@row("RCH-11")
def test_buckets_by_host_name_and_session_tokens(many: Machines) -> None:
    lab, other = many.new(), many.new()
    with running(S3("cache", region="cn-north-1", session="canary-session")) as cloud:
        through = RegistryConfig(retry_waits_s=(0.01,), proxies=(("http", cloud.url),))
        base = "type=s3,bucket=cache,region=cn-north-1,endpoint_url=http://s3.example.test"
        spec = f"{base},access_key_id={cloud.access},secret_access_key={cloud.secret},session_token=canary-session"
        lab.build(lab.context(FILES), TEXT, cache_to=cache(spec), registry=lambda: through)
        other.build(other.context(FILES), TEXT, cache_from=cache(spec), registry=lambda: through)
        assert ran(other) == []
        assert {request.headers["host"] for request in cloud.seen} == {"cache.s3.example.test"}


@row("RCH-11")
def test_buckets_that_are_not_there_or_elsewhere(many: Machines) -> None:
    lab = many.new()
    with running(S3("other")) as cloud:
        build(lab, cache_from=s3(cloud))
        assert "there is no bucket cache" in warned(lab)
        with pytest.raises(PybuildError, match="NoSuchBucket"):
            build(lab, cache_to=s3(cloud))
        moved = Answer(
            301, b"<Error><Code>PermanentRedirect</Code></Error>", {"x-amz-bucket-region": "us-east-2"}
        )
        cloud.faults.append(Fault(".", moved))
        with pytest.raises(PybuildError, match="status 301") as caught:
            build(lab, cache_to=s3(cloud))
        assert caught.value.hint == "the bucket is in region us-east-2"


@row("RCH-11")
def test_a_public_bucket_needs_no_keys(many: Machines) -> None:
    lab, other = many.new(), many.new()
    with running(S3("cache")) as cloud:
        build(lab, cache_to=s3(cloud))
        cloud.public = True
        anonymous = s3(cloud).partition(",access_key_id")[0]
        build(other, cache_from=anonymous)
        assert ran(other) == []
        with pytest.raises(PybuildError, match="access is denied") as caught:
            build(other, TWO, cache_to=anonymous)
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)


@row("RCH-11")
@pytest.mark.parametrize("mode", ["standard", "adaptive"])
def test_attempts(many: Machines, mode: str) -> None:
    lab = many.new()
    with running(S3("cache")) as cloud:
        cloud.faults.append(Fault("^PUT ", Answer(503, b"<Error><Code>SlowDown</Code></Error>"), times=4))
        more = f",retry_mode={mode},upload_parallelism=1,retry_max_attempts="
        with pytest.raises(PybuildError, match="SlowDown"):
            build(lab, cache_to=s3(cloud, more + "2"))
        assert cloud.count("^PUT ") == 2
        build(lab, cache_to=s3(cloud, more + "3"))


# --- GitHub


@row("RCH-10")
def test_scopes(many: Machines) -> None:
    """A branch reads its own cache and that of its base; it writes its own only."""
    lab, other, third = many.new(), many.new(), many.new()
    with running(Actions()) as cloud:
        base = f"type=gha,url={cloud.url},token="
        main = cloud.grant(("refs/heads/main", WRITE))
        topic = cloud.grant(("refs/heads/main", READ), ("refs/heads/topic", WRITE))
        build(lab, cache_to=base + main)
        build(other, TWO, cache_to=base + topic)
        for text in (TEXT, TWO):
            build(third, text, cache_from=base + topic)
            assert ran(third) == []
        build(other, TWO + "ENV A=b\n", cache_from=base + main)
        assert {item.scope for item in cloud.items if item.key.startswith("index-")} == {
            "refs/heads/main",
            "refs/heads/topic",
        }
        reader = cloud.grant(("refs/heads/main", READ))
        with pytest.raises(PybuildError, match="may not write"):
            build(lab, cache_to=base + reader)
        ended = cloud.grant(("refs/heads/main", WRITE), lasts_s=-5)
        build(lab, TEXT + "RUN true\n", cache_from=base + ended)
        assert "has expired" in warned(lab)
        for nonsense in ("canary", "a.b.c", "e30.e30.e30"):
            build(lab, TEXT + "RUN true\n", cache_from=base + nonsense, no_cache=True)
        with pytest.raises(PybuildError, match="token of the cache service"):
            build(lab, cache_to=base + "canary")


@row("RCH-10")
@pytest.mark.parametrize("version", ["1", "2"])
def test_an_index_that_nobody_commits(many: Machines, version: str) -> None:
    lab, other = many.new(), many.new()
    with running(Actions()) as cloud:
        token = cloud.grant(("refs/heads/main", WRITE))
        spec = f"type=gha,url={cloud.url},version={version},timeout=1s,token={token}"
        build(lab, cache_to=spec)
        first = cloud.keys()[-1]
        stuck = cloud.items[-1]
        cloud.items.append(Item(first.replace("#1", "#2"), stuck.version, stuck.scope))
        build(lab, TWO, cache_to=spec)
        assert cloud.keys()[-1] == first.replace("#1", "#3")
        build(other, TWO, cache_from=spec)
        assert ran(other) == []


@row("RCH-10")
def test_the_list_of_a_repository_saves_questions(many: Machines) -> None:
    lab = many.new()
    with running(Actions()) as cloud:
        spec = f"type=gha,url={cloud.url},token={cloud.grant(('refs/heads/main', WRITE))}"
        build(lab, cache_to=spec)
        cloud.seen.clear()
        more = f",repository=me/app,ghtoken={cloud.rest_token},api_url={cloud.url}"
        build(lab, cache_to=spec + more)
        assert cloud.count("/repos/me/app/actions/caches") == 1
        assert cloud.count("keys=buildkit-blob") == 0
        build(lab, cache_to=spec + more.replace("ghtoken=", "ghtoken=wrong"))
        assert cloud.count("keys=buildkit-blob") > 0, "without a list every key is looked for"


# --- the surroundings


ENVIRONMENT: dict[str, Callable[[Any], dict[str, str]]] = {
    "s3": lambda c: {
        "AWS_BUCKET": "cache",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": c.access,
        "AWS_SECRET_ACCESS_KEY": c.secret,
        "AWS_SESSION_TOKEN": "",
    },
    "azblob": lambda c: {
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL": c.url,
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME": c.account,
        "BUILDKIT_AZURE_STORAGE_CONTAINER": "mine",
        "BUILDKIT_AZURE_STORAGE_PREFIX": "p",
    },
    "gha1": lambda c: {
        "ACTIONS_CACHE_URL": c.url + "/",
        "ACTIONS_RESULTS_URL": "http://127.0.0.1:1/",
        "ACTIONS_RUNTIME_TOKEN": c.grant(("refs/heads/main", WRITE)),
    },
    "gha2": lambda c: {
        "ACTIONS_CACHE_URL": "http://127.0.0.1:1/",
        "ACTIONS_RESULTS_URL": c.url + "/",
        "ACTIONS_CACHE_SERVICE_V2": "True",
        "ACTIONS_RUNTIME_TOKEN": c.grant(("refs/heads/main", WRITE)),
    },
}


@row("RCH-10", "RCH-11", "RCH-12", "CLI-09")
def test_the_environment_of_the_command(there: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["there"]
    runner = Runner(tmp_path / "root")
    runner.env = ENVIRONMENT[kind](there.cloud)
    spec = {
        "s3": f"type=s3,endpoint_url={there.cloud.url}",
        "azblob": f"type=azblob,secret_access_key={getattr(there.cloud, 'key', '')}",
    }.get(kind, "type=gha")
    text = "FROM scratch\nCOPY Dockerfile /\n"
    runner.dockerfile(tmp_path / "c", text, "--cache-to", spec)
    other = Runner(tmp_path / "other")
    other.env = runner.env
    done = other.dockerfile(tmp_path / "c", text, "--cache-from", spec)
    assert "CACHED" in done.err
    assert "canary" not in done.err
    if isinstance(there.cloud, Azure):
        assert any(name.startswith("p/blobs/sha256:") for name in there.cloud.containers["mine"])


@row("RCH-11")
def test_a_cache_that_cannot_be_read_shows_no_secrets() -> None:
    for text in (
        "type=s3,secret_access_key=canary,oops",
        "secret_access_key=canary,bucket=b",
        'type=s3,"session_token=canary',
        "type=gha,token=xx,canary",
    ):
        with pytest.raises(UsageError) as caught:
            cache(text)
        assert "canary" not in f"{caught.value.message}{caught.value.hint}", text
    assert "canary" not in repr(CacheSpec(type="s3", attrs=(("secret_access_key", "canary"),)))
