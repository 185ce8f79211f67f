"""Dockerfiles with their definitions, configs and warnings as text; ``broken`` ones with their errors.

``PYBUILD_UPDATE_GOLDEN=1`` rewrites the expected files; read the difference like code.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.frontend.convert import convert
from builder.frontend.errors import DockerfileError
from builder.frontend.parser import parse
from tests.support.dockerfiles import ARM64, FakeResolver, base_image, options, rendered

ROOT = Path(__file__).parents[1] / "golden" / "frontend"
CASES = sorted(path.parent.name for path in ROOT.glob("*/Dockerfile"))
BROKEN = sorted(path.parent.name for path in ROOT.glob("broken/*/Dockerfile"))


def check(path, text):
    if os.environ.get("PYBUILD_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_conversion(name):
    folder = ROOT / name
    configs = {"docker.io/library/alpine:latest": base_image(shell=None, cmd=("/bin/sh",))}
    changes = {"platform": ARM64, "platform_explicit": True} if name == "multi-stage" else {}
    found = convert(parse((folder / "Dockerfile").read_bytes()), options(**changes), FakeResolver(configs))
    check(folder / "expected.txt", rendered(found))


@pytest.mark.parametrize("name", BROKEN)
def test_refusal(name):
    folder = ROOT / "broken" / name
    with pytest.raises(DockerfileError) as caught:
        convert(parse((folder / "Dockerfile").read_bytes()), options(), FakeResolver())
    error = caught.value
    lines = " ".join(f"{span.start}-{span.end}" for span in error.spans)
    check(folder / "expected.txt", f"{error.code}\n{error.message}\nlines {lines}\n")
