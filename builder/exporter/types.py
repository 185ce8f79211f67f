"""What an ``--output`` asks for, and what an export is given and answers (EXP-01…EXP-11)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from builder import csvline
from builder.attest.types import Attestation
from builder.errors import UsageError
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest
from builder.oci.platform import Platform

Pairs = tuple[tuple[str, str], ...]
Kind = Literal["image", "oci", "docker", "local", "tar", "cacheonly"]
AnnotationTarget = Literal["manifest", "manifest-descriptor", "index", "index-descriptor"]
_ALIASES = {"registry": "image", "cacheonly": "cacheonly"}
_COMPRESSIONS = ("uncompressed", "gzip", "zstd", "estargz")
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([^\]]*)\])?\.(.+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One annotation and where it goes; ``platform`` None = every platform."""

    target: AnnotationTarget = "manifest"
    platform: Platform | None = None
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """One output. ``dest`` is a path, or ``-`` for standard output; ``indexed`` asks for an index even of one
    image; ``extra`` keeps attributes we do not know. ``oci_if_attested`` lets attestations choose the media
    types, ``buildkit_layers`` makes layers to the byte as BuildKit does.
    """

    type: Kind
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    push_by_digest: bool = False
    insecure: bool = False
    unpack: bool = False
    store: bool = True
    oci_mediatypes: bool = True
    compression: str = "gzip"
    compression_level: int | None = None
    force_compression: bool = False
    annotations: tuple[Annotation, ...] = ()
    tar: bool = True
    rewrite_timestamp: bool = False
    epoch: int | None = None
    name_canonical: bool = False
    dangling_prefix: str = ""
    dangling_empty_only: bool = False
    platform_split: bool = True
    mode: Literal["copy", "delete"] = "copy"
    indexed: bool = False
    oci_artifact: bool = True
    oci_if_attested: bool = False
    attestation_inline: bool = True
    attestation_prefix: str = ""
    prefer_nondist: bool = False
    buildkit_layers: bool = False
    extra: Pairs = ()

    @classmethod
    def parse(cls, text: str, annotations: tuple[Annotation, ...] = ()) -> OutputSpec:
        """Read buildx' form: ``type=oci,dest=x``, a directory, or ``-``; ``annotations`` are more than those
        of the text. Raises UsageError.
        """
        fields = csv_fields(text, "output")
        if fields == ["-"]:
            return cls(type="tar", dest="-")
        if len(fields) == 1 and "=" not in fields[0]:
            return cls(type="local", dest=fields[0])
        attrs: list[tuple[str, str]] = []
        for item in fields:
            key, equals, value = item.partition("=")
            if not equals and key.strip().lower() not in _BOOLEANS:
                raise UsageError(f"invalid value {item!r} in output {text!r}", hint="want key=value")
            attrs.append((key.strip().lower() if not key.startswith("annotation") else key, value))
        return cls.from_attrs(attrs, annotations)

    @classmethod
    def from_attrs(
        cls, attrs: Iterable[tuple[str, str]], annotations: tuple[Annotation, ...] = ()
    ) -> OutputSpec:
        """The output that these attributes describe, ``type`` among them. Raises UsageError."""
        values = dict(attrs)
        kind = values.pop("type", "")
        if not kind:
            raise UsageError(
                "type is required for output: --output requires type=<type>",
                hint="for example type=oci,dest=image.tar",
            )
        push = kind == "registry"
        kind = _ALIASES.get(kind, kind)
        if kind not in get_args(Kind):
            raise UsageError(
                f"unsupported output type {kind!r}", hint=f"known: {', '.join(get_args(Kind))}, registry"
            )
        spec = cls(type=kind, push=push, oci_mediatypes=kind != "docker")  # type: ignore[arg-type]
        spec = _as_of(spec, values)
        for key, value in values.items():
            spec = _with_attr(spec, key, value)
        spec = replace(spec, annotations=(*spec.annotations, *annotations))
        if "oci-artifact" in values and spec.oci_artifact and not spec.oci_mediatypes:
            raise UsageError('exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"')
        return _checked(spec, explicit_types="oci-mediatypes" in values)


