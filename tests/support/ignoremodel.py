"""The language of ignore files, as slowly and plainly as it can be said: the model the matcher is held against."""

from __future__ import annotations

from functools import cache


def excluded(patterns, path):
    """Whether ``path`` is left out: the last pattern that matches it, or a directory above it, decides."""
    found = False
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for pattern in patterns:
        if any(matches(pattern.removeprefix("!"), name) for name in above):
            found = not pattern.startswith("!")
    return found


def matches(pattern, name):
    """One cleaned pattern against one whole name: every way to split the name is tried."""
    if is_suffix(pattern):
        tail = pattern[2:]
        return name.endswith(tail) or "/" + name == tail

    @cache
    def step(p, n):
        if p == len(pattern):
            return n == len(name)
        char, following = pattern[p], p + 1
        if pattern.startswith("**", p):
            following = p + 2
            if pattern.startswith("/", following):
                following += 1
            if following == len(pattern):
                return True
            # nothing, or whole directories
            return step(following, n) or any(
                name[i] == "/" and step(following, i + 1) for i in range(n, len(name))
            )
        if char == "*":
            return step(following, n) or (n < len(name) and name[n] != "/" and step(p, n + 1))
        if char == "?":
            return n < len(name) and name[n] != "/" and step(following, n + 1)
        if char == "[":
            inside, following = bracket(pattern, p)
            return n < len(name) and name[n] != "/" and inside(name[n]) and step(following, n + 1)
        if char == "\\":
            char, following = pattern[p + 1], p + 2
        return n < len(name) and name[n] == char and step(following, n + 1)

    return step(0, 0)


def is_suffix(pattern):
    """``**`` at the very front and nothing special behind it: compared with the end of the name."""
    return pattern.startswith("**") and not set(pattern[2:]) & set("*?[]\\")


def bracket(pattern, p):
    """A test for ``[a-z]`` or ``[^a-z]`` at ``p``, and the position behind it."""
    p += 1
    negated = pattern.startswith("^", p)
    p += negated
    ranges = []
    while pattern[p] != "]" or not ranges:
        low, p = bracket_char(pattern, p)
        high = low
        if pattern.startswith("-", p):
            high, p = bracket_char(pattern, p + 1)
        ranges.append((low, high))
    return (lambda char: negated != any(low <= char <= high for low, high in ranges)), p + 1


def bracket_char(pattern, p):
    p += pattern[p] == "\\"
    return pattern[p], p + 1
