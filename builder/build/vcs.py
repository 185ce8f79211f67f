"""The commit and the origin of a context that lies in a git checkout, read from its files (OPT-21).

A hint for provenance: no program is run, no configuration is obeyed, and what cannot be read is left out.
"""

from __future__ import annotations

import os
import re

_LIMIT = 1 << 20
_HEX = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_SECTION = re.compile(r'\[remote "origin"\](.*?)(?:\n\s*\[|\Z)', re.DOTALL)
_URL = re.compile(r"^\s*url\s*=\s*(\S+)\s*$", re.MULTILINE)
_REF = re.compile(r"refs/[A-Za-z0-9._/@+-]+\Z")


def checkout_of(directory: str) -> tuple[tuple[str, str], ...]:
    """``revision`` and ``source`` of the checkout that ``directory`` is in, as far as they are known."""
    git = _git_dir(os.path.realpath(directory))
    if git is None:
        return ()
    found: list[tuple[str, str]] = []
    revision = _revision(git)
    if revision:
        found.append(("revision", revision))
    section = _SECTION.search(_read(f"{git}/config"))
    url = _URL.search(section[1]) if section else None
    if url is not None:
        found.append(("source", url[1]))
    return tuple(found)


def commit_pin(commit: str) -> str:
    """A commit as ``algorithm:hex``."""
    return f"{'sha256' if len(commit) == 64 else 'sha1'}:{commit}"


def _git_dir(directory: str) -> str | None:
    while True:
        if os.path.isdir(f"{directory}/.git"):
            return f"{directory}/.git"
        above = os.path.dirname(directory)
        if above == directory:
            return None
        directory = above


def _revision(git: str) -> str:
    head = _read(f"{git}/HEAD").strip()
    if not head.startswith("ref: "):
        return head if _HEX.match(head) else ""
    name = head.removeprefix("ref: ").strip()
    if not _REF.match(name) or ".." in name:
        return ""
    loose = _read(f"{git}/{name}").strip()
    if _HEX.match(loose):
        return loose
    for line in _read(f"{git}/packed-refs").splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name and _HEX.match(commit):
            return commit
    return ""


def _read(path: str) -> str:
    try:
        # Without waiting: what somebody made a named pipe is taken for empty.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
