"""What a build was made of, from its definition (ATT-07)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from builder.attest.statement import package_url
from builder.frontend.redact import redact
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import ExecOp, SourceOp
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import Reference

Pin = Callable[[SourceOp], str]
"""What a remote source was when used: ``sha1:…`` of a commit, ``sha256:…`` of a file; "" = not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One thing from outside; ``algorithm`` and ``hex`` name its content."""

    uri: str
    algorithm: str
    hex: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in a predicate."""
        return {"uri": self.uri, "digest": {self.algorithm: self.hex}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A secret or an agent that a step asks for."""

    id: str
    optional: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it stands in a predicate."""
        return {"id": self.id, **({"optional": True} if self.optional else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What a build takes from outside. ``complete``: every source is among the materials; a definition's own
    part does not count ``locals``."""

    materials: tuple[Material, ...]
    locals: tuple[str, ...]
    secrets: tuple[Wanted, ...]
    ssh: tuple[Wanted, ...]
    network: bool
    complete: bool


def image_material(ref: str, digest: Digest, platform: Platform | None) -> Material:
    """A base image: by its name as asked for; by digest where it has no tag."""
    reference = Reference.parse(ref)
    if reference.tag is not None:
        reference = Reference.parse(ref.partition("@")[0])
    return Material(uri=package_url(reference, platform), algorithm=digest.algorithm, hex=digest.hex)


def remote_material(url: str, pin: str) -> Material:
    """A repository or a file by its URL; ``pin`` is ``algorithm:hex``."""
    algorithm, _, value = pin.partition(":")
    return Material(uri=redact(url), algorithm=algorithm, hex=value)


def capture(definition: Definition, pin: Pin) -> Captured:
    """Walk ``definition``."""
    materials: dict[str, Material] = {}
    locals_: list[str] = []
    complete = True
    for vertex in definition.vertices:
        if not isinstance(vertex.op, SourceOp):
            continue
        if vertex.op.identifier.startswith("local://"):
            locals_.append(vertex.op.identifier.removeprefix("local://"))
            continue
        material = _material(vertex, vertex.op, pin)
        if material is None:
            complete = False
        else:
            materials.setdefault(material.uri, material)
    execs = [vertex.op for vertex in definition.vertices if isinstance(vertex.op, ExecOp)]
    return Captured(
        materials=tuple(materials.values()),
        locals=tuple(dict.fromkeys(locals_)),
        secrets=_once(
            [Wanted(id=m.id, optional=m.optional) for op in execs for m in op.mounts if m.type == "secret"]
            + [Wanted(id=item.id, optional=item.optional) for op in execs for item in op.secret_env]
        ),
        ssh=_once(
            Wanted(id=m.id or "default", optional=m.optional)
            for op in execs
            for m in op.mounts
            if m.type == "ssh"
        ),
        network=any(op.network != "none" for op in execs),
        complete=complete,
    )


def whole(
    found: Captured, images: Iterable[Material], context: Material | None, *, own_dockerfile: bool
) -> Captured:
    """All that a build takes: its definition's part, the images that were asked for, a remote context first.

    ``own_dockerfile``: the Dockerfile is not in the context.
    """
    materials = {item.uri: item for item in found.materials}
    for item in images:
        materials.setdefault(item.uri, item)
    locals_ = set(found.locals)
    if context is not None:
        materials = {context.uri: context, **materials}
        locals_.discard("context")
    if own_dockerfile:
        locals_.add("dockerfile")
    return replace(
        found,
        materials=tuple(materials.values()),
        locals=tuple(sorted(locals_)),
        complete=found.complete and not locals_,
    )


def _material(vertex: Vertex, op: SourceOp, pin: Pin) -> Material | None:
    kind, _, rest = op.identifier.partition("://")
    if kind in ("docker-image", "oci-layout"):
        name, _, digest = rest.partition("@")
        if not digest:
            return None
        if kind == "docker-image":
            return image_material(rest, Digest.parse(digest), vertex.platform)
        platform = f"?platform={str(vertex.platform).replace('/', '%2F')}" if vertex.platform else ""
        found = Digest.parse(digest)
        return Material(uri=f"pkg:oci/{name}{platform}", algorithm=found.algorithm, hex=found.hex)
    pinned = pin(op)
    if not pinned:
        return None
    url = op.identifier
    if op.attr("git.fullurl"):
        fragment = op.identifier.partition("#")[2]
        url = op.attr("git.fullurl") + (f"#{fragment}" if fragment else "")
    return remote_material(url, pinned)


def _once(found: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """Each id once, required if any step requires it, sorted."""
    merged: dict[str, bool] = {}
    for item in found:
        merged[item.id] = merged.get(item.id, True) and item.optional
    return tuple(Wanted(id=name, optional=optional) for name, optional in sorted(merged.items()))
