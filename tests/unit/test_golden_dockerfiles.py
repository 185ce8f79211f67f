"""Dockerfiles as people write them, with the whole graph, config and history that they mean.

The images they start from have fixed configs. ``--update-golden`` rewrites what is expected; read the difference
like code. ``dockerfiles-broken`` holds files that must be refused: the message, its lines, hint and snippet.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import PybuildError
from builder.frontend.convert import convert
from builder.frontend.errors import DockerfileError
from builder.frontend.parser import parse
from tests.support.goldens import dump, settings

GOLDEN = Path(__file__).parents[1] / "golden"
GOOD = sorted((GOLDEN / "dockerfiles").glob("*/Dockerfile"))
BROKEN = sorted((GOLDEN / "dockerfiles-broken").glob("*/Dockerfile"))


def name_of(path):
    return path.parent.name


def test_there_are_many():
    assert len(GOOD) >= 40
    assert len(BROKEN) >= 25


@pytest.mark.parametrize("path", GOOD, ids=name_of)
def test_what_a_dockerfile_means(path, golden):
    options, resolver = settings(path.parent)
    found = convert(parse(path.read_bytes()), options, resolver)
    golden(path.with_name("expected.json"), dump(found))
    layers = sum(not entry.empty_layer for entry in found.config.history)
    base = sum(not entry.empty_layer for entry in found.base_config.history) if found.base_config else 0
    assert layers - base == layers_of(found), "history and layers disagree"


def layers_of(conversion):
    """How many layers the head lies above its base: along the first inputs of its steps."""
    by_digest = conversion.definition.by_digest()
    count, edge = 0, conversion.definition.head
    while edge is not None:
        vertex = by_digest[edge.digest]
        kind = type(vertex.op).__name__
        if kind == "SourceOp":
            break
        count += 1
        if kind == "ExecOp":
            position = vertex.op.mounts[0].input
        else:
            position = vertex.op.inputs[0] if kind == "MergeOp" else vertex.op.actions[0].input
        edge = vertex.inputs[position] if position >= 0 else None
    return count


@pytest.mark.parametrize("path", BROKEN, ids=name_of)
def test_what_is_wrong_with_a_dockerfile(path, golden):
    options, resolver = settings(path.parent)
    with pytest.raises(PybuildError) as caught:
        convert(parse(path.read_bytes()), options, resolver)
    error = caught.value
    assert isinstance(error, DockerfileError)
    lines = [f"code: {error.code}", f"message: {error.message}"]
    lines += [f"context: {item}" for item in error.context]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    for span in error.spans:
        lines.append(f"{span.filename}:{span.start}-{span.end}")
        lines += [f"  {text}".rstrip() for text in error.source_lines[span.start - 1 : span.end]]
    golden(path.with_name("expected.txt"), "\n".join(lines) + "\n")
