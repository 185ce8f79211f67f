"""Which row of the behaviour specification a test shows: the ``row`` marker, and reading it back from the files.

A conformance folder lists its rows in ``rows_*.txt``, one id a line (``#`` starts a comment). A test says ``@row("LEX-01", "LEX-02")``,
a case of a parametrized test ``pytest.param(..., marks=row("LEX-01"))``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest


def row(*ids: str) -> pytest.MarkDecorator:
    """Mark a test, or one of its cases, as showing these rows."""
    return pytest.mark.row(*ids)


def listed(folder: Path) -> dict[str, list[str]]:
    """The rows that each list of a folder names, by file name."""
    lists = {}
    for path in sorted(folder.glob("rows_*.txt")):
        lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
        lists[path.name] = [line for line in lines if line]
    return lists


@functools.cache
def shown(folder: Path) -> dict[str, set[str]]:
    """The test files of a folder that show a row, by row. Read from the text, so that a part of the tests can run alone."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("test_*.py")):
        for name in _marked(ast.parse(path.read_text())):
            found.setdefault(name, set()).add(path.name)
    return found


def _marked(tree: ast.AST) -> Iterator[str]:
    """The constant arguments of every call of ``row``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "row":
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value
