"""From what the user calls a context to trees and a Dockerfile's text (CTX-01…06, BLD-12…27).

A context is a directory, ``-`` (an archive or a Dockerfile on standard input), a git reference or an
http(s) URL (an archive or a Dockerfile). A directory is read in place. Everything else is first put into a
staging directory of the store, which ``cleanup`` removes. Ignore files count for directories only (CTX-06).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from builder.errors import InvalidValue, PybuildError, SourceUnavailable, UsageError
from builder.llb.gitref import GitRef, parse_git_ref, redacted
from builder.oci.digest import Digest
from builder.sources import dockerfile as files
from builder.sources.contexttree import Ignore
from builder.sources.dockerfile import FoundDockerfile
from builder.sources.gitstore import GitStore
from builder.sources.index import Documents
from builder.sources.local import LocalContext
from builder.sources.named import NamedSource, parse_named
from builder.sources.steps import Steps, silent

PEEK_BYTES = 1024
CompileIgnore = Callable[[bytes], Ignore]


class ContextStore(Documents, GitStore, Protocol):
    """What is needed of the state directory (``cache.store.Store``)."""

    def staging(self, prefix: str) -> AbstractContextManager[Path]:
        """A directory that is removed in the end, also if this process dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAccess:
    """What remote contexts need; values that the caller read from flags and the environment."""

    git_tokens: Mapping[str, str] = field(default_factory=dict)
    proxy_env: tuple[tuple[str, str], ...] = ()
    ssh_socket: str = ""
    keep_git_dir: bool = False
    commit_times: bool = False
    """The files of a git context are as old as its commit (EPO-04)."""


def _never() -> int | None:
    return None


@dataclass(slots=True, kw_only=True)
class PreparedContext:
    """The inputs of a build. A context manager; ``cleanup`` releases what was staged.

    ``main`` is None when there is a Dockerfile but no context (BLD-13). ``locals`` are the trees of named
    local contexts by identifier. ``dockerfile_path`` is where the file is on this machine, if it is.
    ``source`` and ``revision`` are the URL and the commit (or digest) of a remote context; ``made_s`` says
    when that was made, in Unix seconds; None = not known (EPO-02).
    """

    main: LocalContext | None
    dockerfile: bytes
    dockerfile_name: str
    dockerfile_path: Path | None = None
    ignore: Ignore | None = None
    ignore_text: bytes | None = None
    named: Mapping[str, NamedSource] = field(default_factory=dict)
    locals: Mapping[str, LocalContext] = field(default_factory=dict)
    source: str = ""
    revision: str = ""
    made_s: Callable[[], int | None] = _never
    _stack: ExitStack = field(default_factory=ExitStack)

    def cleanup(self) -> None:
        """Close the trees, keep what was learnt of them, remove staged files."""
        self._stack.close()

    def __enter__(self) -> PreparedContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()


@dataclass(slots=True, kw_only=True)
class _Task:
    """Everything ``prepare_context`` was given."""

    store: ContextStore
    stdin: BinaryIO | None
    dockerfile: str | None
    data: bytes | None
    subdir: str
    compile_ignore: CompileIgnore
    steps: Steps
    remote: RemoteAccess
    stack: ExitStack


def prepare_context(
    store: ContextStore,
    spec: str,
    *,
    compile_ignore: CompileIgnore,
    stdin: BinaryIO | None = None,
    dockerfile: str | None = None,
    dockerfile_data: bytes | None = None,
    build_contexts: Iterable[tuple[str, str]] = (),
    subdir: str = "",
    steps: Steps = silent,
    remote: RemoteAccess | None = None,
) -> PreparedContext:
    """Find the context ``spec`` and its Dockerfile.

    ``dockerfile`` is ``-f``: a path on this machine, or one inside the context, or ``-`` for ``stdin``;
    ``dockerfile_data`` is the text itself and wins. ``subdir`` is the part of a context that is no directory
    of this machine; the Dockerfile is looked for in all of it (CTX-05). ``compile_ignore`` makes the rules of
    an ignore file (``IgnoreMatcher.parse``). Raises UsageError, SourceUnavailable, InvalidValue.
    """
    with ExitStack() as stack:
        task = _Task(
            store=store,
            stdin=stdin,
            dockerfile=dockerfile,
            data=dockerfile_data,
            subdir=subdir,
            compile_ignore=compile_ignore,
            steps=steps,
            remote=remote or RemoteAccess(),
            stack=stack,
        )
        if spec == "-" and dockerfile == "-" and dockerfile_data is None:
            raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
        named = _named(build_contexts)
        prepared = _main(task, spec)
        prepared.named = named
        prepared.locals = {
            source.identifier: _open_named(task, source)
            for source in named.values()
            if source.kind == "local"
        }
        if not prepared.dockerfile.strip(b"\xef\xbb\xbf"):
            raise InvalidValue(
                f"failed to read dockerfile: the Dockerfile cannot be empty: {prepared.dockerfile_name}",
                code="empty-dockerfile",
            )
        prepared._stack = stack.pop_all()
        return prepared


