"""The outputs of a build from its command line: ``--output``, ``--push``, ``--load`` and ``--annotation``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builder.errors import UsageError
from builder.exporter.types import ATTRIBUTES, Annotation, OutputSpec, parse_annotation
from cli.app import App, is_terminal
from cli.flags import Args
from cli.suggest import did_you_mean
from cli.units import pair


def outputs(app: App, args: Args) -> tuple[OutputSpec, ...]:
    """Where the result goes. Raises UsageError, also for an attribute that is nearly one we know."""
    annotations = _annotations(args.many("annotation"))
    image = OutputSpec(type="image", annotations=annotations)
    found = _parsed(app, args.many("output"), annotations)
    if args.on("push"):
        pushed = [replace(spec, push=True) if spec.type == "image" else spec for spec in found]
        found = pushed if pushed != found else [*found, replace(image, push=True)]
    if not found or (args.on("load") and not any(spec.type == "image" for spec in found)):
        found.append(image)
    to_stdout = [spec for spec in found if spec.dest == "-"]
    if len(to_stdout) > 1:
        raise UsageError("only one output can go to stdout")
    if to_stdout and is_terminal(1):
        raise UsageError(
            f"refusing to write the {to_stdout[0].type} output to a terminal",
            hint="redirect it, or use dest=FILE",
        )
    return tuple(found)


def _annotations(texts: Iterable[str]) -> tuple[Annotation, ...]:
    """What ``--annotation [TYPE[,TYPE]:]KEY=VALUE`` adds to every output (EXP-11)."""
    found = []
    for text in texts:
        name, value = pair(text, "annotation")
        kinds, colon, key = name.partition(":")
        if colon:
            found += [parse_annotation(f"annotation-{kind}.{key}", value) for kind in kinds.split(",")]
        else:
            found.append(parse_annotation(f"annotation.{name}", value))
    return tuple(found)


def _parsed(app: App, texts: Iterable[str], annotations: tuple[Annotation, ...]) -> list[OutputSpec]:
    """The outputs asked for; a note tells of attributes that mean nothing, which are allowed, as in BuildKit,
    unless they look misspelled.
    """
    found = [OutputSpec.parse(text, annotations) for text in texts]
    for spec in found:
        for key, _ in spec.extra:
            _pass_over(app, spec, key)
    return found


def _pass_over(app: App, spec: OutputSpec, key: str) -> None:
    meant = did_you_mean(key, sorted(ATTRIBUTES)) if key not in ATTRIBUTES else ""
    if meant:
        raise UsageError(f"unknown attribute {key[:60]!r} of output type={spec.type}{meant}")
    app.note(f"warning: attribute {key[:60]!a} of output type={spec.type} has no effect")
