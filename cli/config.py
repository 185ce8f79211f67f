"""The user's configuration file: what it may say, read strictly and handed on as values (CLI-08).

``docs/configuration.md`` describes it. A key that is not known, or a value of the wrong kind, is an error
that names the file and the line. Nothing here is imported unless there is a file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from builder.errors import UsageError
from cli.suggest import did_you_mean
from cli.units import duration_seconds, size_bytes

Pairs = tuple[tuple[str, str], ...]
MAX_BYTES = 1 << 20
SNAPSHOTTERS = ("auto", "overlay", "native")
_GC_SIZES = {"max-used": "size", "min-free": "size", "reserved": "size"}
_SCHEMA: dict[str, Any] = {
    "root": "text",
    "progress": "text",
    "max-parallelism": "count",
    "insecure-registries": "texts",
    "allow": "texts",
    "cdi-spec-dirs": "texts",
    "cgroup-parent": "text",
    "platforms": "texts",
    "snapshotter": SNAPSHOTTERS,
    "labels": {"*": "text"},
    "entitlements": {"allow": "texts", "deny": "texts"},
    "dns": {"nameservers": "texts", "search": "texts", "options": "texts"},
    "history": {"max-age": "duration", "max-entries": "count"},
    "proxies": {"http": "text", "https": "text", "ftp": "text", "no": "texts", "all": "text"},
    "gc": {
        "enabled": "bool",
        **_GC_SIZES,
        "policies": [{"all": "bool", "filters": "texts", "keep-duration": "duration", **_GC_SIZES}],
    },
    "registry": {
        "*": {
            "mirrors": "texts",
            "http": "bool",
            "insecure": "bool",
            "ca": "texts",
            "keypair": [{"key": "text", "cert": "text"}],
        }
    },
}
_WANTED = {
    "text": "text in quotes",
    "texts": "a list of texts",
    "bool": "true or false",
    "count": "a whole number that is not negative",
    "size": 'a size such as "10GB" or "20%"',
    "duration": 'a duration such as "48h" or "7d"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GcRule:
    """One clean-up rule; sizes are as written (``10GB``, ``20%``, empty = not said)."""

    all: bool = False
    filters: tuple[str, ...] = ()
    keep_duration_s: float = 0
    max_used: str = ""
    min_free: str = ""
    reserved: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GcConfig:
    """Table ``gc``: limits of the whole store, or ``policies`` in their place."""

    enabled: bool = True
    max_used: str = ""
    min_free: str = ""
    reserved: str = ""
    policies: tuple[GcRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEntry:
    """Table ``registry."HOST"``; ``http`` None = not said."""

    host: str
    mirrors: tuple[str, ...] = ()
    http: bool | None = None
    insecure: bool = False
    ca: str = ""
    key: str = ""
    cert: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All files taken together; what is not said is empty, 0 or None."""

    root: str = ""
    progress: str = ""
    max_parallelism: int = 0
    insecure_registries: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    cdi_dirs: tuple[str, ...] = ()
    cgroup_parent: str = ""
    platforms: tuple[str, ...] = ()
    snapshotter: str = ""
    labels: Pairs = ()
    nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    history_max_age_s: float | None = None
    history_max_entries: int | None = None
    proxies: Pairs = ()
    gc: GcConfig = GcConfig()
    registries: tuple[RegistryEntry, ...] = ()


def load(paths: tuple[str, ...]) -> Config:
    """The files that exist of ``paths``, a later one over an earlier one, key by key; raises UsageError.

    What one file denies, another cannot allow: ``entitlements.deny`` and ``allow`` are added up.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _merge(merged, read(path))
    return _config(merged)


def read(path: str) -> dict[str, Any]:
    """The checked content of one file; raises UsageError."""
    import tomllib

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"config file {path} is larger than {MAX_BYTES} bytes")
        text = data.decode("utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"config file {path}: nested too deeply", code="config-file") from error
    except ValueError as error:
        where = re.search(r" \(at line (\d+), column \d+\)\Z", str(error))
        said = str(error)[: where.start()] if where else str(error)
        place = f"{path}:{where[1]}" if where else path
        raise UsageError(f"config file {place}: {said}", code="config-file") from error
    _Checker(path, text).table(found, _SCHEMA, ())
    return found


class _Checker:
    """Compares one file with the schema; the first thing that is wrong is raised."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text

    def table(self, table: dict[str, Any], schema: dict[str, Any], at: tuple[str, ...]) -> None:
        for key, value in table.items():
            kind = schema.get(key, schema.get("*"))
            if kind is None:
                name = f"[{'.'.join(at)}] " if at else ""
                self._wrong((*at, key), f"unknown key {name}{key}{did_you_mean(key, list(schema))}")
            self._value(value, kind, (*at, key))

    def _value(self, value: Any, kind: Any, at: tuple[str, ...]) -> None:
        name = ".".join(at)
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                self._wrong(at, f"{name} must be a table: [{name}]")
            self.table(value, kind, at)
        elif isinstance(kind, list):
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                self._wrong(at, f"{name} must be a list of tables: [[{name}]]")
            for item in value:
                self.table(item, kind[0], at)
        elif isinstance(kind, tuple):
            if value not in kind:
                self._wrong(at, f"{name} must be one of {', '.join(kind)}")
        elif not _fits(value, kind):
            self._wrong(at, f"{name} must be {_WANTED[kind]}")

    def _wrong(self, at: tuple[str, ...], message: str) -> NoReturn:
        line = line_of(self._text, at)
        place = f"{self._path}:{line}" if line else self._path
        raise UsageError(f"config file {place}: {message}", code="config-file")


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "texts":
            return isinstance(value, str) or (
                isinstance(value, list) and all(isinstance(item, str) for item in value)
            )
        case "bool":
            return isinstance(value, bool)
        case "count":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        case "size":
            return _is_size(value)
        case _:
            return _is_duration(value)


