"""Errors as text or JSON: what failed, where, why, what to try. Nothing else turns an error into text.

An expected failure (PybuildError) is told in its own words. Anything else is a bug of ours: one line, and the
traceback with ``--debug``.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from typing import Any, TextIO

from builder.errors import Cancelled, PybuildError, SeveralFailed, SolveError, UsageError
from cli.render.snippet import Place, places_of, snippet
from cli.render.text import printable

BUG_STATUS = 70
_FULL = "free some space there (pybuild prune frees what builds keep)"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: "this process may open too few files at a time: raise ulimit -n, or lower --parallel",
    errno.ENFILE: "this machine has too many files open: raise fs.file-max",
}


def report(error: BaseException, *, debug: bool, form: str, stream: TextIO) -> int:
    """Write ``error`` to ``stream`` and return the exit status."""
    status = exit_status(error)
    if form == "json":
        stream.write(json.dumps(error_json(error, status)) + "\n")
    else:
        stream.write(error_text(error))
    if debug:
        stream.write(_traceback(error))
    stream.flush()
    return status


def exit_status(error: BaseException) -> int:
    """What the process exits with after ``error``: a full disk is no bug."""
    if isinstance(error, PybuildError):
        return error.exit_status
    return 1 if isinstance(error, (OSError, MemoryError)) else BUG_STATUS


def error_text(error: BaseException) -> str:
    """The error for people; ends with a newline."""
    if isinstance(error, PybuildError):
        return "".join(f"{line}\n" for line in _expected(error))
    if isinstance(error, OSError):
        hint = _HINTS.get(error.errno or 0)
        return f"pybuild: {_os_error(error)}\n" + (f"hint: {hint}\n" if hint else "")
    if isinstance(error, MemoryError):
        return "pybuild: out of memory\n"
    return (
        f"pybuild: bug: {type(error).__name__}: {printable(str(error))}\n"
        "hint: this is a fault of pybuild; run again with --debug and report what it shows\n"
    )


def _expected(error: PybuildError) -> Iterator[str]:
    if isinstance(error, Cancelled):
        yield f"ERROR: {printable(error.message)}"
        return
    if isinstance(error, SeveralFailed):
        for failure in error.failures:
            yield from _expected(failure)
            yield ""
        yield f"ERROR: {printable(error.message)}"
        return
    if isinstance(error, UsageError):
        yield f"pybuild: {printable(error.message)}"
        if error.context:
            yield ""
            yield from map(printable, error.context)
        if error.hint:
            yield ""
            yield printable(error.hint)
        return
    for place in places_of(error):
        yield from snippet(place)
    yield f"{_lead(error)}{printable(chain(error))}"
    yield from (f"  {printable(line)}" for line in _contexts(error))
    hint = next((found.hint for found in _links(error) if found.hint), None) or _root_hint(error)
    if hint:
        yield f"hint: {printable(hint)}"


def _root_hint(error: BaseException) -> str | None:
    """What to do about the system call behind it all."""
    hint = None
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        hint = _HINTS.get(getattr(link, "errno", None) or 0, hint)
        link = link.__cause__
    return hint


def _lead(error: PybuildError) -> str:
    """``ERROR: failed to solve: `` for what happens inside a build (DIA-01, ERR-01)."""
    solving = isinstance(error, SolveError) or hasattr(error, "span")
    return "ERROR: failed to solve: " if solving else "pybuild: "


def chain(error: PybuildError) -> str:
    """The message and those of its causes, outermost first, none said twice."""
    parts: list[str] = []
    for found in _links(error):
        if not any(found.message in part for part in parts):
            parts.append(found.message)
    return ": ".join(part for part in parts if part)


def _links(error: PybuildError) -> Iterator[PybuildError]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, PybuildError):
            yield link
        link = link.__cause__


def _contexts(error: PybuildError) -> tuple[str, ...]:
    lines: list[str] = []
    for found in _links(error):
        lines += (line for line in found.context if line not in lines)
    return tuple(lines)


def _os_error(error: OSError) -> str:
    if error.errno == errno.ENOENT and error.filename is None and _nowhere():
        return "the current directory has been removed"
    where = f"{printable(str(error.filename))}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _nowhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def error_json(error: BaseException, status: int) -> dict[str, Any]:
    """The error for tools: code, message, location, hint."""
    if not isinstance(error, PybuildError):
        code = "os-error" if isinstance(error, OSError) else "bug"
        message = _os_error(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return {"error": {"code": code, "message": message, "exit_status": status}}
    out: dict[str, Any] = {"code": _code(error), "message": chain(error), "exit_status": status}
    if contexts := _contexts(error):
        out["context"] = list(contexts)
    if hint := next((found.hint for found in _links(error) if found.hint), None):
        out["hint"] = hint
    if places := places_of(error):
        out["location"] = _place_json(places[0])
        if len(places) > 1:
            out["locations"] = [_place_json(place) for place in places]
    if exact := next(
        (found for found in (getattr(link, "range", None) for link in _links(error)) if found), None
    ):
        (line, column), (end_line, end_column) = exact
        out["range"] = {"line": line, "column": column, "end_line": end_line, "end_column": end_column}
    if isinstance(error, SeveralFailed):
        out["failures"] = [error_json(failure, exit_status(failure))["error"] for failure in error.failures]
    for found in _links(error):
        for key in ("vertex_name", "vertex_digest", "exit_code", "log_tail", "path", "status"):
            value = getattr(found, key, None)
            if value not in (None, "", ()):
                out.setdefault({"vertex_name": "step", "vertex_digest": "step_digest"}.get(key, key), value)
    return {"error": out}


def _code(error: PybuildError) -> str:
    """The most telling code: a plain solve-failed gives way to that of its cause."""
    for found in _links(error):
        if found.code not in ("solve-failed", "error"):
            return found.code
    return error.code


def _place_json(place: Place) -> dict[str, Any]:
    return {"file": place.filename, "start_line": place.first, "end_line": place.last}


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
