"""Reading and converting a Dockerfile takes time in proportion to its length."""

from __future__ import annotations

import time

import pytest

from builder.frontend.convert import convert
from builder.frontend.parser import parse
from tests.support.dockerfiles import FakeResolver, options

pytestmark = pytest.mark.bench


def text(lines):
    out = ["FROM alpine AS base"]
    for n in range(lines // 8):
        out += [
            "RUN apk add a && \\",
            "    apk add b && \\",
            "    rm -rf /var/cache",
            f'LABEL a.b{n}="c $PATH"',
            f"COPY --chown=1:1 src{n} /dst{n}/",
            f"WORKDIR /w{n}",
            f"RUN --mount=type=cache,target=/root/.cache make {n}",
            f"EXPOSE {n + 1}",
        ]
    return "\n".join(out).encode()


def cost(data):
    best = 9.0
    for _ in range(3):
        start = time.process_time()
        convert(parse(data), options(), FakeResolver())
        best = min(best, time.process_time() - start)
    return best


def test_time_is_linear():
    cost(text(50))
    small, large = cost(text(500)), cost(text(4000))
    assert small < 0.25
    assert large < 8 * small * 2
