"""Git references in Dockerfiles: the grammar of ``builder.llb.gitref``, with errors of the frontend."""

from __future__ import annotations

from builder.errors import InvalidValue
from builder.frontend.errors import BadOption, suggestion
from builder.frontend.parts import text as piece
from builder.frontend.parts import value_of
from builder.llb.gitref import GitRef
from builder.llb.gitref import parse_git_ref as _parse

__all__ = ["GitRef", "parse_git_ref", "pinned"]

QUERY_KEYS = (
    "ref",
    "branch",
    "tag",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "fetch-by-commit",
    "mtime",
)


def parse_git_ref(text: str, *, prefix_form: bool = True) -> GitRef | None:
    """Read a git reference, None when ``text`` is none; raises BadOption for a malformed one."""
    try:
        return _parse(text, prefix_form=prefix_form)
    except InvalidValue as error:
        _, unexpected, key = error.message.partition("unexpected query ")
        key = key.strip('"')
        meant = suggestion(key, QUERY_KEYS).strip(" ()") if unexpected else ""
        start = text.find(key, text.find("?")) if unexpected else -1
        part = piece(text) if start < 0 else piece(text, start, start + len(key))
        raise BadOption(error.message, hint=error.hint or meant or None, part=part) from error


def pinned(ref: GitRef, checksum: str) -> GitRef:
    """The reference pinned to a commit (GIT-04); raises BadOption."""
    try:
        return ref.with_checksum(checksum)
    except InvalidValue as error:
        raise BadOption(error.message, hint=error.hint, part=value_of("checksum")) from error
