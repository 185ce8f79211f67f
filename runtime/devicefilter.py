"""The device rules of a container: which nodes may be made and opened.

On cgroup version 2 they are a small eBPF program attached to the container's group, on version 1 lines
written to the devices controller. Without either, a container must not be able to use device nodes of its
root at all.
"""

from __future__ import annotations

import struct

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}
_KIND = {"b": 1, "c": 2}

ANY = -1
Rule = tuple[str, int, int, str]
"""(``c`` or ``b``, major, minor, subset of ``rwm``); ANY for every number."""

DEFAULT: tuple[Rule, ...] = (
    ("c", ANY, ANY, "m"),
    ("b", ANY, ANY, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, ANY, "rwm"),
)
"""Making nodes is allowed (an image may contain them); opening is for the standard set (EXE-08)."""

_loaded: dict[tuple[Rule, ...], int] = {}


def prepare(rules: tuple[Rule, ...]) -> None:
    """Load the program of ``rules`` for a later ``attach``, where that can be done."""
    try:
        _loaded[rules] = _load(program(rules))
    except OSError:
        pass  # said by attach


def attach(group_fd: int, rules: tuple[Rule, ...]) -> None:
    """Enforce ``rules`` on a version 2 group; OSError where the kernel or our privileges do not allow it."""
    from runtime.syscalls.linux import bpf

    if rules not in _loaded:
        _loaded[rules] = _load(program(rules))
    bpf(_PROG_ATTACH, struct.pack("<IIII", group_fd, _loaded[rules], _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))


def lines(rules: tuple[Rule, ...]) -> list[str]:
    """The same rules as version 1's ``devices.allow`` takes them, one per write."""
    return [f"{kind} {_text(major)}:{_text(minor)} {access}" for kind, major, minor, access in rules]


def _text(number: int) -> str:
    return "*" if number == ANY else str(number)


def program(rules: tuple[Rule, ...]) -> bytes:
    """eBPF that returns 1 for what a rule allows.

    The context is three words: access << 16 | kind, major, minor.
    """
    code = [
        _insn(0x61, 2, 1, 0),  # r2 = word 0
        _insn(0xBF, 3, 2),  # r3 = r2
        _insn(0x54, 2, 0, 0, 0xFFFF),  # r2 &= 0xffff: kind
        _insn(0x74, 3, 0, 0, 16),  # r3 >>= 16: access
        _insn(0x61, 4, 1, 4),  # r4 = major
        _insn(0x61, 5, 1, 8),  # r5 = minor
    ]
    for rule in rules:
        code += _rule(rule)
    code += [_insn(0xB7, 0, 0, 0, 0), _insn(0x95)]  # return 0
    return b"".join(code)


def _rule(rule: Rule) -> list[bytes]:
    kind, major, minor, access = rule
    denied = 7 & ~sum(_ACCESS[letter] for letter in access)
    allow = [_insn(0xB7, 0, 0, 0, 1), _insn(0x95)]  # return 1
    tests: list[tuple[int, int, int]] = [(0x55, 2, _KIND[kind])]  # if r2 != kind goto next
    if denied:
        tests.append((0x45, 3, denied))  # if r3 & denied goto next
    if major != ANY:
        tests.append((0x55, 4, major))
    if minor != ANY:
        tests.append((0x55, 5, minor))
    total = len(tests) + len(allow)
    jumps = [_insn(op, reg, 0, total - i - 1, value) for i, (op, reg, value) in enumerate(tests)]
    return [*jumps, *allow]


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def _load(code: bytes) -> int:
    from runtime.syscalls.linux import address_of, bpf

    instructions, keep_code = address_of(code)
    licence, keep_licence = address_of(b"GPL\0")
    attr = struct.pack(
        "<IIQQIIQII", _TYPE_CGROUP_DEVICE, len(code) // 8, instructions, licence, 0, 0, 0, 0, 0
    )
    fd = bpf(_PROG_LOAD, attr)
    del keep_code, keep_licence
    return fd