def _with_attr(spec: OutputSpec, key: str, value: str) -> OutputSpec:
    boolean = _BOOLEANS.get(key)
    if boolean is not None:
        return replace(spec, **{boolean: _boolean(key, value)})  # type: ignore[arg-type]
    match key:
        case "dest":
            return replace(spec, dest=value)
        case "name":
            return replace(spec, names=(*spec.names, *(n.strip() for n in value.split(",") if n.strip())))
        case "compression":
            if value not in _COMPRESSIONS:
                raise UsageError(
                    f"unsupported layer compression type {value!r}", hint=", ".join(_COMPRESSIONS)
                )
            return replace(spec, compression=value)
        case "compression-level":
            return replace(spec, compression_level=_integer(key, value))
        case "source-date-epoch":
            return replace(spec, epoch=_epoch(key, value) if value else None)
        case "attestation-prefix":
            if "/" in value:
                raise UsageError(
                    f"invalid value {value!r} for attestation-prefix", hint="want a part of a name"
                )
            return replace(spec, attestation_prefix=value)
        case "output":
            raise UsageError("unknown key 'output' in output", hint="want dest=PATH")
        case "dangling-name-prefix" | "danging-name-prefix":
            return replace(spec, dangling_prefix=value)
        case "mode" if spec.type == "local":
            if value not in ("copy", "delete"):
                raise UsageError(f"invalid local exporter mode {value!r}", hint="copy or delete")
            return replace(spec, mode=value)  # type: ignore[arg-type]
    if key.startswith("annotation"):
        return replace(spec, annotations=(*spec.annotations, parse_annotation(key, value)))
    return replace(spec, extra=(*spec.extra, (key, value)))


def _as_of(spec: OutputSpec, values: dict[str, str]) -> OutputSpec:
    """The defaults of ``compatibility-version``: 30 is today, 20 and 10 wrote Docker's types (EXP-15)."""
    text = values.pop("compatibility-version", "30")
    version = _integer("compatibility-version", text)
    if version not in (10, 20, 30):
        raise UsageError(f"unsupported compatibility-version {version}", hint="want 10, 20 or 30")
    if version == 10 and values.get("compression") == "zstd":
        raise UsageError("compression zstd needs compatibility-version 20 or 30")
    if version == 30 or spec.type != "image":
        return spec
    if "oci-mediatypes" not in values:
        spec = replace(spec, oci_mediatypes=False, oci_if_attested=True)
    return replace(spec, oci_artifact=False)


_BOOLEANS = {
    "push": "push",
    "push-by-digest": "push_by_digest",
    "registry.insecure": "insecure",
    "unpack": "unpack",
    "store": "store",
    "oci-mediatypes": "oci_mediatypes",
    "force-compression": "force_compression",
    "tar": "tar",
    "rewrite-timestamp": "rewrite_timestamp",
    "name-canonical": "name_canonical",
    "danging-name-empty-only": "dangling_empty_only",
    "dangling-name-empty-only": "dangling_empty_only",
    "platform-split": "platform_split",
    "oci-artifact": "oci_artifact",
    "attestation-inline": "attestation_inline",
    "prefer-nondist-layers": "prefer_nondist",
    "buildkit-layers": "buildkit_layers",
}


ATTRIBUTES = frozenset(
    {
        *_BOOLEANS,
        *("type", "dest", "name", "mode", "compression", "compression-level", "source-date-epoch"),
        *("dangling-name-prefix", "danging-name-prefix", "attestation-prefix", "compatibility-version"),
    }
)
"""The names of all attributes, besides ``annotation*``."""


