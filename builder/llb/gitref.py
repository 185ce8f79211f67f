"""The grammar of git references in build contexts and ADD (GIT-01…04), and which of them are refused.

Accepted transports are git, http, https and ssh, nothing else: ``ext::`` and other remote helpers run
commands, and ``file://`` or a plain path would let a Dockerfile read repositories of the machine. Nothing
that could be taken for an option ever reaches the git command (CVE-2019-13139, GHSA-hw3h-2gp9-cxpv).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from builder.errors import InvalidValue

_TRUE = {"", "1", "t", "true"}
_FALSE = {"0", "f", "false"}
_SCHEMES = ("git", "http", "https", "ssh")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRef:
    """What to take from which repository. ``remote`` may hold credentials: show ``display`` instead.

    ``keep_git_dir`` None: not said.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    mtime: Literal["checkout", "commit"] = "checkout"
    fetch_by_commit: bool = False

    @property
    def display(self) -> str:
        """The remote without user and password."""
        return redacted(self.remote)

    @property
    def host(self) -> str:
        """The host, for secrets that are meant for it."""
        if "://" not in self.remote:
            return self.remote.partition("@")[2].partition(":")[0]
        from urllib.parse import urlsplit

        return urlsplit(self.remote).hostname or ""

    @property
    def identifier(self) -> str:
        """The source identifier: ``git://host/path#ref:subdir``."""
        fragment = self.ref + (f":{self.subdir}" if self.subdir else "")
        scheme, sep, place = self.remote.partition("://")
        if not sep:
            place = scheme.replace(":", "/", 1)
        elif scheme in ("http", "https"):
            host, slash, path = place.partition("/")
            place = host.rpartition("@")[2] + slash + path
        return f"git://{place}" + (f"#{fragment}" if fragment else "")

    @property
    def attrs(self) -> tuple[tuple[str, str], ...]:
        """The source's attributes (OPM-11), sorted."""
        found = {"git.fullurl": self.remote}
        if self.checksum:
            found["git.checksum"] = self.checksum
        if self.keep_git_dir:
            found["git.keepgitdir"] = "true"
        if not self.submodules:
            found["git.skipsubmodules"] = "true"
        if self.mtime != "checkout":
            found["git.mtime"] = self.mtime
        if self.fetch_by_commit:
            found["git.fetchbycommit"] = "true"
        if self.remote.startswith(("http://", "https://")):
            found["git.authheadersecret"] = "GIT_AUTH_HEADER"
            found["git.authtokensecret"] = "GIT_AUTH_TOKEN"
        elif not self.remote.startswith("git://"):
            found["git.mountsshsock"] = "default"
        return tuple(sorted(found.items()))

    def with_checksum(self, checksum: str) -> GitRef:
        """The same, pinned to a commit (GIT-04); raises InvalidValue."""
        if not _pattern(r"[0-9a-f]{7,64}\Z").match(checksum):
            raise InvalidValue(f"invalid checksum {checksum[:80]} expected hex commit hash")
        return replace(self, checksum=checksum)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def is_git_url(text: str) -> bool:
    """Is this text a git reference by its form (GIT-01, BLD-16)?"""
    return _canonical(text) is not None


def parse_git_ref(text: str, *, prefix_form: bool = True) -> GitRef | None:
    """Read a git reference; None if the text does not have the form of one. Raises InvalidValue.

    ``prefix_form``: ``github.com/user/repo`` is taken as a repository.
    """
    url = _canonical(text, prefix_form=prefix_form)
    if url is None:
        return None
    url, _, fragment = url.partition("#")
    url, _, query = url.partition("?")
    if "%" in fragment:
        from urllib.parse import unquote

        fragment = unquote(fragment)
    ref, _, subdir = fragment.partition(":")
    found = GitRef(remote=check_remote(url), ref=ref, subdir=_clean_subdir(subdir))
    if query:
        found = _with_query(found, query)
    check_ref(found.ref)
    return found


def check_remote(url: str) -> str:
    """The remote if it may be given to git; raises InvalidValue."""
    refused = InvalidValue(f"invalid git remote {redacted(url)[:200]!r}", code="git-refused")
    if url.startswith("-") or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise refused
    scheme, separator, rest = url.partition("://")
    if not separator:
        if _scp().match(url) and not url.partition(":")[2].startswith("-"):
            return url
        raise refused
    if scheme not in _SCHEMES:
        raise InvalidValue(
            f"git transport {scheme[:80]!r} is not allowed",
            hint="use https://, ssh:// or git://; a local repository can be the context as a directory",
            code="git-refused",
        )
    place, _, path = rest.partition("/")
    host, port = _host_and_port(place)
    name = _pattern(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])\Z")
    if not name.match(host) or not path or place.startswith("-"):
        raise refused
    if port and not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
        raise InvalidValue(f"{refused.message}: bad port", code="git-refused")
    return url


