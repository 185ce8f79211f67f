"""Ids and names of new containers (CRE-03, CRE-04, CRE-05). The word lists are our own."""

from __future__ import annotations

import os
import re

from builder.containers.types import BadOption

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,253}\Z")

_MOODS = (
    "amber", "brisk", "calm", "clever", "cosy", "daring", "deft", "eager", "fair", "fleet", "fond",
    "gentle", "glad", "golden", "hardy", "humble", "jolly", "keen", "kind", "level", "light", "lively",
    "lucid", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "polite", "proud",
    "quick", "quiet", "ready", "rosy", "sharp", "shy", "silver", "snug", "sober", "solid", "spry", "steady",
    "still", "sunny", "swift", "tidy", "true", "vivid", "warm", "wary", "wise", "witty", "zesty",
)  # fmt: skip
_THINGS = (
    "adze", "anvil", "arch", "auger", "awl", "axle", "barge", "beam", "bellows", "bench", "bobbin", "bolt",
    "brace", "brick", "bridge", "burin", "caliper", "chisel", "clamp", "cog", "crane", "derrick", "dowel",
    "easel", "ferry", "file", "flange", "forge", "gable", "gantry", "gear", "gimlet", "girder", "hammer",
    "hinge", "hoist", "jig", "joist", "keel", "kiln", "ladder", "lathe", "lever", "loom", "mallet", "mast",
    "mortar", "needle", "oar", "peg", "pier", "pivot", "plane", "plumb", "pulley", "quay", "rafter",
    "ratchet", "rivet", "rudder", "saw", "scaffold", "screw", "shovel", "sluice", "spanner", "spindle",
    "spoke", "tenon", "thimble", "timber", "tongs", "trestle", "trowel", "truss", "turbine", "valve",
    "vise", "wedge", "wheel", "winch", "windlass", "wrench",
)  # fmt: skip


def new_id() -> str:
    """64 random hex digits; never one whose short form reads as a number."""
    while True:
        found = os.urandom(32).hex()
        if not found[:12].isdigit():
            return found


def random_name() -> str:
    """An adjective and a thing from the workshop."""
    first, second = os.urandom(2)
    return f"{_MOODS[first % len(_MOODS)]}_{_THINGS[second % len(_THINGS)]}"


def checked_name(name: str) -> str:
    """A name as the store keeps it, without the leading slash; BadOption when it has other characters."""
    if not _NAME.match(name):
        raise BadOption(
            f"invalid container name {name!r}",
            hint="names have letters, digits, '_', '.' and '-', and begin with a letter or digit",
            code="invalid-name",
        )
    return name.removeprefix("/")
