"""Named contexts: what ``--build-context NAME=SOURCE`` may say (CTX-07…10, SOC-01)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from builder.errors import InvalidValue, SourceUnavailable, UsageError
from builder.llb.gitref import parse_git_ref, redacted
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.pipes import at_once

Kind = Literal["local", "image", "oci", "git", "http", "input", "blob"]
_RESERVED = {"scratch", "context"}
_INDEX_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """One named context.

    ``identifier`` is, by kind: the local input's name; the image reference (``scratch`` for none); the
    layout's directory and ``@digest``; the git reference as typed; the URL; the input's key. ``path`` is the
    directory of local and oci. ``platform`` limits it to one target platform.
    """

    name: str
    kind: Kind
    identifier: str
    path: Path | None = None
    digest: Digest | None = None
    platform: str = ""


def parse_named(name: str, value: str) -> NamedSource:
    """Read one ``NAME[::PLATFORM]=SOURCE`` pair. Raises UsageError, InvalidValue, SourceUnavailable."""
    bare, _, platform = name.partition("::")
    key = normal_name(bare)
    if not key or len(key) > 1024:
        raise UsageError(f"invalid name of a build context: {name[:100]!r}", hint="want NAME=SOURCE")
    if platform:
        platform = str(Platform.parse(platform))
    if key in _RESERVED:
        raise UsageError(f"invalid context specifier {value} for {name}: {key} cannot be replaced")
    if not value:
        raise UsageError(f"invalid context specifier {value} for {name}", hint="want NAME=SOURCE")
    scheme, separator, rest = value.partition("://")
    if separator and scheme in ("docker-image", "oci-layout", "docker-image+blob", "oci-layout+blob"):
        try:
            return _image(key, scheme, rest, platform)
        except InvalidValue as error:
            raise InvalidValue(
                f"invalid context specifier {value} for {name}: {error.message}",
                hint=error.hint,
                code=error.code,
            ) from error
    if _is_git(name, value):
        return NamedSource(name=key, kind="git", identifier=value, platform=platform)
    if separator and scheme in {"http", "https"}:
        return NamedSource(name=key, kind="http", identifier=value, platform=platform)
    if separator:
        raise UsageError(f"unsupported context source {scheme} for {name}")
    if value.startswith("input:") and not Path(value).is_dir():
        return NamedSource(name=key, kind="input", identifier=value.removeprefix("input:"), platform=platform)
    path = Path(value)
    if not path.is_dir():
        if value.startswith(("target:", "local:")):
            raise UsageError(
                f"unsupported context source {value.partition(':')[0]} for {name}",
                hint="name a directory, docker-image://…, oci-layout://…, or a git or http(s) URL",
            )
        what = "is not a directory" if path.exists() else "not found"
        raise SourceUnavailable(
            f'unable to prepare context: path "{value}" {what}',
            context=(f"for the named context {name}",),
            code="context-not-found",
        )
    identifier = f"{key}::{platform}" if platform else key
    return NamedSource(name=key, kind="local", identifier=identifier, path=path.absolute(), platform=platform)


def _image(name: str, scheme: str, rest: str, platform: str) -> NamedSource:
    if scheme == "docker-image":
        image = rest if rest == "scratch" else str(Reference.parse(rest).with_default_tag())
        return NamedSource(name=name, kind="image", identifier=image, platform=platform)
    return (
        _oci_layout(name, rest, platform) if scheme == "oci-layout" else _blob(name, scheme, rest, platform)
    )


def _is_git(name: str, value: str) -> bool:
    try:
        return parse_git_ref(value) is not None
    except InvalidValue as error:
        raise InvalidValue(
            f"invalid git context {redacted(value)} for {name}: {error.message}",
            hint=error.hint,
            code=error.code,
        ) from error


def normal_name(name: str) -> str:
    """A name as it is looked up: an image's in familiar form without ``:latest``, a stage's in lower case."""
    try:
        return Reference.parse(name).familiar.removesuffix(":latest")
    except InvalidValue:
        return name.lower()


def _blob(name: str, scheme: str, rest: str, platform: str) -> NamedSource:
    """A single blob (SOC-02): ``REPOSITORY@DIGEST`` of a registry, ``PATH@DIGEST`` of a layout."""
    place, at, digest = rest.rpartition("@")
    if not at or not place:
        raise UsageError(f"invalid blob {rest!r} for {name}", hint=f"want {scheme}://…@sha256:…")
    folder = scheme == "oci-layout+blob"
    shown = name if folder else str(Reference.parse(place))
    return NamedSource(
        name=name,
        kind="blob",
        identifier=f"{scheme}://{shown}@{Digest.parse(digest)}",
        path=Path(place).absolute() if folder else None,
        platform=platform,
    )


def _oci_layout(name: str, rest: str, platform: str) -> NamedSource:
    """``PATH[:TAG][@DIGEST]``; a tag is looked up in the layout's index."""
    head, at, digest_text = rest.partition("@")
    path, colon, tag = head.rpartition(":")
    if not colon or "/" in tag:
        path, tag = head, ""
    if not path:
        raise UsageError(f'oci-layout reference "{rest}" has no name')
    root = Path(path).absolute()
    if at:
        digest = Digest.parse(digest_text)
    else:
        digest = _tagged(root, tag or "latest", named=bool(tag))
    identifier = f"{root}@{digest}"
    return NamedSource(
        name=name, kind="oci", identifier=identifier, path=root, digest=digest, platform=platform
    )


def _tagged(root: Path, tag: str, *, named: bool) -> Digest:
    try:
        with open(root / "index.json", "rb", opener=at_once) as file:
            data = file.read(_INDEX_LIMIT)
        index: Any = json.loads(data)
        entries = [entry for entry in index["manifests"] if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnavailable(
            f"{root} is not an OCI image layout: cannot read index.json", code="context-not-found"
        ) from error
    for entry in entries:
        notes = entry.get("annotations") or {}
        if isinstance(notes, dict) and notes.get("org.opencontainers.image.ref.name") == tag:
            return Digest.parse(str(entry.get("digest")))
    if not named and len(entries) == 1:
        return Digest.parse(str(entries[0].get("digest")))
    raise SourceUnavailable(
        f'oci-layout reference "{root}" has no {"tag " + tag if named else "digest"}',
        hint="add :TAG or @DIGEST to the reference",
        code="context-not-found",
    )
