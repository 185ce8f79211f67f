"""What users say: option values as Go's encoding/csv reads them, caches that cannot work, a missing HOME."""

from __future__ import annotations

import os

import pytest

from builder.build import BuildRequest
from builder.build.caches import check_places
from builder.csvline import csv_fields
from builder.errors import ExportError, UsageError
from builder.remotecache.spec import CacheSpec
from cli.settings import Settings, home_of_user


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ("", [""]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ('a,""', ["a", ""]),
        ('"a",', ["a", ""]),
        ('"a\nb",c\n', ["a\nb", "c"]),
    ],
)
def test_fields(text: str, fields: list[str]) -> None:
    assert csv_fields(text, "output") == fields


@pytest.mark.parametrize("text", ['type=oci,dest="', 'dest="x"', '"a', '"a"b,c', "a\nb", '""a'])
def test_quotes_out_of_place_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid output"):
        csv_fields(text, "output")


@pytest.mark.parametrize(
    "text",
    [
        "type=local",
        "type=local,dest=/dev/null",
        "type=local,dest=x,compression-level=10",
        "type=nowhere,a=b",
        "type=registry",
        "type=inline,mode=max",
    ],
)
def test_caches_are_checked_before_the_build(text: str) -> None:
    """What cannot work is refused at once; an inline cache has no place of its own."""
    request = BuildRequest(context=".", cache_to=(CacheSpec(type=text[5:].partition(",")[0], attrs=tuple(
        (key, value) for key, _, value in (item.partition("=") for item in text.split(",")[1:]))),))  # fmt: skip
    if "inline" in text:
        check_places(request)
        return
    with pytest.raises((UsageError, ExportError)):
        check_places(request)


def test_a_home_that_is_not_said_is_the_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for environ in ({}, {"HOME": ""}):
        assert str(Settings(environ).home) == home_of_user() != "~"
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert home_of_user() == "/"
