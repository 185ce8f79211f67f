"""Which line of an ignore file leaves a path out, for messages (ERR-03)."""

from __future__ import annotations

from builder.frontend.dockerignore import IgnoreMatcher, read_patterns


def deciding_rule(text: bytes, path: str) -> tuple[int, str] | None:
    """The line (from 1) and the pattern that decide that ``path`` is left out; None when it is not."""
    decision: tuple[int, str] | None = None
    for number, line in enumerate(text.split(b"\n"), start=1):
        for pattern in read_patterns(line):
            if IgnoreMatcher((pattern.removeprefix("!"),)).excludes(path):
                decision = None if pattern.startswith("!") else (number, pattern)
    return decision
