"""Dockerfile texts converted against a resolver that makes up every image."""

from __future__ import annotations

import json
import textwrap

from builder.errors import SourceUnavailable
from builder.frontend.convert import ConvertOptions, NamedContext, ResolvedImage, convert
from builder.frontend.parser import parse
from builder.llb.definition import encode_op
from builder.oci.config import History, ImageConfig
from builder.oci.digest import DiffId, Digest
from builder.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


class FakeResolver:
    """Every image exists, with one layer; ``configs`` and ``contexts`` say more. Keeps what was asked."""

    def __init__(self, configs=None, contexts=None, missing=(), epochs=None):
        self.configs = configs or {}
        self.contexts = contexts or {}
        self.missing = missing
        self.epochs = epochs or {}
        self.asked = []
        self.prefetched = []

    def image(self, ref, platform, *, mode):
        self.asked.append((ref, str(platform), mode))
        if ref in self.missing:
            raise SourceUnavailable(f"{ref}: not found")
        config = self.configs.get(ref) or base_image(platform=platform)
        return ResolvedImage(Digest.of(f"{ref} {config.platform}".encode()), config, config.platform, ref)

    def context(self, name, platform):
        found = self.contexts.get(f"{name}::{platform}") or self.contexts.get(name)
        return found if found is None or isinstance(found, NamedContext) else NamedContext(name, *found)

    def prefetch(self, refs):
        self.prefetched.extend(refs)

    def source_epoch(self, source):
        return self.epochs.get(source.identifier)


def base_image(platform=AMD64, **changes):
    """An image with one layer and a PATH."""
    fields = {
        "env": ("PATH=/usr/bin:/bin",),
        "diff_ids": (DiffId(Digest.of(b"layer")),),
        "history": (History(created_by="base layer"),),
    }
    return ImageConfig(platform=platform, **{**fields, **changes})


def options(**changes):
    """Options for linux/amd64 on linux/amd64."""
    return ConvertOptions(**{"platform": AMD64, "build_platform": AMD64, **changes})


def text_of(text):
    """A Dockerfile's bytes from an indented block."""
    return textwrap.dedent(text).lstrip("\n").encode("utf-8", "surrogateescape")


def converted(text, resolver=None, *, all_stages=False, **changes):
    """The conversion of an indented block."""
    return convert(
        parse(text_of(text)), options(**changes), resolver or FakeResolver(), all_stages=all_stages
    )


def ops(conversion, kind):
    """The ops of one kind, inputs first."""
    return [v.op for v in conversion.definition.vertices if type(v.op).__name__ == kind]


def execs(conversion):
    """The exec ops, in order."""
    return ops(conversion, "ExecOp")


def copies(conversion):
    """The copy actions, in order."""
    return [
        action.action
        for op in ops(conversion, "FileOp")
        for action in op.actions
        if type(action.action).__name__ == "Copy"
    ]


def names(conversion):
    """The display names of all vertices."""
    return [vertex.meta.name for vertex in conversion.definition.vertices]


def history(conversion):
    """The history entries that the file added: text, and "·" for those without a layer."""
    base = len(conversion.base_config.history) if conversion.base_config else 0
    return [
        ("· " if entry.empty_layer else "") + entry.created_by for entry in conversion.config.history[base:]
    ]


def rules(conversion):
    """The names of the lint rules reported, each with its line."""
    return [(warning.rule, warning.span.start) for warning in conversion.warnings]


def rendered(conversion):
    """A conversion as text, for golden files."""
    lines = []
    position = {}
    for index, vertex in enumerate(conversion.definition.vertices):
        position[vertex.digest] = index
        inputs = " ".join(str(position[edge.digest]) for edge in vertex.inputs)
        lines.append(f"#{index} {vertex.meta.name}")
        source = vertex.meta.source
        where = f" lines {source.start}-{source.end}" if source else ""
        lines.append(f"   inputs [{inputs}]{where}{' nocache' if vertex.meta.ignore_cache else ''}")
        lines.append("   " + json.dumps(encode_op(vertex.op), sort_keys=True))
    head = conversion.definition.head
    lines.append(f"head {'empty' if head is None else head.digest}")
    lines.append(json.dumps(conversion.config.to_json(), indent=1, sort_keys=True))
    lines += [f"warning {warning}" for warning in conversion.warnings]
    lines += [f"unused {name}" for name in conversion.unused_build_args]
    return "\n".join(lines) + "\n"
