"""The nearest known word to one that is not known (row DIA-03)."""

from __future__ import annotations

from collections.abc import Iterable


def distance(a: str, b: str, limit: int = 3) -> int:
    """Edits between two words (a swap of neighbours is one); ``limit`` when it is at least that."""
    if abs(len(a) - len(b)) >= limit:
        return limit
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row, older = row, [i], before
        for j, right in enumerate(b, 1):
            best = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                best = min(best, older[j - 2] + 1)
            row.append(best)
        before = above
    return min(row[-1], limit)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate nearest to ``word`` within two edits (one for short words), or None."""
    limit = 3 if len(word) > 3 else 2
    best, best_distance = None, limit
    for candidate in sorted(candidates):
        found = distance(word.lower(), candidate.lower(), limit)
        if found < best_distance:
            best, best_distance = candidate, found
    return best


def did_you_mean(word: str, candidates: Iterable[str], prefix: str = "") -> str:
    """`` (did you mean X?)`` or nothing."""
    found = nearest(word, candidates)
    return f" (did you mean {prefix}{found}?)" if found else ""
