"""The default-deny system call filter, equivalent to Docker's default profile (EXE-07).

A filter is a classic BPF program made here from the tables of ``seccomp_calls``: per architecture the numbers
become ranges with one answer each, and a balanced tree of comparisons finds the range, so that a call costs
about eight instructions. It is the same program for every container with the same capabilities, and is made
once per process.
"""

from __future__ import annotations

from runtime.syscalls import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.syscalls.protocol import Kernel

_LD_W_ABS, _JEQ, _JGE, _JSET, _JA, _RET = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_NR_OFFSET, _ARCH_OFFSET, _ARG0_OFFSET = 0, 4, 16

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
DENY = _ERRNO | 1
UNKNOWN = _ERRNO | 38
_PRETEND = _ERRNO
_ASK = 0x7FC00000

# machine: ((audit architecture, column of the table), ...), the native one first
_ARCHITECTURES = {
    "x86_64": ((0xC000003E, 0), (0x40000003, 1)),
    "aarch64": ((0xC00000B7, 2), (0x40000028, 3)),
}
_NAMESPACE_FLAGS = 0x7E020000
_AF_VSOCK = 40
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

_Code = list[tuple[int, int, int, int]]
_cache: dict[tuple[str, frozenset[str], str], bytes] = {}
# calls that change an owner: which argument is the user id, the group id is the next
_CHOWNS = {"chown": 1, "lchown": 1, "fchown": 1, "fchownat": 2, "chown32": 1, "lchown32": 1, "fchown32": 1}


def program(machine: str, capabilities: tuple[str, ...], chowns: str = "") -> bytes | None:
    """The filter for a machine (``uname -m``) and a capability set; None where we have no table.

    ``chowns``, for a namespace with a single id: ``pretend`` that a change of owner worked, or ``record`` it
    (``runtime.chowns`` answers).
    """
    if machine not in _ARCHITECTURES:
        return None
    from runtime import seccomp_calls

    key = machine, frozenset(capabilities).intersection(seccomp_calls.BY_CAPABILITY), chowns
    if key not in _cache:
        _cache[key] = _assemble(_program(*key))
    return _cache[key]


def load(kernel: Kernel, filter_program: bytes, *, listen: bool = False) -> int:
    """Put the filter on this process; needs SYS_ADMIN in its user namespace, or no_new_privs.

    ``listen`` returns the descriptor by which the calls that the filter asks about are answered.
    """
    wanted = c.SECCOMP_FILTER_FLAG_NEW_LISTENER if listen else 0
    try:
        return kernel.seccomp(filter_program, c.SECCOMP_FILTER_FLAG_SPEC_ALLOW | wanted)
    except OSError as error:
        if error.errno != 22:  # before 4.17 there are no such flags
            raise
        return kernel.seccomp(filter_program, wanted)


def chown_calls() -> dict[tuple[int, int], str]:
    """(audit architecture, number) of every call that changes an owner, by its plain name."""
    from runtime import seccomp_calls as calls

    found = {}
    for architectures in _ARCHITECTURES.values():
        for architecture, column in architectures:
            for name, number in _named(calls.ALLOWED, column):
                if name in _CHOWNS:
                    found[architecture, number] = name.removesuffix("32")
    return found


def answers(column: int, capabilities: frozenset[str], chowns: str = "") -> dict[int, str]:
    """What each number of one architecture gets: ``allow``, or the name of a call with conditions."""
    from runtime import seccomp_calls as calls

    found = dict.fromkeys(_numbers(calls.ALLOWED, column), "allow")
    for name, number in _named(calls.CONDITIONAL, column):
        found[number] = "allow" if name == "clone" and "SYS_ADMIN" in capabilities else name
        if name == "clone3" and "SYS_ADMIN" in capabilities:
            found[number] = "allow"
    for capability in capabilities:
        found.update(dict.fromkeys(_numbers(calls.BY_CAPABILITY[capability], column), "allow"))
    if chowns:
        for name, number in _named(calls.ALLOWED, column):
            if name in _CHOWNS:
                found[number] = "ask" if chowns == "record" else f"chown{_CHOWNS[name]}"
    return found


def _named(table: str, column: int) -> Iterable[tuple[str, int]]:
    for entry in table.split():
        name, _, numbers = entry.partition("=")
        columns = numbers.split(",")
        text = columns[0] if len(columns) == 1 else columns[column]
        if text:
            yield name, int(text)


def _numbers(table: str, column: int) -> list[int]:
    return [number for _, number in _named(table, column)]


def _program(machine: str, capabilities: frozenset[str], chowns: str) -> _Code:
    code: _Code = [(_LD_W_ABS, 0, 0, _ARCH_OFFSET)]
    for architecture, column in _ARCHITECTURES[machine]:
        body: _Code = [(_LD_W_ABS, 0, 0, _NR_OFFSET)]
        body += _search(_ranges(answers(column, capabilities, chowns)))
        code += [(_JEQ, 1, 0, architecture), (_JA, 0, 0, len(body)), *body]
    return [*code, (_RET, 0, 0, KILL_PROCESS)]


def _ranges(found: dict[int, str]) -> list[tuple[int, str]]:
    """(first number, answer) of each run of equal answers, covering every number."""
    from runtime.seccomp_calls import LAST_KNOWN

    points = {0: "deny", LAST_KNOWN + 1: "unknown"}
    for number in found:
        points.setdefault(number + 1, "unknown" if number >= LAST_KNOWN else "deny")
    points.update(found)
    merged: list[tuple[int, str]] = []
    for number in sorted(points):
        if not merged or merged[-1][1] != points[number]:
            merged.append((number, points[number]))
    return merged


def _search(ranges: list[tuple[int, str]]) -> _Code:
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    first = ranges[middle][0]
    if len(left) <= 255:
        return [(_JGE, len(left), 0, first), *left, *right]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(left)), *left, *right]


def _leaf(answer: str) -> _Code:
    argument = (_LD_W_ABS, 0, 0, _ARG0_OFFSET)
    allow, deny = (_RET, 0, 0, ALLOW), (_RET, 0, 0, DENY)
    if answer == "allow":
        return [allow]
    if answer == "deny":
        return [deny]
    if answer in {"unknown", "clone3"}:  # the C library falls back to clone, whose flags can be looked at
        return [(_RET, 0, 0, UNKNOWN)]
    if answer == "ask":
        return [(_RET, 0, 0, _ASK)]
    if answer.startswith("chown"):
        return _pretend(int(answer[-1]))
    if answer == "clone":
        return [argument, (_JSET, 0, 1, _NAMESPACE_FLAGS), deny, allow]
    if answer == "socket":
        return [argument, (_JEQ, 0, 1, _AF_VSOCK), deny, allow]
    assert answer == "personality", answer
    tests: _Code = [(_JEQ, len(_PERSONALITIES) - i, 0, value) for i, value in enumerate(_PERSONALITIES)]
    return [argument, *tests, deny, allow]


def _pretend(position: int) -> _Code:
    """A change to the one id there is, or to none, is real; any other seems to work."""
    code: _Code = []
    for argument in (position, position + 1):
        code += [
            (_LD_W_ABS, 0, 0, _ARG0_OFFSET + 8 * argument),
            (_JEQ, 2, 0, 0),
            (_JEQ, 1, 0, 0xFFFFFFFF),
            (_RET, 0, 0, _PRETEND),
        ]
    return [*code, (_RET, 0, 0, ALLOW)]


def _assemble(code: _Code) -> bytes:
    import struct

    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
