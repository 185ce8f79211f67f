"""The short-cuts of a process of our own change nothing that can be seen."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from cli.lean import postpone_methods, start_lean
start_lean()
import inspect
before = "ast" in sys.modules
postpone_methods()
from dataclasses import FrozenInstanceError, dataclass, field, replace

@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    \"\"\"A value.\"\"\"
    a: int
    b: tuple[str, ...] = ()
    c: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if self.a < 0:
            raise ValueError("negative")

@dataclass(frozen=True, slots=True, kw_only=True)
class Child(Base):
    \"\"\"More.\"\"\"
    d: str = "x"

@dataclass(order=True)
class Plain:
    n: int
    s: str = ""

def check(condition):
    assert condition

child = Child(a=1, d="y")
check(repr(child) == "Child(a=1, b=(), d='y')")
check(child == Child(a=1, d="y") and child != Child(a=2, d="y") and child != Base(a=1))
check(hash(child) == hash(Child(a=1, d="y")))
check(replace(child, a=5).a == 5 and child.a == 1)
check(Base(a=1).c is not Base(a=1).c)
for wrong in (lambda: Base(a=-1), lambda: Base(1), lambda: Base(), lambda: Child(a=1, z=2)):
    try:
        wrong()
    except (ValueError, TypeError):
        continue
    raise AssertionError("accepted")
for change in (lambda: setattr(child, "a", 2), lambda: delattr(child, "a"), lambda: setattr(Base(a=1), "a", 3)):
    try:
        change()
    except FrozenInstanceError:
        continue
    raise AssertionError("changed")
check(Plain(1) < Plain(2) and Plain(1, "a") == Plain(1, "a") and sorted([Plain(3), Plain(1)])[0].n == 1)
plain = Plain(n=1); plain.n = 4; check(plain.n == 4)
check(Plain.__doc__ is not None)
check(inspect.signature(Plain.__init__) is not None and inspect.isclass(Plain))
check(not before)
"""


def test_postponed_methods_and_modules_behave_like_the_real_ones() -> None:
    _alone(CODE)


STAND_INS = """
from cli.lean import import_pathlib, postpone_methods, start_lean
start_lean()
import_pathlib()
postpone_methods()
import datetime, pathlib
assert "urllib.parse" not in sys.modules
assert pathlib.Path("/a b/\\xe9").as_uri() == "file:///a%20b/%C3%A9"
import copy, ntpath, urllib.parse
assert urllib.parse.quote("a b") == "a%20b"
assert copy.deepcopy([[1]]) == [[1]] and sys.modules["copy"] is not copy
assert ntpath.join("a", "b") == "a\\\\b" and pathlib.PureWindowsPath("c:/a").drive == "c:"
when = datetime.datetime.fromtimestamp(0, datetime.UTC)
assert when.isoformat() == "1970-01-01T00:00:00+00:00"
assert datetime.datetime.strptime("2020", "%Y").year == 2020
"""

RUN_PATH = """
from cli.lean import import_pathlib, postpone_methods, start_lean
start_lean()
import_pathlib()
postpone_methods()
import cli.acquire, cli.app, cli.commands.run, cli.container_options, cli.foreground, cli.process, cli.settings
import builder.cache.imagestore, builder.cache.overlay, builder.cache.store, builder.cache.trash
import builder.containers.creation, builder.containers.lifecycle, builder.containers.settling
import runtime.coupling
print(*sorted(sys.modules.keys() & {
    "asyncio", "ctypes", "hashlib", "ipaddress", "shutil", "signal", "socket", "subprocess", "tempfile", "typing",
    "urllib.parse", "weakref",
}))
"""


def _alone(code: str) -> str:
    """What ``code`` prints in an interpreter that has loaded nothing yet."""
    start = f"import sys; sys.path[:0]={sys.path!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stand_ins_turn_into_the_real_modules() -> None:
    _alone(STAND_INS)


def test_running_a_container_loads_nothing_heavy() -> None:
    """Each of these takes one to three of the 50 milliseconds that ``run`` has."""
    assert _alone(RUN_PATH).split() == []


def test_a_tracer_sees_the_end_of_the_process() -> None:
    code = (
        "import sys; from cli.lean import leave; sys.setprofile(lambda *a: None);"
        "leave(3); sys.setprofile(None); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "still here\n"
    code = "from cli.lean import leave; leave(3)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
