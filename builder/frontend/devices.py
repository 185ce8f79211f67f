"""RUN --device: a name, and whether the step needs it (row RUN-08)."""

from __future__ import annotations

import re

from builder.frontend.errors import BadFlag
from builder.frontend.mounts import split_csv
from builder.frontend.parts import Part
from builder.llb.ops import REQUIRED

__all__ = ["REQUIRED", "parse_device"]

_SWITCH = {"": True, "1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def parse_device(text: str) -> str:
    """``NAME[,required]`` or ``name=NAME,required=BOOL`` in its short form; raises BadFlag."""
    try:
        return _parse(text)
    except BadFlag as error:
        error.part = Part("flag-value", name="device", text=text)
        raise


def _parse(text: str) -> str:
    name, required = "", False
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            if value.lower() not in _SWITCH or (equals and not value):
                raise BadFlag(f"invalid value for required: {value[:80]}")
            required = _SWITCH[value.lower()]
        elif key == "name" and equals and not name:
            name = value
        elif not name and (not equals or "/" in key):
            name = field
        else:
            raise BadFlag(f"unexpected key '{key[:80]}' in '{field[:200]}'")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:=-]*", name):
        raise BadFlag(f"invalid device name {name[:200]!r}", hint="want VENDOR/CLASS=NAME")
    return name + (REQUIRED if required else "")
