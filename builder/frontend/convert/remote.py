"""Remote sources of ADD: URLs and git repositories (rows CPY-20…22)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from builder.frontend.convert.graph import Draft
from builder.frontend.convert.state import StageState
from builder.frontend.gitref import GitRef, parse_git_ref, pinned
from builder.frontend.instructions import Add
from builder.frontend.parts import Part, text, value_of
from builder.frontend.redact import redact
from builder.llb.ops import SourceOp

Kind = Literal["git", "http"]


def kind_of(source: str) -> Kind | None:
    """Whether a source names a repository or a URL rather than a path."""
    if "://" not in source and "@" not in source and not source.startswith("github.com/"):
        return None
    if parse_git_ref(source, prefix_form=False) is not None:
        return "git"
    return "http" if source.lower().startswith(("http://", "https://")) else None


def url_filename(url: str) -> str:
    """The last path element of a URL, ``__unnamed__`` if there is none (CPY-20)."""
    from urllib.parse import unquote, urlsplit

    name = unquote(urlsplit(url).path, errors="surrogateescape").rstrip("/").rpartition("/")[2]
    return "__unnamed__" if name in ("", ".", "..") or "\0" in name or "/" in name else name


def http_source(stage: StageState, instruction: Add, url: str, checksum: str) -> tuple[Draft, str]:
    """The vertex that downloads ``url``, and the name of the file it gives."""
    try:
        filename = url_filename(url)
    except ValueError as error:
        raise stage.fail(f"invalid URL {url}: {error}", instruction, part=text(url)) from error
    attrs = [("http.filename", filename)]
    if checksum:
        if not _is_digest(checksum):
            message = f"invalid checksum {checksum}: want sha256:<64 hex digits>"
            raise stage.fail(message, instruction, part=value_of("checksum"))
        attrs.insert(0, ("http.checksum", checksum))
    op = SourceOp(identifier=url, attrs=tuple(attrs))
    return Draft(op, meta=stage.meta(redact(url), instruction)), filename


def _is_digest(text: str) -> bool:
    algorithm, _, value = text.partition(":")
    length = {"sha256": 64, "sha384": 96, "sha512": 128}.get(algorithm)
    return length == len(value) and all(c in "0123456789abcdef" for c in value)


def git_source(stage: StageState, instruction: Add, url: str, checksum: str) -> Draft:
    """The vertex that checks out a repository."""
    found = parse_git_ref(url, prefix_form=False)
    assert found is not None
    keep = instruction.keep_git_dir
    if keep is not None and found.keep_git_dir is not None and keep != found.keep_git_dir:
        part = Part("flag", name="keep-git-dir")
        raise stage.fail("inconsistent keep-git-dir configuration", instruction, part=part)
    if checksum and found.checksum and checksum != found.checksum:
        message = f'checksum mismatch "{checksum}" != "{found.checksum}"'
        raise stage.fail(message, instruction, part=value_of("checksum"))
    if keep is not None:
        found = replace(found, keep_git_dir=keep)
    if checksum:
        found = pinned(found, checksum)
    return Draft(git_op(found), meta=stage.meta(redact(url), instruction))


def git_op(ref: GitRef) -> SourceOp:
    """The source op of a git reference."""
    return SourceOp(identifier=ref.identifier, attrs=ref.attrs)


def source_op(source: str) -> SourceOp | None:
    """The op of a remote source alone, None for a path."""
    kind = kind_of(source)
    if kind == "git":
        found = parse_git_ref(source, prefix_form=False)
        return None if found is None else git_op(found)
    if kind == "http":
        return SourceOp(identifier=source, attrs=(("http.filename", url_filename(source)),))
    return None
