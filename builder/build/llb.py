"""Builds of a definition in wire form (``--llb``): its sources are found while its steps are keyed.

A ``local://NAME`` is the build context (``context``) or the named context NAME; an ``oci-layout://NAME@…`` is
a named context too. The image gets the config that BuildKit gives to a build without a frontend (EXP-09).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace

from builder.build.request import BuildRequest
from builder.build.resolver import BuildResolver
from builder.build.sources import BaseImage, BuildSources, RemoteSource, image_key
from builder.errors import GraphError, InvalidValue, SolveError, SourceUnavailable, UsageError
from builder.frontend.convert import Conversion
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import SourceOp
from builder.llb.wire import decode
from builder.oci.config import ImageConfig
from builder.oci.digest import Digest
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference
from builder.solver.planning import attribute
from builder.solver.runnable import runnable
from builder.sources.contexts import PreparedContext
from builder.sources.local import LocalContext

_SCHEMES = ("docker-image", "oci-layout", "local", "git", "http", "https")
_UNSUPPORTED = (
    "image.layerlimit",
    "oci.layerlimit",
    "git.bundle",
    "git.checkoutbundle",
    "http.authheadersecret",
)
_UNSUPPORTED_PREFIXES = ("git.sig.", "http.sig.", "http.header.")


def conversion(request: BuildRequest, platform: Platform) -> Conversion:
    """The request's definition as if a Dockerfile had been converted.

    Raises GraphError, SolveError, UsageError.
    """
    if len(request.platforms) > 1:
        raise UsageError("a definition has one result: --llb builds for one platform")
    assert request.llb is not None
    definition = runnable(decode(request.llb, platform).definition)
    _check_sources(definition)
    if request.no_cache:
        definition = _anew(definition)
    return Conversion(
        definition=definition, config=ImageConfig.scratch(platform), base_config=None, platform=platform
    )


def source_lines(request: BuildRequest, filename: str) -> tuple[str, ...]:
    """The lines of a file that the request's definition was made from; () when it does not hold them."""
    assert request.llb is not None
    for file in decode(request.llb).files:
        if file.filename == filename:
            return tuple(file.data.decode("utf-8", "replace").splitlines())
    return ()


def _anew(definition: Definition) -> Definition:
    """Every step runs; digests do not cover that."""
    vertices = tuple(
        vertex
        if isinstance(vertex.op, SourceOp)
        else replace(vertex, meta=replace(vertex.meta, ignore_cache=True))
        for vertex in definition.vertices
    )
    return Definition(vertices=vertices, head=definition.head)


def _check_sources(definition: Definition) -> None:
    for vertex in definition.vertices:
        try:
            check_source(vertex)
        except SolveError as error:
            raise attribute(error, vertex) from error


def check_source(vertex: Vertex) -> None:
    """Raise SolveError for a source, or something asked of it, that is not known here."""
    op = vertex.op
    if not isinstance(op, SourceOp):
        return
    scheme = op.identifier.partition("://")[0]
    if scheme not in _SCHEMES:
        raise SolveError(
            f"unsupported source scheme {scheme[:100]}",
            hint=f"known are {', '.join(_SCHEMES)}",
            code="unsupported-source",
        )
    for key, _ in op.attrs:
        if key in _UNSUPPORTED or key.startswith(_UNSUPPORTED_PREFIXES):
            raise SolveError(f"unsupported source attribute {key[:100]}", code="unsupported-source")


