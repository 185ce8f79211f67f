"""What fuzzing found stays found: every input kept in ``corpus`` is run again, then a few seconds of random ones.

The random ones come from fixed seeds: pieces of the kept inputs, of the golden Dockerfiles and of the target's
words. The long run, guided by coverage, is ``make soak``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import SECONDS_PER_INPUT, TARGETS, WORDS, check

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
GOLDEN = HERE.parent / "golden"
TIMES = {"converter": 600, "parser": 1000}
KEPT = sorted(path for name in TARGETS for path in (CORPUS / name).glob("*"))


class TooSlow(BaseException):
    """An input took longer than it may; no handler of errors swallows this."""


@contextlib.contextmanager
def time_limit(seconds, what):
    def late(_number, _frame):
        raise TooSlow(f"more than {seconds} s for {what!r}")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_every_target_has_words_and_a_corpus():
    assert set(WORDS) == set(TARGETS)
    assert {path.parent.name for path in KEPT} == set(TARGETS)
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_kept_input(path):
    with time_limit(SECONDS_PER_INPUT, path.name):
        check(path.parent.name, path.read_bytes())


def material(name):
    """What random inputs are made of."""
    found = [path.read_bytes() for path in KEPT if path.parent.name == name]
    if name in ("scanner", "parser", "converter"):
        found += [path.read_bytes() for path in sorted(GOLDEN.rglob("Dockerfile"))]
    return found or [b""]


def mutated(rng, samples, words):
    """One input: a sample, a piece of another, with some damage."""
    data = bytearray(rng.choice(samples))
    if rng.random() < 0.3:
        data += rng.choice(samples)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            del data[at : at + rng.randrange(1, 30)]
        elif kind in (1, 2):
            data[at:at] = rng.choice(words).encode()
        elif kind == 3:
            data[at:at] = bytes([rng.randrange(256)])
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randrange(1, 40)]
    return bytes(data[:4096])


@pytest.mark.property
@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs(name):
    rng = random.Random(f"frontend {name}")
    samples = material(name)
    for number in range(TIMES.get(name, 6000)):
        data = mutated(rng, samples, WORDS[name])
        try:
            with time_limit(SECONDS_PER_INPUT, data):
                check(name, data)
        except (Exception, TooSlow) as error:
            raise AssertionError(f"input {number}, to be kept in {CORPUS / name}: {data!r}") from error


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(name):
    """``PYBUILD_FUZZ_SECONDS`` for each target; what breaks it is left in its corpus. Fails without atheris."""
    seconds = int(os.environ.get("PYBUILD_FUZZ_SECONDS", "180"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
