"""RUN --mount: one comma-separated text → a checked value (section 8 of the rows)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from builder.frontend.errors import BadFlag, suggestion

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARINGS = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = frozenset(
    {
        "type",
        "from",
        "source",
        "target",
        "readonly",
        "readwrite",
        "required",
        "id",
        "sharing",
        "size",
        "mode",
        "uid",
        "gid",
        "env",
    }
)
_SWITCHES = frozenset({"readonly", "readwrite", "required"})


class MountSpec(NamedTuple):
    """A mount as asked for; None and "" are "not given"."""

    type: str = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = True
    required: bool = False
    id: str = ""
    sharing: str = ""
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


def check_mount(text: str) -> None:
    """Check what can be checked before variables are known; raises BadFlag."""
    if "$" in text:
        _fields(text)
        mount_source(text)
    else:
        parse_mount(text)


def mount_source(text: str) -> str:
    """The ``from`` of a mount, "" when there is none; it takes no variables (MNT-05)."""
    found = next((value for key, value, _ in _fields(text) if key == "from"), None) or ""
    if "$" in found:
        raise BadFlag("'from' doesn't support variable expansion, define alias stage instead")
    return found


def mount_target(text: str) -> str:
    """The ``target`` of a mount as typed, for messages."""
    return next((value for key, value, _ in _fields(text) if key == "target"), None) or ""


def parse_mount(text: str, expand: Callable[[str], str] = str) -> MountSpec:
    """Read a mount, its values passed through ``expand``; raises BadFlag."""
    given: dict[str, str | None] = {}
    for key, value, typed in _fields(text):
        if value is not None and key != "from":
            value = expand(value)
        if value is None and key not in _SWITCHES:
            raise BadFlag(f"invalid field '{typed}' must be a key=value pair")
        given[key] = value
    kind = (given.get("type", "bind") or "").lower()
    if kind not in TYPES:
        raise BadFlag(f'unsupported mount type "{kind}"{suggestion(kind, TYPES)}')
    _check_keys(kind, given)
    spec = MountSpec(
        type=kind,
        from_=given.get("from") or "",
        source=given.get("source") or "",
        target=given.get("target") or "",
        readonly=_readonly(kind, given),
        required=_switch("required", given) if "required" in given else False,
        id=given.get("id") or "",
        sharing=_sharing(given),
        size_bytes=_size(given.get("size")),
        mode=_number("mode", given, 8),
        uid=_number("uid", given, 10),
        gid=_number("gid", given, 10),
        env=given.get("env"),
    )
    return _check_types(spec)


def _fields(text: str) -> list[tuple[str, str | None, str]]:
    """(key, value, as typed) of each field; unknown keys are refused."""
    found: list[tuple[str, str | None, str]] = []
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        key = _ALIASES.get(key, key)
        if key not in _KEYS:
            known = (*_KEYS, *_ALIASES)
            raise BadFlag(f"unexpected key '{key}' in '{field}'{suggestion(key, known)}")
        found.append((key, value if equals else None, field))
    return found


def split_csv(text: str) -> list[str]:
    """One CSV record: fields may stand in double quotes, a doubled quote is one."""
    if '"' not in text:
        return text.split(",")
    fields: list[str] = []
    position = 0
    while True:
        if text.startswith('"', position):
            field, position = _quoted(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field, position = text[position:end], end
            if '"' in field:
                raise BadFlag(f'failed to parse csv mounts: bare " in non-quoted field: {text[:200]}')
        fields.append(field)
        if position >= len(text):
            return fields
        if text[position] != ",":
            raise BadFlag(
                f'failed to parse csv mounts: extraneous or missing " in quoted field: {text[:200]}'
            )
        position += 1


def _quoted(text: str, position: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = text.find('"', position)
        if end < 0:
            raise BadFlag(
                f'failed to parse csv mounts: extraneous or missing " in quoted field: {text[:200]}'
            )
        parts.append(text[position:end])
        if text.startswith('""', end):
            parts.append('"')
            position = end + 2
            continue
        return "".join(parts), end + 1


def _check_keys(kind: str, given: dict[str, str | None]) -> None:
    if "size" in given and kind != "tmpfs":
        raise BadFlag(f"unexpected key 'size' for mount type '{kind}'")
    if "required" in given and kind not in ("secret", "ssh"):
        raise BadFlag(f"unexpected key 'required' for mount type '{kind}'")
    if "env" in given and kind != "secret":
        raise BadFlag(f"unexpected key 'env' for mount type '{kind}'")
    for key in ("mode", "uid", "gid"):
        if key in given and kind not in ("secret", "ssh", "cache"):
            raise BadFlag(f'{key} not allowed for "{kind}" type mounts')


def _sharing(given: dict[str, str | None]) -> str:
    value = (given.get("sharing") or "").lower()
    if "sharing" in given and value not in SHARINGS:
        raise BadFlag(f'unsupported sharing value "{value}"{suggestion(value, SHARINGS)}')
    return value


def _readonly(kind: str, given: dict[str, str | None]) -> bool:
    """MNT-03; the later of ``ro`` and ``rw`` wins."""
    readonly = kind in ("bind", "secret", "ssh")
    for key in given:
        if key == "readonly":
            readonly = _switch(key, given)
        elif key == "readwrite":
            readonly = not _switch(key, given)
    return readonly


def _switch(key: str, given: dict[str, str | None]) -> bool:
    value = given[key]
    if value is None:
        return True
    lowered = value.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise BadFlag(f"invalid value for {key}: {value[:80]}")


def _number(key: str, given: dict[str, str | None], base: int) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 11 or any(c not in digits for c in value):
        raise BadFlag(f"invalid value {value[:80]} for {key}")
    number = int(value, base)
    if number >= 1 << 32:
        raise BadFlag(f"invalid value {value[:80]} for {key}")
    return number


_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def _size(text: str | None) -> int:
    """``64m`` and the like, 1024-based (MNT-11)."""
    if text is None:
        return 0
    number = text.strip().lower()
    if number.endswith("b"):
        number = number[:-1].removesuffix("i")
    suffix = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(suffix).strip() if suffix else number
    whole, dot, fraction = digits.partition(".")
    valid = whole.isascii() and whole.isdigit() and len(whole) < 20 and (not dot or fraction.isdigit())
    if suffix not in _SUFFIXES or not valid or len(fraction) > 20:
        raise BadFlag(f"invalid value for size: {text[:80]}")
    return int(float(digits) * _SUFFIXES[suffix]) if dot else int(whole) * _SUFFIXES[suffix]


def _check_types(spec: MountSpec) -> MountSpec:
    kind = spec.type
    if kind == "secret":
        if spec.from_:
            raise BadFlag("secret mount should not have a from")
        if spec.sharing:
            raise BadFlag("secret mount should not define sharing")
        if spec.source and spec.id:
            raise BadFlag("both source and id can't be set")
        if not spec.source and not spec.target and not spec.id:
            raise BadFlag("invalid secret mount. one of source, target required")
        return spec._replace(id=spec.id or spec.source, source="")
    if kind == "ssh" and spec.source:
        raise BadFlag("ssh does not support source")
    if spec.sharing and kind != "cache":
        raise BadFlag(f"invalid cache sharing set for {kind} mount")
    return spec
