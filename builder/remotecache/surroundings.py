"""Environment variables that stand for attributes of caches (RCH-10…RCH-12, CLI-09). Pure.

What is given as an attribute wins; keys that go together come from one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from builder.remotecache.spec import CacheSpec

Env = Callable[[str], str | None]
_TRUE = ("1", "t", "true")
_S3_KEYS = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
_NAMES = {
    "s3": {"bucket": "AWS_BUCKET", "region": "AWS_REGION"},
    "azblob": {
        "account_url": "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL",
        "account_name": "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME",
        "container": "BUILDKIT_AZURE_STORAGE_CONTAINER",
        "prefix": "BUILDKIT_AZURE_STORAGE_PREFIX",
    },
    "gha": {"token": "ACTIONS_RUNTIME_TOKEN", "api_url": "GITHUB_API_URL"},
}


def completed(specs: Iterable[CacheSpec], env: Env) -> tuple[CacheSpec, ...]:
    """``specs`` with what the environment knows."""
    return tuple(_completed(spec, env) for spec in specs)


def _completed(spec: CacheSpec, env: Env) -> CacheSpec:
    if spec.type not in _NAMES:
        return spec
    given = dict(spec.attrs)
    names = dict(_NAMES[spec.type])
    if spec.type == "s3" and not given.keys() & _S3_KEYS.keys():
        names |= _S3_KEYS
    if spec.type == "gha" and not given.keys() & {"url", "url_v2"}:
        names["url"] = "ACTIONS_CACHE_URL"
        told = given.get("version") or (
            "2" if (env("ACTIONS_CACHE_SERVICE_V2") or "").lower() in _TRUE else ""
        )
        if told == "2":
            names["url_v2"] = "ACTIONS_RESULTS_URL"
    found = {key: value for key, name in names.items() if key not in given and (value := env(name))}
    return CacheSpec(type=spec.type, attrs=(*spec.attrs, *found.items()))
