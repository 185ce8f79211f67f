"""Reading and converting takes time in proportion to a file's length, in whatever way it is long.

Compares processor time within one run: ten times the text may take at most twenty times as long, where something
quadratic takes a hundred times. The measured best of several rounds, so that a busy machine does not matter.
"""

from __future__ import annotations

import time

import pytest

from builder.frontend.convert import convert
from builder.frontend.parser import parse
from tests.support.dockerfiles import FakeResolver, options

ORDINARY = """\
RUN apk add a && \\
    apk add b && \\
    rm -rf /var/cache
LABEL a.b{n}="c $PATH"
COPY --chown=1:1 src{n} /dst{n}/
WORKDIR /w{n}
RUN --mount=type=cache,target=/root/.cache make {n}
EXPOSE {n}
"""

SHAPES = {
    "ordinary": (500, lambda n: "FROM alpine AS base\n" + "".join(ORDINARY.format(n=i + 1) for i in range(n // 8))),
    "labels": (500, lambda n: "FROM a\n" + "".join(f"LABEL k{i}='v' w=${{PATH%:*}}\n" for i in range(n))),
    "stages": (300, lambda n: "".join(f"FROM a AS s{i}\nRUN x{i}\n" for i in range(n // 2))),
    "sources": (1000, lambda n: "FROM a\nCOPY " + " \\\n  ".join(f"f{i}" for i in range(n)) + " /d/\n"),
    "one long line": (20000, lambda n: "FROM a\nENV A=" + "x$PATH'q'" * (n // 10) + "\n"),
    "continuations": (20000, lambda n: "FROM a\nRUN a \\\n" + "  && b \\\n# c\n" * (n // 2) + "  d\n"),
    "comments": (20000, lambda n: "FROM a\n" + "# c\n" * n + "RUN x\n"),
    "here-document": (20000, lambda n: "FROM a\nCOPY <<E /x\n" + "a $PATH 'b\n" * n + "E\n"),
    "json": (2000, lambda n: "FROM a\nRUN [" + ", ".join(f'"{i}"' for i in range(n)) + "]\n"),
}  # fmt: skip


def cost(text):
    data = text.encode()
    best = 99.0
    for _ in range(3):
        start = time.process_time()
        convert(parse(data), options(), FakeResolver())
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_times_the_text_takes_about_ten_times_as_long(shape):
    size, make = SHAPES[shape]
    cost("FROM a\nRUN x\n")  # imports, the grammar
    small, large = cost(make(size)), cost(make(size * 10))
    assert large < 20 * small + 0.02, f"{small * 1000:.1f} ms, then {large * 1000:.1f} ms"


def test_an_ordinary_file_costs_little_more_than_its_graph():
    """500 lines against plain work of the same size, so that the bound holds on any machine."""
    _, make = SHAPES["ordinary"]
    start = time.process_time()
    total = 0
    for n in range(400_000):  # some 20-30 ms where 500 lines take 15
        total += n & 3
    unit = time.process_time() - start
    assert total
    assert cost(make(500)) < 4 * unit + 0.02
