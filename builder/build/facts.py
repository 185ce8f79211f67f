"""What the history keeps of a request and of a failure (HSY-01).

Attributes have the names of the reference's frontend. No secret gets in: values of variables that look secret
and credentials in URLs are replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.build.request import BuildRequest
from builder.errors import (
    Cancelled,
    InvalidValue,
    NotFoundInRegistry,
    PybuildError,
    SolveError,
    StoreFull,
    Unauthorized,
    UsageError,
)
from builder.exporter.types import OutputSpec
from builder.frontend.redact import redact, redact_values
from builder.llb.definition import Vertex, encode_op

if TYPE_CHECKING:
    from builder.sources.local import LocalContext

FRONTEND = "dockerfile.v0"
HIDDEN = "xxxxx"
_CODES: tuple[tuple[type[PybuildError], int], ...] = (
    (Cancelled, 1),
    (UsageError, 3),
    (InvalidValue, 3),
    (NotFoundInRegistry, 5),
    (StoreFull, 8),
    (Unauthorized, 16),
)
_UNKNOWN = 2
_IGNORE_LIMIT = 16 << 10


def about(request: BuildRequest, outputs: Sequence[OutputSpec]) -> dict[str, Any]:
    """What is known of a build before it starts."""
    local = request.context != "-" and "://" not in request.context and os.path.isdir(request.context)
    return {
        "context": os.path.realpath(request.context) if local else redact(request.context),
        "dockerfile": request.dockerfile or "",
        "target": request.target or "",
        "tags": list(request.tags),
        "frontend": FRONTEND if request.llb is None else "",
        "attrs": dict(sorted(_attrs(request))),
        "exporters": [_exporter(spec) for spec in outputs],
        "platforms": list(request.platforms),
    }


def ignores(contexts: Mapping[str, LocalContext]) -> dict[str, list[str]]:
    """The ignore files of contexts: name and text of each, by the name of the context; no huge ones."""
    return {
        key: [context.ignore_file[0], context.ignore_file[1].decode("utf-8", "surrogateescape")]
        for key, context in contexts.items()
        if 0 < len(context.ignore_file[1]) <= _IGNORE_LIMIT
    }


def _attrs(request: BuildRequest) -> Iterator[tuple[str, str]]:
    plain = {
        "filename": request.dockerfile or "",
        "target": request.target or "",
        "platform": ",".join(request.platforms),
        "no-cache": ",".join(request.no_cache_filter),
        "image-resolve-mode": "pull" if request.pull else "",
        "force-network-mode": request.network,
        "hostname": request.hostname,
        "cgroup-parent": request.cgroup_parent,
        "shm-size": str(request.shm_size_bytes or ""),
        "add-hosts": ",".join(f"{name}={value}" for name, value in request.extra_hosts),
        "ulimit": ",".join(f"{item.name}={item.soft}:{item.hard}" for item in request.ulimits),
        "context": request.context if "://" in request.context else "",
    }
    yield from ((key, redact(value)) for key, value in plain.items() if value)
    if request.no_cache:
        yield "no-cache", ""
    yield from ((f"build-arg:{name}", shown(name, value)) for name, value in request.build_args)
    yield from ((f"label:{name}", shown(name, value)) for name, value in request.labels)
    yield from ((f"context:{name}", redact(value)) for name, value in request.build_contexts)


def shown(name: str, value: str) -> str:
    """The value of a variable as it may be written down."""
    from builder.frontend.lint import names_secret

    return HIDDEN if value and names_secret(name) else redact(value)


def _exporter(spec: OutputSpec) -> dict[str, Any]:
    """An output as a type and attributes; for those that no exporter has, ``dest`` stays."""
    attrs = {
        "name": ",".join(spec.names),
        "dest": spec.dest,
        "push": "true" if spec.push else "",
        "compression": "" if spec.compression == "gzip" else spec.compression,
        **{f"annotation.{item.key}": item.value for item in spec.annotations},
    }
    return {"Type": spec.type, "Attrs": {key: redact(value) for key, value in attrs.items() if value}}


def failure(error: BaseException) -> dict[str, Any]:
    """An error: its message, our code, the reference's number for its kind, and where it happened."""
    if not isinstance(error, PybuildError):
        return {"error": type(error).__name__, "code": "bug", "status_code": _UNKNOWN}
    number = next((number for kind, number in _CODES if isinstance(error, kind)), _UNKNOWN)
    out: dict[str, Any] = {"error": redact(error.message), "code": error.code, "status_code": number}
    if isinstance(error, SolveError):
        where = {
            "step": redact(error.vertex_name),
            "digest": error.vertex_digest,
            "file": error.filename,
            "start_line": error.first_line,
            "end_line": error.last_line,
        }
        out["where"] = {key: value for key, value in where.items() if value}
    return out


def definition_lines(vertices: Iterable[Vertex]) -> Iterator[str]:
    """Every vertex as a line of JSON, inputs first. Its digest does not fit where something was replaced."""
    for vertex in vertices:
        span = vertex.meta.source
        about: dict[str, Any] = {"description": {"llb.customname": vertex.name}}
        if span is not None:
            about["source"] = [span.filename, span.start, span.end]
        item = {
            "Op": {
                "inputs": [{"digest": str(edge.digest), "index": edge.index} for edge in vertex.inputs],
                **encode_op(vertex.op),
                **({"platform": str(vertex.platform)} if vertex.platform else {}),
                **({"constraints": vertex.constraints} if vertex.constraints else {}),
            },
            "Digest": str(vertex.digest),
            "OpMetadata": about,
        }
        _hide_env(item["Op"])
        text = json.dumps(item, separators=(",", ":"))
        if "@" in text and "://" in text:  # each text by itself: a URL ends where its text ends
            text = json.dumps(redact_values(item), separators=(",", ":"))
        yield text


def _hide_env(op: Any) -> None:
    meta = op.get("ExecOp", {}).get("meta", {})
    if "env" in meta:
        meta["env"] = [_env(item) for item in meta["env"]]
    if "proxy_env" in meta:
        meta["proxy_env"] = [[name, shown(name, value)] for name, value in meta["proxy_env"]]


def _env(item: str) -> str:
    name, equals, value = item.partition("=")
    return f"{name}{equals}{shown(name, value)}"
