"""Every row that is listed has a test, and every row that a test names is listed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support import rows

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(rows.listed(HERE)))
def test_every_row_has_a_test(name: str) -> None:
    missing = [row for row in rows.listed(HERE)[name] if row not in rows.shown(HERE)]
    assert not missing, f"rows of {name} without a test: {' '.join(missing)}"


def test_every_named_row_is_listed_once() -> None:
    count = Counter(row for ids in rows.listed(HERE).values() for row in ids)
    assert [row for row, times in count.items() if times > 1] == []
    assert sorted(set(rows.shown(HERE)) - set(count)) == []
