"""A build that was done before, recognised without being planned again.

After a build from a directory into the store, what its result depended on is kept: the digests of the
Dockerfile and the ignore file, what the names of its base images meant, what it selected from its context,
the keys of its steps. When a later request says the same and every one of these facts still holds, the
result is known. Anything else, and anything that cannot be checked cheaply, goes the long way; nothing is
ever answered from here that the long way would not answer alike.

This module is on the path of every build, so it imports next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from builder.build.request import BuildRequest, BuildResult, BuildWarning, Lines
from builder.cache.names import KEY_VERSION
from builder.solver.progress import VertexEvent, WarningEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.cache.store import Store
    from builder.solver.progress import OnEvent

KIND = "build-memo"
VERSION = 12
_NO_PART = frozenset(
    {
        "context",
        "stdin",
        "cache_from",
        "stdout",
        "tags",
        "secrets",
        "ssh",
        "registry",
        "max_parallelism",
        "keep_going",
        "retries",
        "step_timeout_s",
        "build_id",
        "llb",
        "history",
        "space",
        "gc_policies",
    }
)
_FILE_LIMIT = 16 << 20
_BATCH = 400


def is_eligible(request: BuildRequest) -> bool:
    """Whether a request is of the kind that can be recognised: a directory in, an image in the store out."""
    return (
        not (request.outputs or request.no_cache or request.no_cache_filter or request.pull)
        and not (
            request.build_contexts
            or request.inputs
            or request.dockerfile_data is not None
            or request.dockerfile == "-"
        )
        and request.llb is None
        and not (request.source_policy_command or wants_attestations(request))
        and not request.cache_to
        and len(request.platforms) <= 1
        and os.path.isdir(request.context)
    )


def wants_attestations(request: BuildRequest) -> bool:
    """Whether anything is to be attested; what names the build and its time is never the same twice."""
    return bool(request.attest) or any(name.startswith("BUILDKIT_ATTEST_") for name, _ in request.build_args)


def key_of(request: BuildRequest) -> str:
    """Names all of a request that its result depends on; tags, secrets and credentials do not count."""
    told = [f"{VERSION} {KEY_VERSION} {os.uname().machine}", os.path.realpath(request.context)]
    if request.dockerfile:
        told.append(os.path.abspath(request.dockerfile))
    told += [
        f"{name}={getattr(request, name)!r}"
        for name in BuildRequest.__dataclass_fields__
        if name not in _NO_PART
    ]
    return hashlib.sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()


def recall(store: Store, request: BuildRequest, emit: OnEvent) -> BuildResult | None:
    """The result of an earlier build, named with today's tags, if all that it depended on is unchanged."""
    started_ns = time.time_ns()
    data = store.doc(KIND, key_of(request))
    if data is None:
        return None
    known = json.loads(data)
    from builder.oci.digest import Digest

    with store.hold() as hold:
        # Held first: what is seen to be there afterwards stays until it has its names.
        if not hold.blob(Digest.parse(known["manifest"]["digest"])):
            return None
        return _recalled(store, request, known, emit, started_ns)


def _recalled(
    store: Store, request: BuildRequest, known: dict[str, Any], emit: OnEvent, started_ns: int
) -> BuildResult | None:
    if not (
        _files_hold(known["files"])
        and _bases_hold(store, known["bases"])
        and _results_hold(store, known["records"], known["manifest"]["digest"])
        and _selections_hold(store, request, known)
    ):
        return None
    names = full_names(request.tags)
    warnings = tuple(
        BuildWarning(rule, message, Lines(*span), *more) for rule, message, span, *more in known["warnings"]
    )
    warn(emit, warnings)
    _replay(known, emit)
    _name(store, names, known, emit)
    return BuildResult(
        build_id=_put_on_record(store, request, known, started_ns),
        image_id=known["image_id"],
        digest=known["manifest"]["digest"],
        names=names,
        metadata={**known["metadata"], **({"image.name": ",".join(names)} if names else {})},
        warnings=warnings,
        dockerfile=_read(known["files"][0][0]) if warnings else b"",
        unused_build_args=tuple(known["unused"]),
        unused_hints=tuple(known["unused_hints"]),
        cached_steps=known["steps"],
        total_steps=known["steps"],
        bases=tuple((name, digest) for name, digest in known["bases"]),
    )


def remember(store: Store, request: BuildRequest, facts: dict[str, Any]) -> None:
    """Keep what a build depended on and gave; ``facts`` has the keys that ``recall`` reads."""
    store.put_doc(KIND, key_of(request), json.dumps(facts).encode())


def file_fact(path: str) -> tuple[str, str | None]:
    """A file's path and the digest of its content; None when there is nothing, "" when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return path, hashlib.sha256(file.read(_FILE_LIMIT)).hexdigest()
    except OSError:
        return path, "" if os.path.lexists(path) else None


def full_names(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as full references, each once. Raises InvalidValue."""
    if not tags:
        return ()
    from builder.errors import InvalidValue
    from builder.oci.reference import Reference

    names = []
    for tag in tags:
        reference = Reference.parse(tag)
        if reference.digest is not None:
            raise InvalidValue(f"invalid tag {tag!r}: a tag cannot have a digest")
        names.append(str(reference.with_default_tag()))
    return tuple(dict.fromkeys(names))


