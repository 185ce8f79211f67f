"""Named contexts that the source policy puts something else in the place of (CTX-10, POL-03).

What comes in the place of a context is read as if the user had given it, so it may be of another form: an
image instead of a repository, a local input instead of a URL. As a context of its new form it is judged
again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from builder.build.policy import SourceGate
from builder.errors import InvalidValue, PybuildError
from builder.llb.gitref import parse_git_ref, redacted
from builder.sources.named import NamedSource, parse_named
from builder.sources.policy import Pairs

MAX_DEPTH = 10
_AS_THEY_ARE = frozenset({"image", "git", "http", "blob", "local"})
"""Forms that are replaced by others of the same form where the build's definition is judged."""
_FILE = (("http.filename", "context"),)


class ContextRecursion(InvalidValue):
    """A policy puts contexts in the place of contexts without coming to an end."""

    code = "context-recursion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacer:
    """What a policy makes of named contexts.

    ``layouts`` are the directories of the build's OCI layouts by the name of their context, ``locals`` the
    names of its local inputs; ``input_digest`` gives the image of an ``input:`` context.
    """

    gate: SourceGate
    input_digest: Callable[[NamedSource], str]
    layouts: Mapping[str, Path] = field(default_factory=dict)
    locals: Collection[str] = ()

    def source(self, given: NamedSource) -> tuple[NamedSource, Pairs]:
        """What to use for a context, and the attributes that the policy wants it to have.

        Raises SourceDenied, ContextRecursion, and for what cannot be read as a context the errors of one that
        was given so.
        """
        source, wanted = given, Pairs()
        if self.gate.open:
            return source, wanted
        seen = [self._identity(source)[0]] if not _is_scratch(source) else []
        for _ in range(MAX_DEPTH + 1):
            if _is_scratch(source):
                return source, wanted
            identifier, attrs = self._identity(source)
            found, values = self.gate.passed(identifier, attrs, one_form=True)
            if (found, values) == (identifier, attrs):
                return source, wanted
            more = tuple(pair for pair in values if pair not in attrs and pair[0] != "git.fullurl")
            try:
                new = self._read(given, found, values)
                if new.kind == source.kind and new.kind in _AS_THEY_ARE:
                    return source, wanted
                _check_attributes(new, found, more)
            except PybuildError as error:
                told = f'the policy put it in the place of "{redacted(seen[0])}"'
                error.context = (*error.context, told)
                raise
            source, wanted = new, more
            seen.append(found)
        raise ContextRecursion(
            f"named context {given.name}: recursion limit of {MAX_DEPTH} exceeded: the source policy puts "
            "one context in the place of another without end",
            context=tuple(f"{redacted(one)} → {redacted(other)}" for one, other in pairwise(seen)),
            hint="what a CONVERT rule gives must not lead back to what it, or another rule, converts",
        )

    def _identity(self, source: NamedSource) -> tuple[str, Pairs]:
        """How policies see a context."""
        match source.kind:
            case "image":
                return f"docker-image://{source.identifier}", ()
            case "local":
                return f"local://{source.identifier}", ()
            case "oci":
                return f"oci-layout://{source.name}@{source.digest}", ()
            case "input":
                return f"oci-layout://{source.name}@{self.input_digest(source)}", ()
            case "git":
                git = parse_git_ref(source.identifier)
                assert git is not None, "it was read as one"
                return git.identifier, git.attrs
            case "http" | "blob":
                return source.identifier, _FILE

    def _read(self, given: NamedSource, found: str, values: Pairs) -> NamedSource:
        """What a policy gives, as a named context."""
        scheme, separator, rest = found.partition("://")
        if separator and scheme == "local":
            if rest not in self.locals:
                raise InvalidValue(
                    f"invalid context specifier {found} for {given.name}: the build has no such local input",
                    hint=f"its local inputs are: {', '.join(sorted(self.locals)) or 'none'}",
                )
            return replace(given, kind="local", identifier=rest, path=None, digest=None)
        text = found
        if scheme == "oci-layout":
            place, _, digest = rest.partition("@")
            text = f"oci-layout://{self.layouts.get(place, place)}@{digest}" if digest else found
        elif scheme == "git":
            remote, (_, mark, fragment) = dict(values).get("git.fullurl", ""), found.partition("#")
            text = f"{remote}{mark}{fragment}" if remote else found
        elif scheme == "input":
            text = f"input:{rest}"
        name = f"{given.name}::{given.platform}" if given.platform else given.name
        if ":" not in text:
            raise InvalidValue(f"invalid context specifier {text} for {name}", hint="want docker-image://…")
        new = parse_named(name, text)
        if new.kind == "local":
            raise InvalidValue(
                f"invalid context specifier {text} for {name}", hint="a local input is local://NAME"
            )
        return new


def _is_scratch(source: NamedSource) -> bool:
    return source.kind == "image" and source.identifier == "scratch"


def _check_attributes(new: NamedSource, found: str, wanted: Pairs) -> None:
    """A checksum that nobody would compare is no checksum."""
    prefix = {"git": "git.", "http": "http.", "blob": "http."}.get(new.kind)
    for key, _ in wanted:
        if prefix is None or not key.startswith(prefix):
            raise InvalidValue(
                f"the policy wants {key} of {redacted(found)}, which as a context has no such attribute",
                hint="convert to an identifier without attributes, an image with its digest",
            )


def attributes(source: NamedSource, wanted: Pairs) -> tuple[str, Pairs]:
    """Identifier and attributes of a git or http context; none where the frontend makes them itself."""
    if source.kind == "blob":
        return source.identifier, tuple({**dict(_FILE), **dict(wanted)}.items())
    if not wanted:
        return source.identifier, ()
    if source.kind == "http":
        return source.identifier, tuple({**dict(_FILE), **dict(wanted)}.items())
    git = parse_git_ref(source.identifier)
    assert git is not None, "it was read as one"
    return git.identifier, tuple(sorted({**dict(git.attrs), **dict(wanted)}.items()))
