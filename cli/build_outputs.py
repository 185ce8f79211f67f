"""The outputs of a build from its command line: ``--output``, ``--push``, ``--load`` and ``--annotation``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builder.errors import UsageError
from builder.exporter.types import ATTRIBUTES, OutputSpec, parse_annotation
from cli.app import App, is_terminal
from cli.flags import Args
from cli.suggest import did_you_mean
from cli.units import pair

_ANNOTATED = ("manifest", "manifest-descriptor", "index", "index-descriptor")


def outputs(app: App, args: Args) -> tuple[OutputSpec, ...]:
    """Where the result goes. Raises UsageError, also for an attribute that is nearly one we know."""
    found = _parsed(app, args.many("output"))
    if args.on("push"):
        pushed = [replace(spec, push=True) if spec.type == "image" else spec for spec in found]
        found = pushed if pushed != found else [*found, OutputSpec(type="image", push=True)]
    if not found or (args.on("load") and not any(spec.type == "image" for spec in found)):
        found.append(OutputSpec(type="image"))
    if args.many("annotation"):
        found = [_annotated(spec, args.many("annotation")) for spec in found]
    to_stdout = [spec for spec in found if spec.dest == "-"]
    if len(to_stdout) > 1:
        raise UsageError("only one output can go to stdout")
    if to_stdout and is_terminal(1):
        raise UsageError(
            f"refusing to write the {to_stdout[0].type} output to a terminal",
            hint="redirect it, or use dest=FILE",
        )
    return tuple(found)


def _annotated(spec: OutputSpec, annotations: tuple[str, ...]) -> OutputSpec:
    """``--annotation [TYPE[,TYPE]:]KEY=VALUE`` added to an output (EXP-11)."""
    added = []
    for item in annotations:
        key, value = pair(item, "annotation")
        kinds, colon, rest = key.partition(":")
        if colon and all(kind.partition("[")[0] in _ANNOTATED for kind in kinds.split(",")):
            added += [parse_annotation(f"annotation-{kind}.{rest}", value) for kind in kinds.split(",")]
        else:
            added.append(parse_annotation(f"annotation.{key}", value))
    return replace(spec, annotations=(*spec.annotations, *added))


def _parsed(app: App, texts: Iterable[str]) -> list[OutputSpec]:
    """The outputs asked for; a note tells of attributes that mean nothing, which are allowed, as in BuildKit,
    unless they look misspelled.
    """
    found = [OutputSpec.parse(text) for text in texts]
    for spec in found:
        for key, _ in spec.extra:
            _pass_over(app, spec, key)
    return found


def _pass_over(app: App, spec: OutputSpec, key: str) -> None:
    meant = did_you_mean(key, sorted(ATTRIBUTES)) if key not in ATTRIBUTES else ""
    if meant:
        raise UsageError(f"unknown attribute {key[:60]!r} of output type={spec.type}{meant}")
    app.note(f"warning: attribute {key[:60]!a} of output type={spec.type} has no effect")