def warn(emit: OnEvent, warnings: Sequence[BuildWarning]) -> None:
    """Tell the watchers of a build what is wrong with its Dockerfile."""
    for warning in warnings:
        emit(
            WarningEvent(
                vertex="",
                short=str(warning),
                detail=tuple(filter(None, (warning.detail, warning.hint))),
                url=warning.url,
                filename=warning.span.filename,
                start_line=warning.span.start,
                end_line=warning.span.end,
            )
        )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_LIMIT)
    except OSError:
        return b""


def _files_hold(facts: Sequence[Sequence[str | None]]) -> bool:
    return all(path is not None and file_fact(path)[1] == digest for path, digest in facts)


def _bases_hold(store: Store, bases: Sequence[Sequence[str]]) -> bool:
    """Every base image's name still means the same manifest."""
    return all(
        store.db.one("SELECT 1 FROM image_names WHERE ref=? AND manifest=?", (ref, digest)) is not None
        for ref, digest in bases
    )


def _results_hold(store: Store, records: dict[str, str], manifest: str) -> bool:
    """Every step's record still leads to the same snapshots, and the image is there."""
    if store.db.one("SELECT 1 FROM images WHERE manifest=?", (manifest,)) is None:
        return False
    wanted = list(records)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _BATCH):
        found.update(store.records.outputs(wanted[start : start + _BATCH]))
    return found == records


def _selections_hold(store: Store, request: BuildRequest, known: dict[str, Any]) -> bool:
    """One look at the stats of what the build had selected from its context."""
    if not known["selections"]:
        return True
    from pathlib import Path

    from builder.sources.local import LocalContext

    ignore = None
    text = known["ignore"].encode("utf-8", "surrogateescape")
    if text.strip():
        from builder.frontend.dockerignore import IgnoreMatcher

        ignore = IgnoreMatcher.parse(text)
    context = LocalContext(
        Path(request.context), ignore=ignore, ignore_key=known["ignore_key"], documents=store
    )
    with context:
        return all(
            context.unchanged(selector, prefixes, wildcard=wildcard) == value.encode()
            for selector, prefixes, wildcard, value in known["selections"]
        )


def _replay(known: dict[str, Any], emit: OnEvent) -> None:
    now = time.time_ns()
    for digest, name, inputs, cached, *group in known["shown"]:
        emit(
            VertexEvent(
                digest=digest,
                name=name,
                inputs=tuple(inputs),
                started_ns=now,
                completed_ns=now,
                cached=cached,
                progress_group=group[0] if group else "",
            )
        )


def _put_on_record(store: Store, request: BuildRequest, known: dict[str, Any], started_ns: int) -> str:
    """One row for the history, without a log: what was shown is in it. A failure is the history's alone."""
    from builder.errors import PybuildError

    build_id = request.build_id or os.urandom(8).hex()

    shown = known["shown"]
    row = {
        "recalled": True,
        **known.get("about", {}),
        "tags": list(request.tags),
        "exporters": [{"Type": "image", "Attrs": {"name": ",".join(full_names(request.tags))}}],
        "image_id": known["image_id"],
        "digest": known["manifest"]["digest"],
        "response": known["metadata"],
        "counts": {"total": len(shown), "cached": sum(item[3] for item in shown), "completed": len(shown)},
        "shown": shown,
    }
    if known["warnings"]:
        row["counts"]["warnings"] = len(known["warnings"])
    try:
        store.db.run(
            "INSERT OR IGNORE INTO builds(id, created_ns, completed_ns, status, data)"
            " VALUES(?,?,?,'completed',?)",
            (build_id, started_ns, time.time_ns(), json.dumps(row)),
        )
        before_ns = time.time_ns() - request.history.max_age_s * 1_000_000_000
        if store.db.one("SELECT 1 FROM builds WHERE created_ns<? LIMIT 1", (before_ns,)) is not None:
            store.builds.forget_old(request.history.max_builds, before_ns)
    except PybuildError:
        pass
    return build_id


def _name(store: Store, names: tuple[str, ...], known: dict[str, Any], emit: OnEvent) -> None:
    """Let today's tags mean the image; tags that already do cost one look-up each."""
    from builder.build.phases import phase

    manifest = known["manifest"]
    with phase("exporting to image", emit) as step:
        for name in names:
            held = store.db.one(
                "SELECT 1 FROM image_names WHERE ref=? AND manifest=?", (name, manifest["digest"])
            )
            if held is None:
                from builder.oci.descriptor import Descriptor

                store.images.tag(name, Descriptor.from_json(manifest))
            step.status(f"naming to {name}", done=True)
