"""Every row that is listed has a test, and every row that a test names is listed."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.frontend import rows


@pytest.mark.parametrize("name", sorted(rows.listed()))
def test_every_row_has_a_test(name: str) -> None:
    missing = [row for row in rows.listed()[name] if row not in rows.shown()]
    assert not missing, f"rows of {name} without a test: {' '.join(missing)}"


def test_every_named_row_is_listed_once() -> None:
    count = Counter(row for ids in rows.listed().values() for row in ids)
    assert [row for row, times in count.items() if times > 1] == []
    assert sorted(set(rows.shown()) - set(count)) == []
