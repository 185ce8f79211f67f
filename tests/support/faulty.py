"""Commands that fail at a chosen point: a process that forks one child per command line, with everything imported.

``python -m tests.support.faulty`` reads requests as JSON lines and answers each with a line. A request has ``argv``,
``fault`` (``none``, ``kill``, ``ENOSPC``, ``EIO``) and ``at``, the number of the fault point that it strikes
(``builder.cache.faults``). The answer has ``status`` (as of ``subprocess``), ``out``, ``err`` and, in order, the
``points`` that the command passed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

FULL = "database or disk is full"
BROKEN = "disk I/O error"
# Points behind an operation that has succeeded: a process may die there, but nothing can fail.
AFTERWARDS = (".committed", ".renamed", ".placed", ".named")


def serve() -> None:
    """Answer requests until standard input ends."""
    from builder.cache import faults
    from cli.main import main

    for line in sys.stdin:
        request = json.loads(line)
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as passed,
        ):
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                faults.hook = _hook(request["fault"], request["at"], passed.fileno())
                status = 70
                try:
                    status = main(request["argv"])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            _, wait = os.waitpid(child, 0)
            answer = {
                "status": os.waitstatus_to_exitcode(wait),
                "out": _text(out),
                "err": _text(err),
                "points": _text(passed).split(),
            }
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()


def _hook(fault: str, at: int, passed: int) -> Any:
    count = 0

    def hook(name: str) -> None:
        nonlocal count
        number = count
        count += 1
        os.write(passed, f"{name}\n".encode())
        if fault == "none" or number != at:
            return
        if fault != "kill" and name.endswith(AFTERWARDS):
            return
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("db."):
            raise sqlite3.OperationalError(FULL if fault == "ENOSPC" else BROKEN)
        code = getattr(errno, fault)
        raise OSError(code, os.strerror(code))

    return hook


def _text(file: Any) -> str:
    file.seek(0)
    data: bytes = file.read()
    return data.decode("utf-8", "replace")


def warm(root: Path) -> None:
    """Import what builds need, by building."""
    from cli.main import main

    (root / "context").mkdir()
    (root / "context/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    base = ["--root", str(root / "root")]
    devnull = os.open(os.devnull, os.O_WRONLY)
    saved = os.dup(2)
    os.dup2(devnull, 2)
    os.dup2(devnull, 1)
    main([*base, "build", "-q", "-t", "warm", str(root / "context")])
    os.dup2(saved, 2)


if __name__ == "__main__":
    answers = os.dup(1)
    with tempfile.TemporaryDirectory() as place:
        warm(Path(place))
    os.dup2(answers, 1)
    serve()
