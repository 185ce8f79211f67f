"""Git repositories and URLs as results: fetched once, committed as a snapshot, named by what they hold."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.build.blobs import BlobSource, is_blob
from builder.build.sources import RemoteSource
from builder.cache import keys
from builder.cache.basejson import go_json
from builder.cache.problems import translated
from builder.cache.store import Store
from builder.cache.treewriter import Writer
from builder.cache.types import CacheRecord
from builder.exporter.times import rfc3339
from builder.frontend.redact import redact
from builder.llb.gitref import GitRef
from builder.llb.ops import SourceOp
from builder.oci.digest import Digest
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.reporter import Reporter
from builder.sources.git import GitSource
from builder.sources.http import HttpAccess, HttpFile, HttpSource
from builder.sources.steps import Step

Pairs = tuple[tuple[str, str], ...]
_NO_REGISTRIES = RegistryConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """What remote sources may use: secrets by name, proxies, the ssh agent's socket."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    proxy_env: Pairs = ()
    ssh_socket: str = ""
    registry: RegistryConfig = _NO_REGISTRIES
    layouts: Mapping[str, Path] = field(default_factory=dict)


def remote_source(store: Store, op: SourceOp, options: RemoteOptions) -> RemoteSource:
    """The source that ``op`` names. Raises InvalidValue."""
    if op.identifier.startswith(("http://", "https://")):
        return _File(store, op, _http_source(store, op, options))
    if is_blob(op.identifier):
        return _File(
            store, op, BlobSource(store=store, op=op, registry=options.registry, layouts=options.layouts)
        )
    return _Git(store, op, options)


def made_s(store: Store, op: SourceOp, options: RemoteOptions, step: Step) -> int | None:
    """When what ``op`` names was made, in Unix seconds (EPO-02).

    A commit's date; what the server says of a file, or else the youngest member if it is an archive.
    """
    if op.identifier.startswith(("http://", "https://")):
        from builder.sources.archive import newest_member_s

        file = _http_source(store, op, options).fetch(step)
        return file.mtime_s or newest_member_s(file.path)
    source = _git_source(store, op, options)
    return source.committed_s(source.resolve(step), step)


def _http_source(store: Store, op: SourceOp, options: RemoteOptions) -> HttpSource:
    return HttpSource(
        store,
        store.blobs,
        op.identifier,
        checksum=op.attr("http.checksum"),
        filename=op.attr("http.filename"),
        access=HttpAccess(secrets=options.secrets, proxy_env=options.proxy_env),
    )


def _git_source(store: Store, op: SourceOp, options: RemoteOptions) -> GitSource:
    return GitSource(
        store=store,
        ref=_git_ref(op),
        tokens=options.secrets,
        proxy_env=options.proxy_env,
        ssh_socket=options.ssh_socket,
        keep_git_dir=op.attr("git.keepgitdir") == "true",
        public_key=op.attr("git.sig.pubkey"),
    )


class _File:
    """One file, from a URL or a blob."""

    def __init__(self, store: Store, op: SourceOp, source: HttpSource | BlobSource) -> None:
        self._store = store
        self._op = op
        self._source = source
        self._file: HttpFile | None = None

    def identity(self, reporter: Reporter) -> str:
        file = self._fetched(reporter)
        attrs = [op for op in self._op.attrs if op[0] in ("http.perm", "http.uid", "http.gid")]
        return f"http {file.digest} {file.name} {file.mtime_s} {sorted(attrs)}"

    def fetch(self, reporter: Reporter, cancel: Cancel) -> str:
        file = self._fetched(reporter)
        key = keys.source_key("remote", self.identity(reporter))

        def fill(upper: Path) -> None:
            fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                Writer(upper).write_file(
                    file.name,
                    fd,
                    int(self._op.attr("http.perm", "600"), 8),
                    int(self._op.attr("http.uid", "0")),
                    int(self._op.attr("http.gid", "0")),
                    mtime_ns=file.mtime_s * 1_000_000_000,
                )
            finally:
                os.close(fd)

        return _snapshot_once(self._store, key, self._op.identifier, cancel, fill)

    def cache_key(self, reporter: Reporter) -> str:
        file = self._fetched(reporter)
        value: dict[str, object] = {"Filename": file.name}
        value["Perm"] = int(self._op.attr("http.perm", "600"), 8)
        value["UID"], value["GID"] = int(self._op.attr("http.uid", "0")), int(self._op.attr("http.gid", "0"))
        value["Checksum"] = str(file.digest)
        if file.mtime_s:
            value["LastModTime"] = rfc3339(file.mtime_s * 1_000_000_000)
        return str(Digest.of(go_json(value)))

    def pin(self) -> str:
        return str(self._file.digest) if self._file is not None else ""

    def _fetched(self, reporter: Reporter) -> HttpFile:
        if self._file is None:
            reporter.start()
            self._file = self._source.fetch(reporter)
        return self._file


