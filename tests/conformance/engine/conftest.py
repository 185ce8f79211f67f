"""Fixtures of the engine's conformance tests: stores and machines that a test has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.store import Store
from tests.support.handmade import Bench
from tests.support.machines import Machines, machines


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


@pytest.fixture(params=["overlay", "native"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Definitions made by hand, over either snapshotter."""
    with Store.open(tmp_path / "root", snapshotter=request.param) as store:
        assert store.snapshots.driver == request.param
        yield Bench(store)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Machines]:
    """Machines that share nothing but what a test lets them."""
    with machines(tmp_path) as made:
        yield made
