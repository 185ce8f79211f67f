"""The texts of docker's options as values: ``-v``, ``-p``, ``--device``, ``--ulimit``, ``--memory`` and
their kin.

Pure, apart from ``env_file`` and ``label_file`` which read a file, and ``volume``, which makes a relative
source absolute. Everything raises BadOption with the text that is wrong.
"""

from __future__ import annotations

import os
from pathlib import Path

from builder.containers.types import BadOption, DeviceRequest, PortRequest, Propagation, VolumeRequest
from runtime.spec import Rlimit
from runtime.specfile import RestartPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_MODES = frozenset({"ro", "rw", "z", "Z", "nocopy", "copy", "cached", "delegated", "consistent"})
_PROPAGATION = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_MAX_PORT = 65535
_MAX_PORTS = 65536
_RLIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def size(text: str) -> int:
    """Bytes from ``512``, ``512m``, ``1.5g``, ``64MB``, ``1GiB`` (ISO-15); -1 stays -1."""
    plain = text.strip().lower()
    if plain == "-1":
        return -1
    number = plain.rstrip("bi")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        value = float(number[: len(number) - len(unit)])
        found = int(value * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise BadOption(f"invalid size {text!r}", hint="for example 512m or 2g") from None
    if found < 0:
        raise BadOption(f"invalid size {text!r}")
    return found


def volume(text: str, *, cwd: Path | None = None) -> VolumeRequest:
    """``[SOURCE:]TARGET[:OPTIONS]`` (VOL-01); a source with a slash or a leading dot is a path."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise BadOption(f"invalid volume specification {text!r}")
    options = parts.pop() if len(parts) == 3 else ""
    if len(parts) == 2 and not parts[1].startswith("/") and _is_modes(parts[1]):
        options = parts.pop()
    source = parts.pop(0) if len(parts) == 2 else ""
    target = _target(parts[0], text)
    readonly, copy, propagation = _modes(options, text)
    if not source:
        return VolumeRequest(target=target, readonly=readonly, copy=copy)
    if source.startswith(("/", ".", "~")) or "/" in source:
        path = os.path.normpath(os.path.join(cwd or Path.cwd(), source))
        return VolumeRequest(
            target=target, source=path, kind="bind", readonly=readonly, propagation=propagation
        )
    return VolumeRequest(target=target, source=source, readonly=readonly, copy=copy)


def _target(path: str, text: str) -> str:
    found = os.path.normpath("/" + path) if path.startswith("/") else ""
    found = "/" + found.lstrip("/")
    if found == "/":
        raise BadOption(
            f"invalid volume specification {text!r}: the destination must be an absolute path, not /"
        )
    return found


def _is_modes(text: str) -> bool:
    return all(word in _MODES or word in _PROPAGATION for word in text.split(","))


def _modes(text: str, whole: str) -> tuple[bool, bool, Propagation]:
    readonly, copy = False, True
    propagation: Propagation = "rprivate"
    for word in text.split(",") if text else ():
        if word in _PROPAGATION:
            propagation = word  # type: ignore[assignment]  # one of them
        elif word not in _MODES:
            raise BadOption(f"invalid volume specification {whole!r}: unknown mode {word!r}")
        readonly = readonly or word == "ro"
        copy = copy and word != "nocopy"
    return readonly, copy, propagation


def mount(text: str, *, cwd: Path | None = None) -> VolumeRequest:
    """``type=bind,source=/a,target=/b,readonly`` and its forms (``--mount``)."""
    fields: dict[str, str] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        key = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(key, key)
        fields[key] = value
    kind = fields.pop("type", "volume")
    target = _target(fields.pop("target", ""), text)
    source = fields.pop("source", "")
    readonly = fields.pop("readonly", "false").lower() in ("", "1", "true")
    if kind == "bind":
        propagation = fields.pop("bind-propagation", "rprivate")
        if propagation not in _PROPAGATION:
            raise BadOption(f"invalid propagation {propagation!r} in {text!r}")
        fields.pop("bind-recursive", None)
        path = os.path.normpath(os.path.join(cwd or Path.cwd(), source))
        found = VolumeRequest(
            target=target,
            source=path,
            kind="bind",
            readonly=readonly,
            propagation=propagation,  # type: ignore[arg-type]  # one of them
            create_source=False,
        )
    elif kind == "tmpfs":
        found = VolumeRequest(
            target=target,
            kind="tmpfs",
            readonly=readonly,
            tmpfs_size=size(fields.pop("tmpfs-size", "0")),
            tmpfs_mode=_octal(fields.pop("tmpfs-mode", "1777"), text),
        )
    elif kind == "volume":
        copy = fields.pop("volume-nocopy", "false").lower() not in ("", "1", "true")
        found = VolumeRequest(target=target, source=source, readonly=readonly, copy=copy)
    else:
        raise BadOption(f"invalid mount type {kind!r} in {text!r}")
    if fields:
        raise BadOption(f"unknown field {next(iter(fields))!r} in mount {text!r}")
    return found


def tmpfs(text: str) -> VolumeRequest:
    """``TARGET[:size=64m,mode=1770,ro]`` (``--tmpfs``)."""
    path, _, options = text.partition(":")
    target = _target(path, text)
    limit, mode, readonly = 0, 0o1777, False
    for item in options.split(",") if options else ():
        key, _, value = item.partition("=")
        if key == "size":
            limit = size(value)
        elif key == "mode":
            mode = _octal(value, text)
        elif key in ("ro", "rw"):
            readonly = key == "ro"
        elif key not in ("noexec", "exec", "nosuid", "suid", "nodev", "dev"):
            raise BadOption(f"invalid tmpfs option {item!r}")
    return VolumeRequest(target=target, kind="tmpfs", readonly=readonly, tmpfs_size=limit, tmpfs_mode=mode)


def _octal(text: str, whole: str) -> int:
    try:
        return int(text, 8) & 0o7777
    except ValueError:
        raise BadOption(f"invalid mode {text!r} in {whole!r}") from None


def ports(text: str) -> tuple[PortRequest, ...]:
    """``[[IP:][HOSTPORT]:]PORT[/PROTO]``, ranges allowed on both sides (RUN-28)."""
    rest, _, protocol = text.partition("/")
    ip = ""
    if rest.startswith("["):
        ip, bracket, rest = rest[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise BadOption(f"invalid port specification {text!r}")
        rest = rest[1:]
    parts = rest.split(":")
    if len(parts) == 3 and not ip:
        ip = parts.pop(0)
    if len(parts) > 2:
        raise BadOption(f"invalid port specification {text!r}")
    inner = _range(parts[-1], text)
    outer = _range(parts[0], text) if len(parts) == 2 and parts[0] not in ("", "0") else ()
    if outer and len(outer) != len(inner) and len(inner) != 1:
        raise BadOption(f"invalid port specification {text!r}: ranges differ in length")
    kind = _protocol(protocol or "tcp", text)
    if ip:
        _checked_ip(ip, text)
    return tuple(
        PortRequest(container_port=port, protocol=kind, host_ip=ip, host_port=outer[index] if outer else 0)
        for index, port in enumerate(inner)
    )


def _checked_ip(ip: str, text: str) -> None:
    from runtime.hosts import BadHostEntry, checked_address

    try:
        checked_address(ip)
    except BadHostEntry as error:
        raise BadOption(f"invalid port specification {text!r}: {error}") from error


def exposed(text: str) -> tuple[tuple[int, Literal["tcp", "udp"]], ...]:
    """``PORT[-PORT][/PROTO]`` as ports (RUN-16)."""
    rest, _, protocol = text.partition("/")
    kind = _protocol(protocol or "tcp", text)
    return tuple((port, kind) for port in _range(rest, text))


def _protocol(text: str, whole: str) -> Literal["tcp", "udp"]:
    found = text.lower()
    if found not in ("tcp", "udp"):
        raise BadOption(f"invalid protocol {text!r} in {whole!r}", hint="tcp and udp are known")
    return "tcp" if found == "tcp" else "udp"


def _range(text: str, whole: str) -> tuple[int, ...]:
    first, dash, last = text.partition("-")
    try:
        start, end = int(first), int(last if dash else first)
    except ValueError:
        raise BadOption(f"invalid port specification {whole!r}") from None
    if not 0 < start <= end <= _MAX_PORT or end - start > _MAX_PORTS:
        raise BadOption(f"invalid port specification {whole!r}: ports are 1 to 65535")
    return tuple(range(start, end + 1))


def device(text: str) -> DeviceRequest:
    """``HOST[:CONTAINER][:rwm]`` (RUN-11)."""
    parts = text.split(":")
    access = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm"):
        access = parts.pop()
    if len(parts) > 2 or not all(part.startswith("/") for part in parts):
        raise BadOption(f"invalid device specification {text!r}")
    return DeviceRequest(host=parts[0], container=parts[-1], access=access)


def ulimit(text: str) -> Rlimit:
    """``NAME=SOFT[:HARD]``; -1 or ``unlimited`` = no limit (RUN-37)."""
    name, sign, values = text.partition("=")
    first, _, second = values.partition(":")
    try:
        soft, hard = _limit(first), _limit(second or first)
    except ValueError:
        raise BadOption(f"invalid ulimit {text!r}") from None
    if not sign or name not in _RLIMITS:
        raise BadOption(f"invalid ulimit {text!r}: unknown limit {name!r}")
    if hard != -1 and (soft == -1 or soft > hard):
        raise BadOption(f"invalid ulimit {text!r}: the soft limit is above the hard one")
    return Rlimit(name=name, soft=soft, hard=hard)


def _limit(text: str) -> int:
    value = -1 if text == "unlimited" else int(text)
    if value < -1:
        raise ValueError(text)
    return value


def restart(text: str) -> RestartPolicy:
    """``no``, ``always``, ``unless-stopped``, ``on-failure[:MAX]`` (RUN-32)."""
    name, colon, count = text.partition(":")
    if name == "on-failure":
        if not colon:
            return RestartPolicy(name="on-failure")
        if count.isdigit():
            return RestartPolicy(name="on-failure", maximum=int(count))
    elif not colon and name in ("", "no"):
        return RestartPolicy()
    elif not colon and name == "always":
        return RestartPolicy(name="always")
    elif not colon and name == "unless-stopped":
        return RestartPolicy(name="unless-stopped")
    raise BadOption(f"invalid restart policy {text!r}", hint="no, on-failure[:MAX], always, unless-stopped")


def signal_number(text: str) -> int:
    """A signal by number, or by name with or without SIG (LIF-KILL-1)."""
    import signal

    word = text.strip().upper()
    if word.isdigit() and 0 < int(word) < signal.NSIG:
        return int(word)
    name = word if word.startswith("SIG") else f"SIG{word}"
    base, sign, offset = name.partition("+")
    if base == "SIGRTMIN" and (not sign or offset.isdigit()):
        found = int(signal.SIGRTMIN) + int(offset or 0)
        if found < signal.NSIG:
            return found
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise BadOption(f"Invalid signal: {text}", code="invalid-signal") from None


def env_file(path: Path, environment: dict[str, str]) -> tuple[str, ...]:
    """The entries of an env file: ``NAME=value`` lines, ``NAME`` taken from ``environment``, ``#``
    comments.
    """
    found: list[str] = []
    for line in _lines(path):
        name, sign, value = line.partition("=")
        if not name.strip() or any(c.isspace() for c in name.strip()):
            raise BadOption(f"{path}: invalid variable name in {line!r}")
        if sign:
            found.append(f"{name.lstrip()}={value}")
        elif name.strip() in environment:
            found.append(f"{name.strip()}={environment[name.strip()]}")
    return tuple(found)


def label_file(path: Path) -> tuple[tuple[str, str], ...]:
    """The labels of a file, one ``name=value`` a line."""
    return tuple((name, value) for name, _, value in (line.partition("=") for line in _lines(path)))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise BadOption(f"cannot read {path}: {error.strerror}") from error
    lines = (line.lstrip("\ufeff").rstrip("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
