"""Devices by name: Container Device Interface specifications of this machine (row EXE-29).

A specification is a JSON or YAML file in ``/etc/cdi`` or ``/var/run/cdi`` that says what a container needs to
use a device: variables, mounts, nodes. Hooks are not run.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.spec import BindMount, Device, Mount, TmpfsMount

SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")
AUTO_ALLOW = "org.mobyproject.buildkit.device.autoallow"
CLASS = "org.mobyproject.buildkit.device.class"
_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What a container gets. ``hooks`` counts those that should run and do not."""

    env: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    groups: tuple[str, ...] = ()
    hooks: int = 0

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            env=(*self.env, *other.env),
            mounts=(*self.mounts, *other.mounts),
            devices=(*self.devices, *other.devices),
            groups=(*self.groups, *other.groups),
            hooks=self.hooks + other.hooks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiDevice:
    """A device with its full name ``vendor/class=name``."""

    name: str
    spec: dict[str, Any] = field(repr=False)
    device: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """``vendor/class``."""
        return self.name.partition("=")[0]

    def note(self, key: str) -> str:
        """An annotation of the device, or of its specification."""
        for holder in (self.device, self.spec):
            notes = holder.get("annotations")
            if isinstance(notes, dict) and key in notes:
                return str(notes[key])
        return ""


class Registry:
    """All devices of some directories; a later directory replaces a device of an earlier one.

    ``unread`` says of each file that could not be used why not.
    """

    def __init__(self, dirs: Iterable[str] = SPEC_DIRS) -> None:
        self.devices: dict[str, CdiDevice] = {}
        self.unread: list[str] = []
        for directory in dirs:
            self._read_dir(Path(directory))

    def find(self, name: str) -> tuple[CdiDevice, ...]:
        """What a request means: one device by its name, ``kind=*`` all, ``kind`` the first, or a class."""
        exact = self.devices.get(name)
        if exact is not None:
            return (exact,)
        kind, equals, rest = name.partition("=")
        of_kind = tuple(device for _, device in sorted(self.devices.items()) if device.kind == kind)
        if equals:
            return of_kind if rest == "*" else ()
        if of_kind:
            return of_kind[:1]
        return tuple(device for _, device in sorted(self.devices.items()) if device.note(CLASS) == name)

    def edits(self, devices: Iterable[CdiDevice]) -> Edits:
        """What a container with these devices needs; what a specification says in general counts once.

        Raises ValueError when a specification is wrong.
        """
        found = Edits()
        seen: list[dict[str, Any]] = []
        for device in devices:
            if not any(device.spec is known for known in seen):
                seen.append(device.spec)
                found += _edits(device.spec.get("containerEdits"), device.name)
            found += _edits(device.device.get("containerEdits"), device.name)
        return found

    def _read_dir(self, directory: Path) -> None:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            return
        here: dict[str, CdiDevice] = {}
        for name in names:
            if not name.endswith((".json", ".yaml", ".yml")):
                continue
            try:
                self._read(directory / name, here)
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self.unread.append(f"{directory / name}: {error}")
        self.devices.update(here)

    def _read(self, path: Path, here: dict[str, CdiDevice]) -> None:
        with path.open("rb") as file:
            data = file.read(_LIMIT)
        spec = json.loads(data) if path.suffix == ".json" else _yaml(data)
        kind = spec["kind"]
        vendor, slash, sort = kind.partition("/")
        if not vendor or not slash or not sort:
            raise ValueError(f"kind {kind!r} is not vendor/class")
        for device in spec["devices"]:
            name = f"{kind}={device['name']}"
            if name in here:
                raise ValueError(f"{name} is defined twice")
            here[name] = CdiDevice(name=name, spec=spec, device=device)


def _yaml(data: bytes) -> Any:
    """YAML of plain values; raises ValueError."""
    try:
        import yaml  # slow to import, and seldom needed
    except ImportError as error:
        raise ValueError("YAML is read with PyYAML, which is not installed") from error
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no valid YAML: {error}") from error


def _edits(value: Any, name: str) -> Edits:
    if not value:
        return Edits()
    try:
        return Edits(
            env=tuple(str(item) for item in value.get("env") or ()),
            mounts=tuple(_mount(item) for item in value.get("mounts") or ()),
            devices=tuple(_node(item) for item in value.get("deviceNodes") or ()),
            groups=tuple(str(int(item)) for item in value.get("additionalGids") or ()),
            hooks=len(value.get("hooks") or ()),
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"the CDI specification of {name} cannot be used: {error}") from error


def _mount(item: dict[str, Any]) -> Mount:
    options = {str(option) for option in item.get("options") or ()}
    target = _absolute(item["containerPath"])
    if item.get("type") == "tmpfs":
        return TmpfsMount(target=target, readonly="ro" in options, noexec="noexec" in options)
    return BindMount(
        target=target,
        source=_absolute(item["hostPath"]),
        readonly="ro" in options,
        nosuid="nosuid" in options,
        nodev="nodev" in options,
        noexec="noexec" in options,
    )


def _absolute(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def _node(item: dict[str, Any]) -> Device:
    """A node; numbers and mode that are not given are those of the host's node."""
    path = _absolute(item["path"])
    host = _absolute(item.get("hostPath") or path)
    kind, major, minor = item.get("type") or "", item.get("major"), item.get("minor")
    mode = item.get("fileMode")
    if kind not in ("b", "c", "u") or major is None or minor is None or mode is None:
        try:
            info = os.stat(host)
        except OSError as error:
            raise ValueError(f"{host}: {error.strerror}") from error
        if not stat.S_ISCHR(info.st_mode) and not stat.S_ISBLK(info.st_mode):
            raise ValueError(f"{host} is not a device")
        kind = kind or ("c" if stat.S_ISCHR(info.st_mode) else "b")
        major = os.major(info.st_rdev) if major is None else major
        minor = os.minor(info.st_rdev) if minor is None else minor
        mode = stat.S_IMODE(info.st_mode) if mode is None else mode
    return Device(
        path=path,
        type="b" if kind == "b" else "c",
        major=int(major),
        minor=int(minor),
        mode=int(mode) & 0o777,
        uid=int(item.get("uid") or 0),
        gid=int(item.get("gid") or 0),
        access=str(item.get("permissions") or "rwm"),
    )
