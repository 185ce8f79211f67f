"""Dockerfiles with their definitions, configs and warnings as text; ``broken`` ones with their errors.

``--update-golden`` rewrites the expected files; read the difference like code.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.frontend.convert import convert
from builder.frontend.errors import DockerfileError
from builder.frontend.parser import parse
from tests.support.dockerfiles import ARM64, FakeResolver, base_image, options, rendered

ROOT = Path(__file__).parents[1] / "golden" / "frontend"
CASES = sorted(path.parent.name for path in ROOT.glob("*/Dockerfile"))
BROKEN = sorted(path.parent.name for path in ROOT.glob("broken/*/Dockerfile"))


@pytest.mark.parametrize("name", CASES)
def test_conversion(name, golden):
    folder = ROOT / name
    configs = {"docker.io/library/alpine:latest": base_image(shell=None, cmd=("/bin/sh",))}
    changes = {"platform": ARM64, "platform_explicit": True} if name == "multi-stage" else {}
    found = convert(parse((folder / "Dockerfile").read_bytes()), options(**changes), FakeResolver(configs))
    golden(folder / "expected.txt", rendered(found))


@pytest.mark.parametrize("name", BROKEN)
def test_refusal(name, golden):
    folder = ROOT / "broken" / name
    with pytest.raises(DockerfileError) as caught:
        convert(parse((folder / "Dockerfile").read_bytes()), options(), FakeResolver())
    error = caught.value
    lines = " ".join(f"{span.start}-{span.end}" for span in error.spans)
    golden(folder / "expected.txt", f"{error.code}\n{error.message}\nlines {lines}\n")
