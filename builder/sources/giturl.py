"""The grammar of git references in build contexts and ADD (GIT-01…04), and which of them are refused.

Accepted transports are git, http, https and ssh, nothing else: ``ext::`` and other remote helpers run
commands, and ``file://`` or a plain path would let a Dockerfile read repositories of the machine. Nothing
that could be taken for an option ever reaches the git command (CVE-2019-13139, GHSA-hw3h-2gp9-cxpv).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from builder.errors import InvalidValue

_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)[A-Za-z0-9.-]+:(?!//)[^\s]+\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])\Z")
_HEX = re.compile(r"[0-9a-f]{7,64}\Z")
_FULL_HEX = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)")
_TRUE = {"", "1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRef:
    """What to take from which repository. ``remote`` may hold credentials: show ``display`` instead."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    mtime: Literal["checkout", "commit"] = "checkout"

    @property
    def display(self) -> str:
        """The remote without user and password."""
        return redacted(self.remote)

    @property
    def host(self) -> str:
        """The host, for secrets that are meant for it."""
        if "://" in self.remote:
            return urlsplit(self.remote).hostname or ""
        return self.remote.partition("@")[2].partition(":")[0]


def is_git_url(text: str) -> bool:
    """Is this text a git reference by its form (GIT-01, BLD-16)?"""
    return _canonical(text) is not None


def parse_git_ref(text: str) -> GitRef | None:
    """Read a git reference; None if the text does not have the form of one. Raises InvalidValue."""
    url = _canonical(text)
    if url is None:
        return None
    url, _, fragment = url.partition("#")
    url, _, query = url.partition("?")
    ref, _, subdir = fragment.partition(":")
    found = GitRef(remote=check_remote(url), ref=ref, subdir=subdir)
    if query:
        found = _with_query(found, query)
    check_ref(found.ref)
    return replace(found, subdir=_clean_subdir(found.subdir))


def check_remote(url: str) -> str:
    """The remote if it may be given to git; raises InvalidValue."""
    if url.startswith("-") or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise InvalidValue(f"invalid git remote {redacted(url)[:200]!r}", code="git-refused")
    if "://" not in url:
        if _SCP.match(url) and not url.partition(":")[2].startswith("-"):
            return url
        raise InvalidValue(f"invalid git remote {redacted(url)[:200]!r}", code="git-refused")
    parts = urlsplit(url)
    if parts.scheme not in {"git", "http", "https", "ssh"}:
        raise InvalidValue(
            f"git transport {parts.scheme!r} is not allowed",
            hint="use https://, ssh:// or git://; a local repository can be the context as a directory",
            code="git-refused",
        )
    try:
        _ = parts.port
    except ValueError as error:
        raise InvalidValue(f"invalid git remote {redacted(url)[:200]!r}: bad port") from error
    if not _HOST.match(_host_of(parts.netloc)) or parts.path in {"", "/"}:
        raise InvalidValue(f"invalid git remote {redacted(url)[:200]!r}", code="git-refused")
    return url


def check_ref(ref: str) -> str:
    """The ref if it is a name that git allows; raises InvalidValue."""
    if ref and (ref.startswith(("-", "/")) or ref.endswith(("/", ".")) or _REF_BAD.search(ref) or ref == "@"):
        raise InvalidValue(f"invalid git ref {ref[:200]!r}", code="git-refused")
    return ref


def is_commit(ref: str) -> bool:
    """Is this a full commit name?"""
    return bool(_FULL_HEX.match(ref))


def redacted(url: str) -> str:
    """A remote without user and password, for messages, keys and logs (CVE-2023-26054)."""
    scheme, sep, rest = url.partition("://")
    if not sep:
        return url
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def split_credentials(url: str) -> tuple[str, str]:
    """An http(s) remote without credentials, and the ``user:password`` it had."""
    if not url.startswith(("http://", "https://")):
        return url, ""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    return urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@~!$&'()*+,;="), "", "")), userinfo


def _host_of(netloc: str) -> str:
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _canonical(text: str) -> str | None:
    """The text with its scheme if it has the form of a git reference."""
    if text.startswith(("git://", "ssh://")):
        return text
    if text.startswith("github.com/"):
        return f"https://{text}"
    before = re.split(r"[#?]", text, maxsplit=1)[0]
    if text.startswith(("http://", "https://")):
        return text if urlsplit(before).path.endswith(".git") else None
    return text if _SCP.match(before) else None


def _with_query(found: GitRef, query: str) -> GitRef:
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in values:
            raise InvalidValue(f'query "{key}" has multiple values')
        values[key] = value
    refs: list[str] = []
    for key, value in values.items():
        match key:
            case "ref" | "branch" | "tag" | "subdir" | "checksum" | "commit" if not value:
                raise InvalidValue(f'query "{key}" has no value')
            case "ref":
                refs.append(value)
            case "branch":
                refs.append(f"refs/heads/{value}")
            case "tag":
                refs.append(f"refs/tags/{value}")
            case "subdir":
                if found.subdir and found.subdir != value:
                    raise InvalidValue(f'subdir conflicts: "{found.subdir}" vs "{value}"')
                found = replace(found, subdir=value)
            case "checksum" | "commit":
                found = replace(found, checksum=_checksum(value))
            case "keep-git-dir":
                found = replace(found, keep_git_dir=_bool(key, value))
            case "submodules":
                found = replace(found, submodules=_bool(key, value))
            case "mtime":
                if value not in {"checkout", "commit"}:
                    raise InvalidValue(f'invalid mtime "{value}": want checkout or commit')
                found = replace(found, mtime="commit" if value == "commit" else "checkout")
            case "fetch-by-commit":
                _bool(key, value)
            case _:
                raise InvalidValue(f'unexpected query "{key}"')
    return replace(found, ref=_one_ref(found.ref, refs, values))


def _one_ref(ref: str, refs: list[str], values: dict[str, str]) -> str:
    if "branch" in values and "tag" in values:
        raise InvalidValue("branch conflicts with tag")
    for other in refs:
        if ref and other not in {ref, f"refs/heads/{ref}", f"refs/tags/{ref}"}:
            raise InvalidValue(f'ref conflicts: "{ref}" vs "{other}"')
        ref = other
    return ref


def _checksum(value: str) -> str:
    if not _HEX.match(value):
        raise InvalidValue(f'invalid checksum "{value[:100]}", expected hex commit hash')
    return value


def _bool(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidValue(f'invalid boolean value "{value[:50]}" for query "{key}"')


def _clean_subdir(subdir: str) -> str:
    """A subdirectory as a clean relative path; one that climbs out is refused (CVE-2026-33748)."""
    parts: list[str] = []
    for part in subdir.split("/"):
        if part == "..":
            if not parts:
                raise InvalidValue(
                    f"git subdirectory {subdir[:200]!r} is outside of the repository", code="git-refused"
                )
            parts.pop()
        elif part not in {"", "."}:
            if "\0" in part:
                raise InvalidValue("git subdirectory holds a NUL character", code="git-refused")
            parts.append(part)
    return "/".join(parts)