def _is_size(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    if not isinstance(value, str):
        return False
    if value.endswith("%"):
        number = value[:-1].strip()
        return number.isdigit() and int(number) <= 100
    try:
        size_bytes(value)
    except UsageError:
        return False
    return True


def _is_duration(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    if not isinstance(value, str):
        return False
    try:
        duration_seconds(value)
    except UsageError:
        return False
    return True


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?\Z")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[\w.-])+)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*(?:\.|\Z)""")


def line_of(text: str, at: tuple[str, ...]) -> int:
    """The line, from 1, on which the key ``at`` first stands, or that of its table; 0 = not found."""
    table: tuple[str, ...] = ()
    best = 0
    for number, line in enumerate(text.splitlines(), 1):
        if found := _HEADER.match(line):
            table = _parts(found[1])
            here = table
        elif found := _KEY.match(line):
            here = (*table, *_parts(found[1]))
        else:
            continue
        if here[: len(at)] == at:
            return number
        if here and here == at[: len(here)]:
            best = number
    return best


def _parts(text: str) -> tuple[str, ...]:
    return tuple(next(part for part in found if part) for found in _PART.findall(text) if any(found))


def _merge(merged: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if key == "entitlements":
            known = merged.setdefault(key, {})
            for name, items in value.items():
                known[name] = [*_texts(known.get(name)), *_texts(items)]
        elif isinstance(value, dict):
            merged.setdefault(key, {}).update(value)
        else:
            merged[key] = value


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _size(value: Any) -> str:
    return "" if value is None else str(value)


def _seconds(value: Any) -> float:
    return duration_seconds(value) if isinstance(value, str) else float(value)


def _config(found: dict[str, Any]) -> Config:
    rights, dns, history = (found.get(name, {}) for name in ("entitlements", "dns", "history"))
    return Config(
        root=found.get("root", ""),
        progress=found.get("progress", ""),
        max_parallelism=found.get("max-parallelism", 0),
        insecure_registries=_texts(found.get("insecure-registries")),
        allow=(*_texts(found.get("allow")), *_texts(rights.get("allow"))),
        deny=_texts(rights.get("deny")),
        cdi_dirs=_texts(found.get("cdi-spec-dirs")),
        cgroup_parent=found.get("cgroup-parent", ""),
        platforms=_texts(found.get("platforms")),
        snapshotter=found.get("snapshotter", ""),
        labels=tuple(found.get("labels", {}).items()),
        nameservers=_texts(dns.get("nameservers")),
        dns_search=_texts(dns.get("search")),
        dns_options=_texts(dns.get("options")),
        history_max_age_s=_seconds(history["max-age"]) if "max-age" in history else None,
        history_max_entries=history.get("max-entries"),
        proxies=_proxies(found.get("proxies", {})),
        gc=_gc(found.get("gc", {})),
        registries=tuple(_registry(host, entry) for host, entry in found.get("registry", {}).items()),
    )


def _proxies(table: dict[str, Any]) -> Pairs:
    """As environment variables."""
    return tuple((f"{name.upper()}_PROXY", ",".join(_texts(value))) for name, value in table.items())


def _gc(table: dict[str, Any]) -> GcConfig:
    return GcConfig(
        enabled=table.get("enabled", True),
        max_used=_size(table.get("max-used")),
        min_free=_size(table.get("min-free")),
        reserved=_size(table.get("reserved")),
        policies=tuple(
            GcRule(
                all=rule.get("all", False),
                filters=_texts(rule.get("filters")),
                keep_duration_s=_seconds(rule.get("keep-duration", 0)),
                max_used=_size(rule.get("max-used")),
                min_free=_size(rule.get("min-free")),
                reserved=_size(rule.get("reserved")),
            )
            for rule in table.get("policies", ())
        ),
    )


def _registry(host: str, entry: dict[str, Any]) -> RegistryEntry:
    authorities, pairs = _texts(entry.get("ca")), entry.get("keypair", [])
    for count, name in ((len(authorities), "ca"), (len(pairs), "keypair")):
        if count > 1:
            raise UsageError(
                f'config file: registry "{host}" has {count} entries of {name}, one is possible',
                hint="put several certificates into one file",
                code="config-file",
            )
    pair: dict[str, str] = pairs[0] if pairs else {}
    return RegistryEntry(
        host=host,
        mirrors=_texts(entry.get("mirrors")),
        http=entry.get("http"),
        insecure=entry.get("insecure", False),
        ca=_place(authorities[0]) if authorities else "",
        key=_place(pair.get("key", "")),
        cert=_place(pair.get("cert", "")),
    )


def _place(text: str) -> str:
    return os.path.expanduser(text)
