"""Sizes, durations and times as people type and read them."""

from __future__ import annotations

import pytest

from builder.errors import UsageError
from cli.render.text import ago, human_duration, human_size, printable, progress_size, rfc3339, short_id
from cli.units import csv_fields, csv_pairs, duration_seconds, pair, point_in_time_ns, size_bytes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64k", 64 << 10),
        ("64kb", 64 << 10),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("1GiB", 1 << 30),
        ("2 g", 2 << 30),
        ("10b", 10),
    ],
)
def test_sizes_are_read(text: str, wanted: int) -> None:
    assert size_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "m", "12x", "-1", "1e9999", "nan", "1,5g", "0x10"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800)],
)
def test_durations_are_read(text: str, wanted: float) -> None:
    assert duration_seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "x", "5 parsecs", "1h-", "m"])
def test_bad_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        duration_seconds(text)


def test_points_in_time() -> None:
    now = 1_700_000_000 * 10**9
    assert point_in_time_ns("1700000000.25", now) == now + 250_000_000
    assert point_in_time_ns("2023-11-14T22:13:20Z", now) == now
    assert point_in_time_ns("10m", now) == now - 600 * 10**9
    with pytest.raises(UsageError):
        point_in_time_ns("2023-99-99", now)


def test_pairs_and_comma_fields() -> None:
    assert pair("a=b=c", "x") == ("a", "b=c")
    with pytest.raises(UsageError):
        pair("=b", "x")
    assert csv_fields('type=local,"dest=a,b"', "x") == ["type=local", "dest=a,b"]
    assert csv_pairs("id=a,src=b,readonly", "x") == [("id", "a"), ("src", "b"), ("readonly", "")]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1240, "1.24kB"), (999_999, "1MB"), (72_800_000, "72.8MB")],
)
def test_human_sizes_are_decimal(size: int, wanted: str) -> None:
    assert human_size(size, 3) == wanted


def test_progress_sizes_have_two_decimals() -> None:
    assert [progress_size(n) for n in (99, 1_050_000, 999_999_999)] == ["99B", "1.05MB", "1.00GB"]


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (240, "4 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_relative_times(seconds: float, wanted: str) -> None:
    assert human_duration(seconds) == wanted


def test_small_forms() -> None:
    assert ago(10**18, 10**18 + 240 * 10**9) == "4 minutes ago"
    assert ago(0, 5) == "N/A"
    assert rfc3339(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert short_id("sha256:" + "ab" * 32) == "abababababab"


def test_control_characters_are_shown_not_sent() -> None:
    assert printable("a\x1b[2Jb\x9b") == "a\\x1b[2Jb\\x9b"
    assert printable("tab\tline\n") == "tab\tline\n"
    assert printable("tab\t", keep="") == "tab\\x09"
