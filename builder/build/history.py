"""The history as people use it: which builds there were, one of them found, filtered, removed, replayed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.build.buildlog import read_log
from builder.cache.history import BuildRow
from builder.cache.store import Store
from builder.errors import PybuildError, StoreError, UsageError
from builder.oci.digest import Digest
from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """One build (HSY-01). ``data`` is the rest of what ``docs/formats/history.md`` lists."""

    ref: str
    status: str
    created_ns: int
    completed_ns: int | None
    pinned: bool
    data: dict[str, Any]

    @classmethod
    def of(cls, row: BuildRow) -> BuildRecord:
        """The record that a row holds."""
        return cls(
            ref=row.id,
            status=row.status,
            created_ns=row.created_ns,
            completed_ns=row.completed_ns,
            pinned=row.pinned,
            data=row.data,
        )

    @property
    def running(self) -> bool:
        """Whether its process is still at it."""
        return self.status == "running"

    @property
    def duration_ns(self) -> int:
        """How long it took, or has taken so far."""
        return max(0, (self.completed_ns or time.time_ns()) - self.created_ns)

    @property
    def name(self) -> str:
        """What to call it: the last part of its context, with the Dockerfile and target that were named."""
        context = str(self.data.get("context", "")).rstrip("/")
        name = context.rpartition("/")[2] or context
        dockerfile = os.path.basename(str(self.data.get("dockerfile", "")))
        if dockerfile not in ("", "-", "Dockerfile"):
            name += f"/{dockerfile}"
        target = self.data.get("target")
        return f"{name} ({target})" if target else name

    @property
    def recalled(self) -> bool:
        """Whether the result of an earlier build answered it whole."""
        return bool(self.data.get("recalled"))

    def count(self, what: str) -> int:
        """``total``, ``cached``, ``completed`` steps or ``warnings``."""
        return int((self.data.get("counts") or {}).get(what, 0))


def records(store: Store) -> Iterator[BuildRecord]:
    """All builds: running ones first, then the newest."""
    return map(BuildRecord.of, store.builds.list())


def find(store: Store, ref: str = "") -> BuildRecord:
    """A build by id, by its beginning, or as ``^N``: N before the last one; "" is the last.

    Raises UsageError.
    """
    return BuildRecord.of(find_row(store, ref))


def find_row(store: Store, ref: str) -> BuildRow:
    """The row of what ``find`` finds."""
    if ref and not ref.startswith("^"):
        try:
            row = store.builds.get(ref)
        except StoreError as error:
            raise UsageError(error.message, hint=error.hint, code="ambiguous-build") from error
        if row is None:
            raise UsageError(f"no such build: {ref}", hint="pybuild history ls", code="no-such-build")
        return row
    number = ref[1:] or "0"
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise UsageError(
            f"invalid build reference {ref!r}", hint="^0 is the last build, ^1 the one before it"
        )
    rows = sorted(store.builds.list(), key=lambda row: row.created_ns, reverse=True)
    if int(number) >= len(rows):
        many = f"only {len(rows)} builds are on record" if rows else "no build is on record"
        raise UsageError(f"no such build {ref}: {many}" if ref else many, code="no-such-build")
    return rows[int(number)]


def events(store: Store, record: BuildRecord, *, follow: bool = True) -> Iterator[Event]:
    """Everything that was shown of a build; with ``follow`` also what a running one still tells."""
    if record.recalled:
        yield from _recalled(record)
        return

    def running() -> bool:
        store.sweep()  # marks a build whose process died
        row = store.builds.get(record.ref)
        return row is not None and row.status == "running"

    path = f"{store.builds.directory(record.ref)}/log"
    yield from read_log(path, running=running if follow and record.running else None)


def _recalled(record: BuildRecord) -> Iterator[Event]:
    for digest, name, inputs, cached, *group in record.data.get("shown") or ():
        yield VertexEvent(
            digest=str(digest),
            name=str(name),
            inputs=tuple(inputs),
            started_ns=record.created_ns,
            completed_ns=record.completed_ns,
            cached=bool(cached),
            progress_group=str(group[0]) if group else "",
        )


def event_time(event: Event) -> int:
    """When an event happened, as far as it says; Unix nanoseconds."""
    match event:
        case VertexEvent():
            return event.completed_ns or event.started_ns or 0
        case StatusEvent() | LogEvent():
            return event.timestamp_ns
        case WarningEvent():
            return 0


def remove(store: Store, refs: Sequence[str]) -> tuple[str, ...]:
    """Forget builds with their logs; UsageError, before any is removed, when one is running."""
    found = [find(store, ref) for ref in refs]
    for record in found:
        if record.running:
            raise UsageError(f"build {record.ref} is running", hint="stop it first", code="build-running")
    return tuple(record.ref for record in found if store.builds.remove(record.ref))


def remove_all(store: Store) -> tuple[str, ...]:
    """Forget every build that is neither running nor pinned."""
    return tuple(
        record.ref
        for record in records(store)
        if not record.running and not record.pinned and store.builds.remove(record.ref)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Something that belongs to a build: ``path`` is its file, "" for what is in the content store.

    Provenance has a predicate type and a platform.
    """

    media_type: str
    digest: str
    size: int
    path: str = ""
    predicate: str = ""
    platform: str = ""

    def to_json(self) -> dict[str, str | int]:
        """As it stands in a record."""
        found: dict[str, str | int] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            "predicateType": self.predicate,
            "platform": self.platform,
        }
        return {key: value for key, value in found.items() if value != ""}