@dataclass(slots=True, kw_only=True)
class LlbSources(BuildSources):
    """The sources of a definition, nested ones among them, each found when it is first asked for."""

    prepared: PreparedContext
    resolver: BuildResolver
    mode: str = "default"
    _views: dict[str, LocalContext] = field(default_factory=dict)
    _finding: threading.RLock = field(default_factory=threading.RLock)

    def _local(self, op: SourceOp) -> LocalContext:
        name = op.identifier.removeprefix("local://")
        found = self.locals.get(name)
        if found is None:
            raise SourceUnavailable(
                f"{op.identifier}: there is no context of that name",
                hint="local://context is the build's PATH, others are given with --build-context NAME=DIR",
                code="context-not-found",
            )
        rules = _rules(op)
        if not rules:
            return found
        with self._finding:
            key = f"{name} {rules}"
            if key not in self._views:
                self._views[key] = self._view(found, name, rules)
            return self._views[key]

    def _view(self, context: LocalContext, name: str, rules: str) -> LocalContext:
        """The same directory under the rules of the definition, which replace its ignore file."""
        from builder.frontend.dockerignore import IgnoreMatcher

        text = rules.encode("utf-8", "surrogateescape")
        view = LocalContext(
            context.root,
            name=name,
            ignore=IgnoreMatcher.parse(text),
            ignore_key=str(Digest.of(text)),
            ignore_file=("the definition", text),
            documents=self.store,
        )
        self.prepared._stack.callback(view.close)
        return view

    def _image(self, op: SourceOp, platform: Platform | None) -> BaseImage | None:
        if not op.identifier.startswith(("docker-image://", "oci-layout://")):
            return None
        check_source(Vertex(op=op))
        wanted = platform or host_platform()
        key = image_key(op.identifier, wanted)
        with self._finding:
            found = self.resolver.images.get(key)
            if found is None:
                place = (
                    self._layout(op, wanted) if op.identifier.startswith("oci") else self._named(op, wanted)
                )
                found = self.resolver.images[key] = self.resolver.images[image_key(place, wanted)]
            return found

    def _named(self, op: SourceOp, platform: Platform) -> str:
        """Resolve an image; gives the identifier under which it is filed."""
        name = op.identifier.removeprefix("docker-image://")
        ref = str(Reference.parse(name).with_default_tag())
        mode = op.attr("image.resolvemode", self.mode)
        if mode not in ("default", "pull", "local"):
            raise InvalidValue(f"{op.identifier}: unknown image.resolvemode {mode[:100]!r}")
        found = self.resolver.image(ref, platform, mode=mode)
        checksum = op.attr("image.checksum")
        if checksum and checksum != str(found.digest):
            raise SourceUnavailable(f"{op.identifier}: its digest is {found.digest}, not {checksum[:200]}")
        return f"docker-image://{found.ref.partition('@')[0]}@{found.digest}"

    def _layout(self, op: SourceOp, platform: Platform) -> str:
        """Read an image of a layout on this machine."""
        name, at, digest = op.identifier.removeprefix("oci-layout://").rpartition("@")
        source = next((item for item in self.prepared.named.values() if item.name == name), None)
        if not at or source is None or source.kind != "oci":
            raise SourceUnavailable(
                f"{op.identifier}: there is no such layout",
                hint=f"give it with --build-context {name or 'NAME'}=oci-layout://DIRECTORY",
                code="context-not-found",
            )
        asked = replace(source, digest=Digest.parse(digest))
        return self.resolver._layout(asked, platform).identifier

    def _remote(self, op: SourceOp) -> RemoteSource:
        check_source(Vertex(op=op))
        identifier, attrs = self.resolver.gate.passed(op.identifier, op.attrs)
        return BuildSources._remote(self, SourceOp(identifier=identifier, attrs=attrs))


def _rules(op: SourceOp) -> str:
    """The patterns of a local source as the text of an ignore file; empty when it has none."""
    includes, excludes = (_patterns(op, key) for key in ("local.includepattern", "local.excludepatterns"))
    if not includes and not excludes:
        return ""
    lines = ["**", *(f"!{pattern}" for pattern in includes)] if includes else []
    return "".join(f"{line}\n" for line in (*lines, *excludes))


def _patterns(op: SourceOp, key: str) -> list[str]:
    text = op.attr(key)
    if not text:
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) and "\n" not in item for item in found):
        raise GraphError(f"{op.identifier}: {key} is no list of patterns: {text[:100]!r}")
    return found
