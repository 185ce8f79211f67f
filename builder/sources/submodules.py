"""Which submodules a commit has, by its own tree; the git command's submodule machinery is not used."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from builder.errors import InvalidValue
from builder.llb.gitref import check_remote
from builder.sources.gitcmd import Git, GitFailed


@dataclass(frozen=True, slots=True)
class Submodule:
    """A directory of a commit that is to be filled with a commit of another repository."""

    path: str
    remote: str
    commit: str


def submodules_of(git: Git, mirror: Path, commit: str, remote: str) -> tuple[Submodule, ...]:
    """Submodules by ``.gitmodules`` and the commit's tree; raises InvalidValue for a URL that is refused."""
    links = _links(git, mirror, commit)
    if not links:
        return ()
    found: list[Submodule] = []
    for path, url in _configured(git, mirror, commit):
        if path in links:
            try:
                found.append(Submodule(path=path, remote=_absolute(url, remote), commit=links[path]))
            except InvalidValue as error:
                error.context = (*error.context, f"submodule {path!r} of {remote}")
                raise
    return tuple(found)


def _links(git: Git, mirror: Path, commit: str) -> dict[str, str]:
    out = git.run(["ls-tree", "-r", "-z", "--full-tree", commit], cwd=mirror, git_dir=mirror)
    links: dict[str, str] = {}
    for record in out.decode("utf-8", "surrogateescape").split("\0"):
        head, _, path = record.partition("\t")
        fields = head.split()
        if len(fields) == 3 and fields[0] == "160000":
            links[path] = fields[2]
    return links


def _configured(git: Git, mirror: Path, commit: str) -> list[tuple[str, str]]:
    args = ["config", "--no-includes", "-z", f"--blob={commit}:.gitmodules", "--list"]
    try:
        out = git.run(args, cwd=mirror, git_dir=mirror)
    except GitFailed:
        return []
    paths: dict[str, str] = {}
    urls: dict[str, str] = {}
    for record in out.decode("utf-8", "surrogateescape").split("\0"):
        key, _, value = record.partition("\n")
        section, _, name = key.rpartition(".")
        if section.startswith("submodule.") and name == "path":
            paths[section] = value
        elif section.startswith("submodule.") and name == "url":
            urls[section] = value
    return [(path, urls[section]) for section, path in paths.items() if section in urls]


def _absolute(url: str, remote: str) -> str:
    """A submodule's URL, which may be relative to that of its repository."""
    if not url.startswith(("./", "../")):
        return check_remote(url)
    if "://" in remote:
        parts = urlsplit(remote)
        path = posixpath.normpath(posixpath.join(parts.path, url))
        return check_remote(urlunsplit((parts.scheme, parts.netloc, path, "", "")))
    host, _, path = remote.partition(":")
    joined = posixpath.normpath(posixpath.join(path, url))
    if joined.startswith(".."):
        raise InvalidValue(f"submodule URL {url[:200]!r} leads nowhere", code="git-refused")
    return check_remote(f"{host}:{joined}")
