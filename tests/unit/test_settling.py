"""Noting the end of a container that somebody removes meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.containers.settling import _claim


def ended(directory: Path) -> Any:
    directory.mkdir()
    return SimpleNamespace(directory=directory, state=SimpleNamespace(finished_at=7))


def test_an_end_is_claimed_once(tmp_path: Path) -> None:
    container = ended(tmp_path / "c")
    (tmp_path / "c/ended-6").touch()
    assert _claim(container)
    assert not _claim(container)
    assert os.listdir(tmp_path / "c") == ["ended-7"]


def test_a_directory_that_goes_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container, listdir = ended(tmp_path / "c"), os.listdir

    def removed_first(path: Path) -> list[str]:
        shutil.rmtree(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", removed_first)
    assert _claim(container)
