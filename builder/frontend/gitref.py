"""References to git repositories, as build contexts and as sources of ADD (section 14 of the rows)."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from builder.frontend.errors import BadOption

_SWITCHES = ("keep-git-dir", "submodules", "fetch-by-commit")


class GitRef(NamedTuple):
    """A repository, and what of it is wanted. ``remote`` is what git is given; None = not said."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool | None = None

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
        if self.submodules is False:
            found["git.skipsubmodules"] = "true"
        if self.mtime:
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
        """The same, pinned to a commit (GIT-04); raises BadOption."""
        if not re.fullmatch(r"[0-9a-f]{7,64}", checksum):
            raise BadOption(f"invalid checksum {checksum[:80]} expected hex commit hash")
        return self._replace(checksum=checksum)


@cache
def _scp_pattern() -> re.Pattern[str]:
    return re.compile(r"([a-zA-Z0-9_.-]+)@([a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\]):(.+)", re.DOTALL)


@cache
def _url_pattern() -> re.Pattern[str]:
    return re.compile(
        r"(git|ssh|https?)://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?", re.DOTALL | re.IGNORECASE
    )


def parse_git_ref(text: str, *, prefix_form: bool = True) -> GitRef | None:
    """Read a git reference, None when ``text`` is none; raises BadOption for a malformed one.

    ``prefix_form``: ``github.com/user/repo`` is taken as a repository (GIT-01).
    """
    if any(c.isspace() or c == "\0" for c in text) or text.startswith(("./", "../", "/", "-")):
        return None
    if prefix_form and text.startswith("github.com/"):
        return _parts(f"https://{text}", text)
    if "://" in text:
        return _parts(text, text)
    match = _scp_pattern().fullmatch(text)
    if match is None:
        return None
    path, _, fragment = match.group(3).partition("#")
    path, _, query = path.partition("?")
    return _options(GitRef(f"{match.group(1)}@{match.group(2)}:{path}"), query, fragment, text)


def _parts(url: str, text: str) -> GitRef | None:
    match = _url_pattern().fullmatch(url)
    if match is None:
        return None
    scheme, host, path, query, fragment = match.groups()
    scheme, path = scheme.lower(), path or ""
    if scheme in ("http", "https") and text is url and not path.endswith(".git"):
        return None
    if host.startswith("-") or "@-" in host:
        raise BadOption(f"invalid git reference {text[:200]}: a host name cannot start with a dash")
    return _options(GitRef(f"{scheme}://{host}{path}"), query or "", fragment or "", text)


def _options(found: GitRef, query: str, fragment: str, text: str) -> GitRef:
    """Add what the fragment (GIT-02) and the query (GIT-03) say."""
    if "%" in fragment:
        from urllib.parse import unquote

        fragment = unquote(fragment)
    ref, _, subdir = fragment.partition(":")
    found = found._replace(ref=ref, subdir=_clean_subdir(subdir))
    if query:
        found = _query(found, query)
    if found.ref.startswith("-") or any(c.isspace() or c == "\0" for c in found.ref):
        raise BadOption(f"invalid git reference {text[:200]}: bad ref {found.ref[:80]!r}")
    return found


def _clean_subdir(subdir: str) -> str:
    parts = [part for part in subdir.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _query(found: GitRef, query: str) -> GitRef:
    from urllib.parse import parse_qsl

    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in values:
            raise BadOption(f'query "{key}" has multiple values')
        values[key] = value
    for key in ("ref", "tag", "branch"):
        if values.get(key) == "":
            raise BadOption(f'query "{key}" has no value')
    tag, branch = values.pop("tag", ""), values.pop("branch", "")
    if tag and branch:
        raise BadOption("branch conflicts with tag")
    refs = [
        found.ref,
        values.pop("ref", ""),
        f"refs/tags/{tag}" if tag else "",
        f"refs/heads/{branch}" if branch else "",
    ]
    for ref in filter(None, refs):
        if found.ref and ref != found.ref:
            raise BadOption(f'ref conflicts: "{found.ref}" vs "{ref}"')
        found = found._replace(ref=ref)
    for key, value in values.items():
        found = _query_value(found, key, value)
    return found


def _query_value(found: GitRef, key: str, value: str) -> GitRef:
    if key in _SWITCHES:
        lowered = value.lower()
        if lowered not in ("", "1", "t", "true", "0", "f", "false"):
            raise BadOption(f'invalid {key} value: "{value[:80]}"')
        on = lowered in ("", "1", "t", "true")
        if key == "keep-git-dir":
            return found._replace(keep_git_dir=on)
        return found._replace(submodules=on) if key == "submodules" else found._replace(fetch_by_commit=on)
    if key in ("subdir", "checksum", "commit", "mtime") and not value:
        raise BadOption(f'query "{key}" has no value')
    match key:
        case "subdir":
            if found.subdir and found.subdir != _clean_subdir(value):
                raise BadOption(f'subdir conflicts: "{found.subdir}" vs "{value}"')
            return found._replace(subdir=_clean_subdir(value))
        case "checksum" | "commit":
            if found.checksum and found.checksum != value:
                raise BadOption(f'checksum conflicts: "{found.checksum}" vs "{value}"')
            return found.with_checksum(value)
        case "mtime":
            if value not in ("checkout", "commit"):
                raise BadOption(f'invalid mtime value: "{value[:80]}"')
            return found._replace(mtime=value)
        case _:
            raise BadOption(f'unexpected query "{key}"')
