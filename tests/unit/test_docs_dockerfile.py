"""The examples in the description of the language are Dockerfiles that convert, without a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder.frontend.convert import convert
from builder.frontend.instructions import INSTRUCTION_NAMES
from builder.frontend.parser import parse
from tests.support.dockerfiles import options
from tests.support.goldens import FixedImages

PAGE = (Path(__file__).parents[2] / "docs" / "dockerfile.md").read_text(encoding="utf-8")
BLOCKS = [
    (PAGE[: match.start()].count("\n") + 2, match.group(1))
    for match in re.finditer(r"^```dockerfile\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("line", "text"), BLOCKS, ids=[f"line-{line}" for line, _ in BLOCKS])
def test_example(line, text):
    found = convert(parse(text.encode()), options(), FixedImages())
    assert [str(warning) for warning in found.warnings] == []


def test_every_instruction_is_described():
    assert len(BLOCKS) >= len(INSTRUCTION_NAMES)
    titles = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE)).lower().split()
    assert set(INSTRUCTION_NAMES) <= set(titles)
