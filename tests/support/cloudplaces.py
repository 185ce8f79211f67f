"""The services of ``cloudcaches`` and ``cloudactions`` as places for caches, and builds that use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from builder.registry.hosts import RegistryConfig
from tests.support.cloudactions import READ, WRITE, Actions, token
from tests.support.cloudcaches import S3, Azure, Cloud, running
from tests.support.machines import cache

TEXT = "FROM busybox\nCOPY src /app\nRUN cat /app > /out\n"
TWO = "FROM busybox\nRUN echo two > /two\n"
FILES: dict[str, str | bytes | tuple[str, int]] = {"src": "hello"}
QUICK = RegistryConfig(retry_waits_s=(0.01,))
KINDS = ("s3", "azblob", "gha1", "gha2")


@dataclass
class Place:
    """One service and how a user names it."""

    cloud: Cloud
    spec: str
    wrong: str
    name: str


def place(kind: str, cloud: Cloud) -> Place:
    if isinstance(cloud, S3):
        base = f"type=s3,bucket=cache,region=eu-west-1,endpoint_url={cloud.url},use_path_style=true"
        keys = f",access_key_id={cloud.access},secret_access_key="
        return Place(cloud, base + keys + cloud.secret, base + keys + "canary-wrong", "Amazon S3")
    if isinstance(cloud, Azure):
        base = f"type=azblob,account_url={cloud.url},account_name={cloud.account},secret_access_key="
        return Place(cloud, base + cloud.key, base + "Y2FuYXJ5d3Jvbmc=", "Azure Blob Storage")
    assert isinstance(cloud, Actions)
    base = f"type=gha,{'url_v2' if kind == 'gha2' else 'url'}={cloud.url}/,token="
    good = cloud.grant(("refs/heads/topic", WRITE), ("refs/heads/main", READ))
    wrong = token(("refs/heads/topic", WRITE), salt="canary-wrong")
    return Place(cloud, base + good, base + wrong, "GitHub Actions Cache")


@contextmanager
def serving(kind: str) -> Iterator[Place]:
    """One of ``KINDS``."""
    cloud: Cloud = S3("cache") if kind == "s3" else Azure() if kind == "azblob" else Actions()
    with running(cloud):
        yield place(kind, cloud)


def build(lab: Any, text: str = TEXT, **more: Any) -> Any:
    for key in ("cache_from", "cache_to"):
        if isinstance(more.get(key), str):
            more[key] = cache(more[key])
    return lab.build(lab.context(FILES), text, registry=lambda: QUICK, **more)
