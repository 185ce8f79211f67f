"""Which step of an earlier build each step of a build corresponds to, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Step = tuple[str, str]


def match_steps(now: Sequence[str], earlier: Sequence[str]) -> dict[int, int]:
    """The position of each step's counterpart among ``earlier``; steps without one are left out.

    Steps correspond when stage and text are the same; then, of what remains, when the text is the same in
    another stage; then, when they are the same instruction in the same stage between the same neighbours,
    those with the most similar texts first.
    """
    new, old = [_step(name) for name in now], [_step(name) for name in earlier]
    pairs = _equal(new, old, {})
    pairs = _equal([("", text) for _, text in new], [("", text) for _, text in old], pairs)
    for position, candidate in _similar(new, old, pairs):
        if position not in pairs and candidate not in pairs.values() and _fits(pairs, position, candidate):
            pairs[position] = candidate
    return pairs


def text_of(name: str) -> str:
    """A step's name without its stage and number."""
    return _step(name)[1]


def stage_of(name: str) -> str:
    """The stage that a step's name begins with, and the platform, if the build had several."""
    return _step(name)[0]


def _equal(new: Sequence[Step], old: Sequence[Step], pairs: Mapping[int, int]) -> dict[int, int]:
    """``pairs``, and those of what remains that are equal, in order."""
    found, used = dict(pairs), set(pairs.values())
    waiting: dict[Step, list[int]] = {}
    for position, step in enumerate(old):
        if position not in used:
            waiting.setdefault(step, []).append(position)
    for position, step in enumerate(new):
        if position not in found and waiting.get(step):
            found[position] = waiting[step].pop(0)
    return found


def _similar(new: Sequence[Step], old: Sequence[Step], pairs: Mapping[int, int]) -> list[tuple[int, int]]:
    """What could correspond, the most similar first."""
    used = set(pairs.values())
    found = []
    for position, (stage, text) in enumerate(new):
        if position in pairs:
            continue
        for candidate, (other_stage, other) in enumerate(old):
            if candidate in used or stage != other_stage or text.split(" ")[0] != other.split(" ")[0]:
                continue
            found.append((-_shared(text, other), position, candidate))
    return [(position, candidate) for _, position, candidate in sorted(found)]


def _shared(one: str, other: str) -> int:
    """How many characters two texts share at their ends."""
    shortest = min(len(one), len(other))
    head = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    rest = shortest - head
    return head + next((i for i in range(rest) if one[-1 - i] != other[-1 - i]), rest)


def _fits(pairs: Mapping[int, int], position: int, candidate: int) -> bool:
    """Whether nothing that stands before goes with something behind, nor the other way round."""
    return all((new < position) == (old < candidate) for new, old in pairs.items())


def _step(name: str) -> Step:
    """Stage and text of ``[build 2/3] RUN make``; the numbers do not count."""
    if not name.startswith("["):
        return "", name
    label, _, text = name[1:].partition("] ")
    words = [word for word in label.split() if "/" not in word or not word.replace("/", "").isdigit()]
    return " ".join(words), text