def _main(task: _Task, spec: str) -> PreparedContext:
    if spec == "-":
        return _from_stdin(task)
    if os.path.isdir(spec):
        return _from_directory(task, Path(spec))
    git = parse_git_ref(spec)
    if git is not None:
        return _from_git(task, git)
    if spec.startswith(("http://", "https://")):
        return _from_url(task, spec)
    if "://" in spec:
        raise UsageError(f"unable to prepare context: unsupported context {redacted(spec)[:200]!r}")
    if os.path.exists(spec):
        raise SourceUnavailable(
            f'unable to prepare context: path "{spec}" is not a directory',
            hint=f"the context is a directory; to build from a file: pybuild build -f {spec} DIRECTORY",
            code="context-not-found",
        )
    raise SourceUnavailable(f'unable to prepare context: path "{spec}" not found', code="context-not-found")


# --- directories ------------------------------------------------------------------------------------------


def _from_directory(task: _Task, root: Path) -> PreparedContext:
    bare = LocalContext(root, name="context")
    try:
        found, path = _dockerfile_for(task, bare)
    finally:
        bare.close()
    text, ignore = _rules(task, found.ignore_text, found.ignore_name)
    main = LocalContext(
        root,
        ignore=ignore,
        ignore_key=str(Digest.of(text)) if text else "",
        ignore_file=(found.ignore_name, text or b""),
        documents=task.store,
    )
    task.stack.callback(main.close)
    return PreparedContext(
        main=main,
        dockerfile=found.data,
        dockerfile_name=found.name,
        dockerfile_path=path,
        ignore=ignore,
        ignore_text=text,
    )


def _dockerfile_for(task: _Task, tree: LocalContext) -> tuple[FoundDockerfile, Path | None]:
    """The Dockerfile of a context that is a directory now, and its place on this machine."""
    name = task.dockerfile
    if task.data is not None or name == "-":
        data = task.data if task.data is not None else _read_stdin(task)
        text, ignore_name = files.ignore_of(tree, None)
        shown = name if name and name != "-" else files.DEFAULT_NAME
        return FoundDockerfile(data=data, name=shown, ignore_text=text, ignore_name=ignore_name), None
    inside = None if name is None else _inside(tree.root, name)
    with task.steps(
        f"[internal] load build definition from {os.path.basename(name) if name else files.DEFAULT_NAME}"
    ) as step:
        if name is not None and inside is None:
            found, path = files.find_outside(Path(name), tree), Path(name)
        else:
            found = files.find_in_tree(tree, inside)
            path = tree.root / found.name
        step.status("transferring dockerfile:", len(found.data), done=True)
        return found, path


def _inside(root: Path, name: str) -> str | None:
    """The path of ``-f`` relative to the context, None if the file is elsewhere.

    The path is relative to the working directory, as in docker; one that is not there is tried in the
    context.
    """
    directory, base = os.path.split(name)
    place = os.path.join(os.path.realpath(directory), base)
    climbs = os.path.isabs(name) or os.path.normpath(name).startswith(os.pardir)
    if not climbs and not os.path.lexists(place) and os.path.lexists(root / name):
        return name
    relative = os.path.relpath(place, os.path.realpath(root))
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        return None
    return relative


def _rules(
    task: _Task, text: bytes | None, name: str, place: str = "internal"
) -> tuple[bytes | None, Ignore | None]:
    if text is None or not text.strip():
        return text, None
    with task.steps(f"[{place}] load .dockerignore") as step:
        step.status("transferring context:", len(text), done=True)
        try:
            return text, task.compile_ignore(text)
        except PybuildError as error:
            error.context = (*error.context, f"in {name}")
            raise


# --- standard input, URLs, git ----------------------------------------------------------------------------


def _read_stdin(task: _Task) -> bytes:
    if task.stdin is None:
        raise UsageError("the Dockerfile is to come from standard input, but there is none")
    data = task.stdin.read(files.DOCKERFILE_LIMIT + 1)
    if len(data) > files.DOCKERFILE_LIMIT:
        raise SourceUnavailable("the Dockerfile on standard input is too large", code="file-too-large")
    return data


def _from_stdin(task: _Task) -> PreparedContext:
    if task.stdin is None:
        raise UsageError("the context is to come from standard input, but there is none")
    return _from_stream(task, task.stdin, "standard input")