STATUS_TYPE = "application/vnd.buildkit.status.v0"
TRACE_TYPE = "application/vnd.buildkit.otlp.json.v0"
PROVENANCE_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
DEFINITION_TYPE = "application/vnd.pybuild.definition.v0+json+zlib"


def attachments(store: Store, record: BuildRecord) -> tuple[Attachment, ...]:
    """The files of a build and the image that it made, the latter while it is there."""
    found = []
    for name, kind in (("log", STATUS_TYPE), ("definition", DEFINITION_TYPE), ("trace", TRACE_TYPE)):
        path = f"{store.builds.directory(record.ref)}/{name}"
        if os.path.isfile(path):
            digest, size = _digest(path)
            found.append(Attachment(media_type=kind, digest=digest, size=size, path=path))
    found += _provenance(store, record)
    result = (record.data.get("response") or {}).get("containerimage.descriptor")
    if isinstance(result, dict) and store.blobs.has(Digest.parse(str(result.get("digest")))):
        found.append(
            Attachment(
                media_type=str(result.get("mediaType", "")),
                digest=str(result["digest"]),
                size=int(result.get("size", 0)),
            )
        )
    return tuple(found)


def _provenance(store: Store, record: BuildRecord) -> Iterator[Attachment]:
    """Those documents that are there, in the order of the platforms."""
    for number, about in enumerate(record.data.get("provenance") or ()):
        path = f"{store.builds.directory(record.ref)}/{_provenance_name(number)}"
        if os.path.isfile(path):
            digest, size = _digest(path)
            platform = str(about.get("platform", ""))
            yield _provenance_of(digest, size, platform, path)


def _provenance_of(digest: str, size: int, platform: str, path: str = "") -> Attachment:
    return Attachment(
        media_type=PROVENANCE_TYPE,
        digest=digest,
        size=size,
        path=path,
        predicate=PREDICATE_TYPE,
        platform=platform,
    )


def _provenance_name(number: int) -> str:
    return f"provenance-{number}" if number else "provenance"


def finalized(store: Store, record: BuildRecord) -> BuildRecord:
    """The record with its trace and its provenance, which are made when somebody first asks (HSY-02).

    It stays as it is while the build runs, when what they are made of is gone, and when the disk refuses.
    """
    if record.running:
        return record
    files: dict[str, bytes] = {}
    about: dict[str, Any] = {}
    directory = store.builds.directory(record.ref)
    told = record.recalled or os.path.isfile(f"{directory}/log")
    if told and not ("trace" in record.data and os.path.isfile(f"{directory}/trace")):
        from builder.build.trace import otlp

        files["trace"] = otlp(record, events(store, record))
        about["trace"] = _described(TRACE_TYPE, files["trace"]).to_json()
    if record.data.get("inputs") and not _has_provenance(store, record):
        from builder.build.provenance import predicates

        found = list(predicates(store, record))
        files |= {_provenance_name(number): content for number, (_, content) in enumerate(found)}
        if found:
            about["provenance"] = [
                _provenance_of(str(Digest.of(content)), len(content), platform).to_json()
                for platform, content in found
            ]
    if files:
        with contextlib.suppress(PybuildError):
            store.builds.attach(record.ref, files, **about)
    row = store.builds.get(record.ref) if files else None
    return record if row is None else BuildRecord.of(row)


def _described(media_type: str, content: bytes) -> Attachment:
    return Attachment(media_type=media_type, digest=str(Digest.of(content)), size=len(content))


def _has_provenance(store: Store, record: BuildRecord) -> bool:
    known = record.data.get("provenance") or ()
    return bool(known) and len(list(_provenance(store, record))) == len(known)


def trace(store: Store, record: BuildRecord) -> bytes:
    """The trace of a build that is over. Raises UsageError when there is none."""
    if record.running:
        raise UsageError(f"build {record.ref} is running", hint="wait for its end", code="build-running")
    for found in attachments(store, finalized(store, record)):
        if found.media_type == TRACE_TYPE:
            return attachment_bytes(store, found)
    raise UsageError(
        f"build {record.ref} has no trace", hint="its log was removed", code="no-such-attachment"
    )


def attachment_bytes(store: Store, attachment: Attachment) -> bytes:
    """What an attachment holds; a definition is inflated. Raises StoreError when it is gone or damaged."""
    if not attachment.path:
        return store.blobs.read(Digest.parse(attachment.digest), _MAX_BYTES)
    try:
        with open(attachment.path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise StoreError(f"{attachment.path}: {error.strerror}", hint="the build was removed") from error
    if attachment.media_type == DEFINITION_TYPE:
        import zlib

        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise StoreError(f"{attachment.path} is damaged: {error}", hint="remove the build") from error
    return data


def _digest(path: str) -> tuple[str, int]:
    import hashlib

    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256")
        return f"sha256:{found.hexdigest()}", file.tell()