def _checked(spec: OutputSpec, *, explicit_types: bool) -> OutputSpec:
    if spec.compression in ("zstd", "estargz") and not spec.oci_mediatypes:
        if explicit_types:
            raise UsageError(
                f'exporter option "compression={spec.compression}" conflicts with "oci-mediatypes=false"'
            )
        spec = replace(spec, oci_mediatypes=True)
    limit = {"gzip": 9, "estargz": 9, "zstd": 22}.get(spec.compression)
    if spec.compression_level is not None and limit is not None and not 0 <= spec.compression_level <= limit:
        raise UsageError(f"compression level of {spec.compression} must be from 0 to {limit}")
    if spec.annotations and spec.type in ("image", "oci", "docker") and not spec.oci_mediatypes:
        if explicit_types:
            raise UsageError('cannot export annotations with "oci-mediatypes=false"')
        spec = replace(spec, oci_mediatypes=True)
    if spec.rewrite_timestamp and spec.unpack:
        raise UsageError('exporter option "rewrite-timestamp" conflicts with "unpack"')
    if spec.type == "local" and not spec.dest:
        raise UsageError("dest is required for local exporter")
    if spec.type == "local" and spec.dest == "-":
        raise UsageError("a directory cannot be written to standard output", hint="use type=tar,dest=-")
    if spec.type in ("oci", "docker") and not spec.tar and spec.dest in ("", "-"):
        raise UsageError(f"dest is required for {spec.type} exporter with tar=false")
    if spec.type in ("oci", "docker", "tar") and not spec.dest and spec.type != "docker":
        spec = replace(spec, dest="-")
    return spec


def parse_annotation(key: str, value: str) -> Annotation:
    """Read ``annotation[-<type>][[<platform>]].<key>`` (EXP-11). Raises UsageError."""
    found = _ANNOTATION.match(key)
    if found is None:
        raise UsageError(f"invalid annotation {key!r}", hint="want annotation[-TYPE][[PLATFORM]].KEY=VALUE")
    target, platform, name = found.groups()
    if target is not None and target not in get_args(AnnotationTarget):
        raise UsageError(f"unrecognized annotation type {target}")
    return Annotation(
        target=target or "manifest",  # type: ignore[arg-type]
        platform=Platform.parse(platform) if platform else None,
        key=name,
        value=value,
    )


def csv_fields(text: str, what: str) -> list[str]:
    """The fields of one CSV line that says something. Raises UsageError."""
    fields = csvline.csv_fields(text, what)
    if fields == [""]:
        raise UsageError(f"invalid {what} {text!r}")
    return fields


def _boolean(key: str, value: str) -> bool:
    if value in ("", "1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"non-bool value specified for {key}")


def _integer(key: str, value: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", value) is None:
        raise UsageError(f"invalid value {value!r} for {key}", hint="want a whole number")
    return int(value)


def _epoch(key: str, value: str) -> int:
    """Seconds that a date of four digits for the year can hold, as configs want it."""
    found = _integer(key, value)
    if not _FIRST_SECOND <= found <= _LAST_SECOND:
        raise UsageError(f"invalid value {value!r} for {key}", hint="want seconds of the years 1 to 9999")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRef:
    """A layer of an image. ``base`` layers came with the base image and stay as they are.

    ``created`` (RFC 3339) and ``created_by`` fill history entries that are missing.
    """

    diff_id: DiffId
    descriptor: Descriptor
    base: bool = False
    created: str | None = None
    created_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One platform's result. ``snapshot`` is its tree (None = empty); ``base_history`` entries are the
    base's; ``attestations`` go with it. ``below`` are layers under the tree, which is only what lies on them.
    """

    platform: Platform
    config: ImageConfig
    layers: tuple[LayerRef, ...] = ()
    snapshot: str | None = None
    base_history: int = 0
    attestations: tuple[Attestation, ...] = ()
    below: tuple[LayerRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """An assembled image: blobs of config and manifest are in the store."""

    manifest: Descriptor
    config: Descriptor
    image_config: ImageConfig
    layers: tuple[LayerRef, ...]

    @property
    def config_digest(self) -> Digest:
        """The image id."""
        return self.config.digest

    @property
    def platform(self) -> Platform:
        """What it is made for."""
        return self.image_config.platform


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was exported; ``response`` are the keys of EXP-04."""

    root: Descriptor | None = None
    images: tuple[ImageResult, ...] = ()
    names: tuple[str, ...] = ()
    response: Pairs = ()
