"""RUN --mount: one comma-separated text → a checked value (section 8 of the rows)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from builder.frontend.errors import BadFlag, DockerfileError, suggestion
from builder.frontend.parts import field, value_of

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARINGS = ("shared", "private", "locked")
ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
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


def check_mounts(texts: Iterable[str]) -> tuple[str, ...]:
    """Check what can be checked before variables are known; what each mount is from. Raises BadFlag."""
    sources: list[str] = []
    for index, text in enumerate(texts):
        try:
            if "$" not in text:
                parse_mount(text)
            sources.append(mount_source(text))
        except BadFlag as error:
            locate_mount(error, index)
            raise
    return tuple(sources)


def mount_source(text: str) -> str:
    """The ``from`` of a mount, "" when there is none; it takes no variables (MNT-05)."""
    found = mount_field(text, "from")
    if "$" in found:
        message = "'from' doesn't support variable expansion, define alias stage instead"
        raise BadFlag(message, part=field("from"))
    return found


def locate_mount(error: DockerfileError, index: int) -> None:
    """Say which mount of its instruction an error is about: one of its fields, or all of it."""
    part = error.part
    if part is None:
        error.part = value_of("mount", index)
    elif not part.instruction:
        error.part = part._replace(nth=index, kind="field-value" if part.kind == "text" else part.kind)


def mount_field(text: str, name: str) -> str:
    """The first field of that name of a mount as typed, "" when there is none; for messages."""
    return next((value for key, value, _ in _fields(text) if key == name), None) or ""


def parse_mount(text: str, expand: Callable[[str], str] = str) -> MountSpec:
    """Read a mount, its values passed through ``expand``; raises BadFlag."""
    given: dict[str, str | None] = {}
    for key, value, typed in _fields(text):
        if value is not None and key != "from":
            value = expand(value)
        if value is None and key not in _SWITCHES:
            message = f"invalid field '{typed}' must be a key=value pair"
            raise BadFlag(message, part=field(key, "field"))
        given[key] = value
    kind = (given.get("type", "bind") or "").lower()
    if kind not in TYPES:
        message = f'unsupported mount type "{kind}"{suggestion(kind, TYPES)}'
        raise BadFlag(message, part=field("type"))
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
    for typed in split_csv(text):
        key, equals, value = typed.partition("=")
        key = key.lower()
        key = ALIASES.get(key, key)
        if key not in _KEYS:
            known = (*_KEYS, *ALIASES)
            message = f"unexpected key '{key}' in '{typed}'{suggestion(key, known)}"
            raise BadFlag(message, part=field(key, "field-name"))
        found.append((key, value if equals else None, typed))
    return found


def split_csv(text: str) -> list[str]:
    """One CSV record: fields may stand in double quotes, a doubled quote is one."""
    if '"' not in text:
        return text.split(",")
    fields: list[str] = []
    position = 0
    while True:
        if text.startswith('"', position):
            found, position = _quoted(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            found, position = text[position:end], end
            if '"' in found:
                raise BadFlag(f'failed to parse csv mounts: bare " in non-quoted field: {text[:200]}')
        fields.append(found)
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
        raise BadFlag(f"unexpected key 'size' for mount type '{kind}'", part=field("size", "field"))
    if "required" in given and kind not in ("secret", "ssh"):
        message = f"unexpected key 'required' for mount type '{kind}'"
        raise BadFlag(message, part=field("required", "field"))
    order = list(given)
    for key in ("size", "required"):
        if key in given and "type" in given and order.index(key) < order.index("type"):
            message = f"unexpected key '{key}' for mount type 'bind'"
            raise BadFlag(message, part=field(key, "field"), hint=f"put type={kind} before {key}")
    if "env" in given and kind != "secret":
        raise BadFlag(f"unexpected key 'env' for mount type '{kind}'", part=field("env", "field"))
    for key in ("mode", "uid", "gid"):
        if key in given and kind not in ("secret", "ssh", "cache"):
            raise BadFlag(f'{key} not allowed for "{kind}" type mounts', part=field(key, "field"))


def _sharing(given: dict[str, str | None]) -> str:
    value = (given.get("sharing") or "").lower()
    if "sharing" in given and value not in SHARINGS:
        message = f'unsupported sharing value "{value}"{suggestion(value, SHARINGS)}'
        raise BadFlag(message, part=field("sharing"))
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
    raise BadFlag(f"invalid value for {key}: {value[:80]}", part=field(key))


def _number(key: str, given: dict[str, str | None], base: int) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    valid = 0 < len(value) <= 11 and all(c in digits for c in value)
    number = int(value, base) if valid else -1
    if not 0 <= number < 1 << 32:
        raise BadFlag(f"invalid value {value[:80]} for {key}", part=field(key))
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
        raise BadFlag(f"invalid value for size: {text[:80]}", part=field("size"))
    return int(float(digits) * _SUFFIXES[suffix]) if dot else int(whole) * _SUFFIXES[suffix]


def _check_types(spec: MountSpec) -> MountSpec:
    kind = spec.type
    if kind == "secret":
        if spec.from_:
            raise BadFlag("secret mount should not have a from", part=field("from", "field"))
        if spec.sharing:
            raise BadFlag("secret mount should not define sharing", part=field("sharing", "field"))
        if spec.source and spec.id:
            raise BadFlag("both source and id can't be set", part=field("id", "field"))
        if not spec.source and not spec.target and not spec.id:
            raise BadFlag("invalid secret mount. one of source, target required")
        return spec._replace(id=spec.id or spec.source, source="")
    if kind == "ssh" and spec.source:
        raise BadFlag("ssh does not support source", part=field("source", "field"))
    if spec.sharing and kind != "cache":
        raise BadFlag(f"invalid cache sharing set for {kind} mount", part=field("sharing", "field"))
    return spec
