"""Which attributes each kind of cache has, so that a misspelled one is noticed (RCH-05, RCH-08…RCH-13)."""

from __future__ import annotations

from builder.errors import UsageError

_ALL = (
    *("mode", "compression", "compression-level", "force-compression", "oci-mediatypes", "image-manifest"),
    *("ignore-error", "merge", "mounts", "reset"),
)
_KNOWN: dict[str, tuple[str, ...]] = {
    "azblob": (
        *("account_url", "account_name", "secret_access_key", "container"),
        *("prefix", "manifests_prefix", "blobs_prefix", "name"),
    ),
    "gha": (
        *("scope", "token", "url", "url_v2", "version", "timeout"),
        *("repository", "ghtoken", "api_url"),
    ),
    "inline": (),
    "local": ("src", "dest", "digest", "tag"),
    "registry": ("ref", "registry.insecure"),
    "s3": (
        *("bucket", "region", "prefix", "blobs_prefix", "manifests_prefix", "name"),
        *("endpoint_url", "use_path_style", "access_key_id", "secret_access_key", "session_token"),
        *("touch_refresh", "upload_parallelism", "retry_mode", "retry_max_attempts"),
        "disable_accept_encoding",
    ),
}


def check_attribute(kind: str, key: str, *, show: bool = True) -> None:
    """Raises UsageError for an attribute that caches of this kind do not have.

    It is named only if ``show``: it may be a part of a secret.

    Kinds that are not known have any: the place that uses them knows better what to say.
    """
    if kind not in _KNOWN or key in _ALL or key in _KNOWN[kind]:
        return
    from builder.frontend.errors import suggestion

    known = sorted({*_ALL, *_KNOWN[kind]})
    found = suggestion(key, known) if show else ""
    raise UsageError(
        f"unknown attribute {key[:60] if show else '***'!r} of cache type={kind}{found}",
        hint=None if found else f"known are {', '.join(known)}",
    )