def check_ref(ref: str) -> str:
    """The ref if it is a name that git allows; raises InvalidValue."""
    bad = _pattern(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)")
    if ref and (ref.startswith(("-", "/")) or ref.endswith(("/", ".")) or bad.search(ref) or ref == "@"):
        raise InvalidValue(f"invalid git reference: bad ref {ref[:200]!r}", code="git-refused")
    return ref


def is_commit(ref: str) -> bool:
    """Is this a full commit name?"""
    return bool(_pattern(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z").match(ref))


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
    from urllib.parse import quote, urlsplit, urlunsplit

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidValue(f"invalid URL {redacted(url)}: {error}") from error
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    return urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@~!$&'()*+,;="), "", "")), userinfo


def _host_and_port(place: str) -> tuple[str, str]:
    host = place.rpartition("@")[2]
    if host.startswith("["):
        name, _, port = host.partition("]")
        return f"{name}]", port.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def _scp() -> re.Pattern[str]:
    return _pattern(r"[A-Za-z0-9._-]+@(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?!//)[^\s]+\Z")


def _canonical(text: str, *, prefix_form: bool = True) -> str | None:
    """The text with its scheme if it has the form of a git reference."""
    if text.startswith(("-", "/", "./", "../")):
        return None
    if text.startswith("github.com/"):
        return f"https://{text}" if prefix_form else None
    scheme, separator, rest = text.partition("://")
    before = re.split(r"[#?]", text, maxsplit=1)[0]
    if separator and scheme.lower() in ("git", "ssh"):
        return f"{scheme.lower()}://{rest}"
    if separator and scheme.lower() in ("http", "https"):
        path = before.partition("://")[2].partition("/")[2]
        return f"{scheme.lower()}://{rest}" if path.endswith(".git") else None
    return text if _scp().match(before) else None


def _with_query(found: GitRef, query: str) -> GitRef:
    from urllib.parse import parse_qsl

    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in values:
            raise InvalidValue(f'query "{key}" has multiple values')
        values[key] = value
    if "branch" in values and "tag" in values:
        raise InvalidValue("branch conflicts with tag")
    for key, value in values.items():
        found = _query_value(found, key, value)
    return found


def _query_value(found: GitRef, key: str, value: str) -> GitRef:
    match key:
        case "ref" | "branch" | "tag" | "subdir" | "checksum" | "commit" | "mtime" if not value:
            raise InvalidValue(f'query "{key}" has no value')
        case "ref":
            return _one_ref(found, value)
        case "branch":
            return _one_ref(found, f"refs/heads/{value}")
        case "tag":
            return _one_ref(found, f"refs/tags/{value}")
        case "subdir":
            subdir = _clean_subdir(value)
            if found.subdir and found.subdir != subdir:
                raise InvalidValue(f'subdir conflicts: "{found.subdir}" vs "{value}"')
            return replace(found, subdir=subdir)
        case "checksum" | "commit":
            if found.checksum and found.checksum != value:
                raise InvalidValue(f'checksum conflicts: "{found.checksum}" vs "{value}"')
            return found.with_checksum(value)
        case "keep-git-dir":
            return replace(found, keep_git_dir=_bool(key, value))
        case "submodules":
            return replace(found, submodules=_bool(key, value))
        case "fetch-by-commit":
            return replace(found, fetch_by_commit=_bool(key, value))
        case "mtime":
            if value not in ("checkout", "commit"):
                raise InvalidValue(f'invalid mtime value: "{value[:80]}"', hint="checkout or commit")
            return replace(found, mtime="commit" if value == "commit" else "checkout")
        case _:
            raise InvalidValue(f'unexpected query "{key[:80]}"')


def _one_ref(found: GitRef, other: str) -> GitRef:
    """A ref that is named twice must be the same; the longer spelling says more."""
    ref = found.ref
    if ref and other not in {ref, f"refs/heads/{ref}", f"refs/tags/{ref}"}:
        raise InvalidValue(f'ref conflicts: "{ref}" vs "{other}"')
    return replace(found, ref=other)


def _bool(key: str, value: str) -> bool:
    lowered = value.lower()
    if lowered not in _TRUE | _FALSE:
        raise InvalidValue(f'invalid {key} value: "{value[:80]}"')
    return lowered in _TRUE


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