def _from_stream(task: _Task, stream: BinaryIO, name: str) -> PreparedContext:
    """An archive as the context, or a Dockerfile without one (BLD-12, BLD-20, CTX-04)."""
    from builder.sources import archive

    peeked = archive.Peeked(stream)
    if not archive.is_archive(peeked.peek(PEEK_BYTES)):
        data = peeked.read(files.DOCKERFILE_LIMIT + 1)
        if len(data) > files.DOCKERFILE_LIMIT:
            raise SourceUnavailable(f"the Dockerfile from {name} is too large", code="file-too-large")
        if b"\0" in data[:8192]:
            raise SourceUnavailable(
                f"{name} is neither an archive nor a Dockerfile",
                hint="a context is a tar archive: plain, gzip, bzip2, xz or zstd",
                code="context-not-found",
            )
        text = data if task.data is None else task.data
        return PreparedContext(main=None, dockerfile=text, dockerfile_name=files.DEFAULT_NAME)
    root = task.stack.enter_context(task.store.staging("context"))
    with task.steps("[internal] load build context") as step:
        archive.unpack(peeked, root, step)
    return _staged(task, root, name)


def _staged(task: _Task, root: Path, place: str, **more: str) -> PreparedContext:
    """The context of ``place``, put into a staging directory: no ignore rules, nothing remembered."""
    main = LocalContext(root)
    task.stack.callback(main.close)
    if task.data is not None or task.dockerfile == "-":
        data = task.data if task.data is not None else _read_stdin(task)
        found = FoundDockerfile(data=data, name=files.DEFAULT_NAME)
    else:
        found = files.find_in_tree(main, task.dockerfile, place=place)
    if task.subdir:
        main = LocalContext(_below(root, task.subdir))
        task.stack.callback(main.close)
    prepared = PreparedContext(main=main, dockerfile=found.data, dockerfile_name=found.name)
    prepared.source = more.get("source", "")
    prepared.revision = more.get("revision", "")
    return prepared


def _below(root: Path, subdir: str) -> Path:
    """A directory of a staged context; nothing in it leads outside."""
    real = os.path.realpath(root)
    found = os.path.realpath(os.path.join(real, os.path.normpath("/" + subdir).lstrip("/")))
    if not os.path.isdir(found) or os.path.commonpath((real, found)) != real:
        raise SourceUnavailable(f"contextsubdir {subdir[:200]!r}: no such directory in the context")
    return Path(found)


def _from_url(task: _Task, url: str) -> PreparedContext:
    from builder.sources import http
    from builder.sources.archive import newest_member_s

    staging = task.stack.enter_context(task.store.staging("download"))
    with task.steps(f"[internal] load remote build context {redacted(url)}") as step:
        file = http.download(url, staging / "context", step=step, proxy_env=task.remote.proxy_env)
    with contextlib.closing(file.path.open("rb")) as stream:
        prepared = _from_stream(task, stream, redacted(url))
    if prepared.main is None:
        root = task.stack.enter_context(task.store.staging("context"))
        (root / "context").write_bytes(prepared.dockerfile)
        prepared.main = LocalContext(root)
        task.stack.callback(prepared.main.close)
    prepared.source, prepared.revision = redacted(url), str(file.digest)
    prepared.made_s = lambda: file.mtime_s or newest_member_s(file.path)
    return prepared


def _from_git(task: _Task, ref: GitRef) -> PreparedContext:
    from builder.sources.git import GitSource

    root = task.stack.enter_context(task.store.staging("git"))
    if task.remote.commit_times:
        ref = replace(ref, mtime="commit")
    with task.steps(f"[internal] load git source {ref.display}") as step:
        source = GitSource(
            store=task.store,
            ref=ref,
            tokens=task.remote.git_tokens,
            proxy_env=task.remote.proxy_env,
            ssh_socket=task.remote.ssh_socket,
            keep_git_dir=task.remote.keep_git_dir,
        )
        commit = source.resolve(step)
        tree = source.checkout(commit, root / "tree", step)
    prepared = _staged(task, tree, ref.display, source=ref.display, revision=commit)
    prepared.made_s = lambda: source.committed_s(commit, step)
    return prepared


# --- named contexts ---------------------------------------------------------------------------------------


def _named(pairs: Iterable[tuple[str, str]]) -> dict[str, NamedSource]:
    named: dict[str, NamedSource] = {}
    for name, value in pairs:
        source = parse_named(name, value)
        key = f"{source.name}::{source.platform}" if source.platform else source.name
        named[key] = source
    return named


def _open_named(task: _Task, source: NamedSource) -> LocalContext:
    assert source.path is not None
    bare = LocalContext(source.path, name=source.name)
    try:
        text, name = files.ignore_of(bare, None)
    finally:
        bare.close()
    text, ignore = _rules(task, text, name, f"context {source.name}")
    tree = LocalContext(
        source.path,
        name=source.name,
        ignore=ignore,
        ignore_key=str(Digest.of(text)) if text else "",
        ignore_file=(name, text or b""),
        documents=task.store,
    )
    task.stack.callback(tree.close)
    return tree