class _Git:
    def __init__(self, store: Store, op: SourceOp, options: RemoteOptions) -> None:
        self._store = store
        self._op = op
        self._keep = op.attr("git.keepgitdir") == "true"
        self._source = _git_source(store, op, options)
        self._commit: str | None = None

    def identity(self, reporter: Reporter) -> str:
        if self._commit is None:
            reporter.start()
            self._commit = self._source.resolve(reporter)
        ref = self._source.ref
        git_dir = f".git#{ref.ref}" if self._keep else ""
        modules = "" if ref.submodules else "(skip-submodules)"
        key = self._source.public_key
        signed = f" signed by {hashlib.sha256(key.encode()).hexdigest()}" if key else ""
        return f"git {self._commit}{git_dir}:{ref.subdir}{modules} {ref.mtime}{signed}"

    def cache_key(self, reporter: Reporter) -> str:
        self.identity(reporter)
        ref = self._source.ref
        markers = [
            f".git#{ref.ref}" if self._keep else "",
            f":{ref.subdir}" if ref.subdir else "",
            "" if ref.submodules else "(skip-submodules)",
            "(mtime=commit)" if ref.mtime == "commit" else "",
        ]
        return f"{self._commit}{''.join(markers)}"

    def pin(self) -> str:
        from builder.build.vcs import commit_pin

        return commit_pin(self._commit) if self._commit else ""

    def fetch(self, reporter: Reporter, cancel: Cancel) -> str:
        key = keys.source_key("remote", self.identity(reporter))
        commit = self._commit
        assert commit is not None

        def fill(upper: Path) -> None:
            with self._store.staging("git") as staging:
                tree = self._source.checkout(commit, staging / "tree", reporter)
                _move_below(tree, upper)

        return _snapshot_once(
            self._store, key, self._op.identifier, cancel, fill, record_type="source.git.checkout"
        )


def _git_ref(op: SourceOp) -> GitRef:
    """What a git source asks for (rows GIT-03, OPM-11)."""
    name, _, subdir = op.identifier.partition("#")[2].partition(":")
    return GitRef(
        remote=op.attr("git.fullurl") or op.identifier.partition("#")[0],
        ref=name,
        subdir=subdir,
        checksum=op.attr("git.checksum"),
        keep_git_dir=op.attr("git.keepgitdir") == "true" or None,
        submodules=op.attr("git.skipsubmodules") != "true",
        mtime="commit" if op.attr("git.mtime") == "commit" else "checkout",
        fetch_by_commit=op.attr("git.fetchbycommit") == "true",
    )


def _snapshot_once(
    store: Store,
    key: str,
    name: str,
    cancel: Cancel,
    fill: Callable[[Path], None],
    *,
    record_type: str = "regular",
) -> str:
    """The snapshot of ``key``: the one there is, or a new one that ``fill`` fills; one process makes it."""
    name = redact(name)
    with store.lock(f"source-{key}", on_wait=cancel.check):
        known = store.records.lookup(key)
        if known is not None and known.outputs[0]:
            return known.outputs[0]
        active = store.snapshots.prepare(None, description=name, record_type=record_type)
        try:
            with translated(f"keep {name}"):
                fill(active.upper)
            cancel.check()
            info = store.snapshots.commit(active, description=name, record_type=record_type)
        except BaseException:
            store.snapshots.discard(active)
            raise
        store.records.save(CacheRecord(key=key, op=key, outputs=(info.id,), name=name))
        return info.id


def _move_below(tree: Path, upper: Path) -> None:
    """Move a checkout's content into an empty directory; owner 0:0 as for every context (SGI-05)."""
    for name in os.listdir(tree):
        shutil.move(os.fspath(tree / name), os.fspath(upper / name))
    mode = stat.S_IMODE(os.lstat(tree).st_mode)
    os.chmod(upper, mode)
