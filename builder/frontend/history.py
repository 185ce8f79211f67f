"""Texts of image history entries (rows HIS-02…05): how Go prints lists and quoted strings."""

from __future__ import annotations

from collections.abc import Iterable

from builder.frontend.durations import format_duration
from builder.oci.config import HealthCheck

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(text: str) -> str:
    """A string as Go's ``%q`` prints it."""
    if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text:
        return f'"{text}"'
    return '"' + "".join(_quote_char(c) for c in text) + '"'


def _quote_char(char: str) -> str:
    found = _ESCAPES.get(char)
    if found is not None:
        return found
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted_list(items: Iterable[str]) -> str:
    """``["a" "b"]``."""
    return f"[{' '.join(quote(item) for item in items)}]"


def plain_list(items: Iterable[str]) -> str:
    """``[a b]``."""
    return f"[{' '.join(items)}]"


def healthcheck_text(check: HealthCheck) -> str:
    """``{Test:[…] Interval:30s …}``."""
    return (
        f"{{Test:{plain_list(check.test)} Interval:{format_duration(check.interval_ns)}"
        f" Timeout:{format_duration(check.timeout_ns)} StartPeriod:{format_duration(check.start_period_ns)}"
        f" StartInterval:{format_duration(check.start_interval_ns)} Retries:{check.retries}}}"
    )


def run_text(args: Iterable[str], build_args: Iterable[tuple[str, str]]) -> str:
    """``RUN |2 a=1 b=2 /bin/sh -c make # buildkit`` (HIS-02)."""
    pairs = [f"{key}={value}" for key, value in build_args]
    counted = [f"|{len(pairs)}", *pairs] if pairs else []
    return " ".join(["RUN", *counted, *args, "# buildkit"])


def copy_text(
    name: str,
    sources: Iterable[str],
    dest: str,
    *,
    parents: bool = False,
    chown: str = "",
    chmod: str = "",
) -> str:
    """``COPY --chown=… src… dest # buildkit`` (HIS-03)."""
    parts = [name]
    if parents:
        parts.append("--parents")
    if chown:
        parts.append(f"--chown={chown}")
    if chmod:
        parts.append(f"--chmod={chmod}")
    return " ".join([*parts, *sources, dest, "# buildkit"])
