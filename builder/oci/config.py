"""Image configuration (OCI image-spec, config.md, with Docker's extensions; rows IMG-01, IMG-02)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from builder.errors import InvalidValue
from builder.oci.canonical import compact_json
from builder.oci.digest import DiffId, Digest
from builder.oci.platform import Platform, normalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_CONFIG_BYTES = 8 * 1024 * 1024

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How to ask a container whether it is well; durations in nanoseconds, 0 = unset."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One entry of an image's history; ``created`` is RFC 3339 text."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about how to run it, how it was made and which layers it has.

    ``entrypoint``/``cmd``/``shell`` are None when unset, which differs from empty. ``extra`` keeps top-level
    keys, and ``config_extra`` keys of the ``config`` object, that we do not know: pairs of key and parsed
    JSON as
    canonical text.
    """

    platform: Platform
    created: str | None = None
    author: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    workdir: str = ""
    labels: Pairs = ()
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: HealthCheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    diff_ids: tuple[DiffId, ...] = ()
    history: tuple[History, ...] = ()
    extra: Pairs = ()
    config_extra: Pairs = ()

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """The configuration of ``FROM scratch`` (FRM-12)."""
        return cls(platform=platform, env=(f"PATH={DEFAULT_PATH}",), workdir="/")

    def with_env(self, key: str, value: str) -> ImageConfig:
        """ENV: an existing key is replaced in place, a new one appended (ENV-01)."""
        return replace(self, env=set_env(self.env, key, value))

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageConfig:
        """Read config JSON; raises InvalidValue on anything else."""
        if len(data) > MAX_CONFIG_BYTES:
            raise InvalidValue(f"image config of {len(data)} bytes is too large")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidValue(f"image config is not valid JSON: {error}") from error
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: Any) -> ImageConfig:
        """Read the parsed JSON; unknown keys are kept."""
        if not isinstance(value, dict):
            raise InvalidValue("image config must be a JSON object")
        run = value.get("config") or {}
        rootfs = value.get("rootfs") or {}
        if not isinstance(run, dict) or not isinstance(rootfs, dict):
            raise InvalidValue("image config: 'config' and 'rootfs' must be objects")
        features = value.get("os.features") or []
        return cls(
            platform=Platform(
                _text(value, "os"),
                _text(value, "architecture"),
                _text(value, "variant"),
                _text(value, "os.version"),
                tuple(str(f) for f in features) if isinstance(features, list) else (),
            ),
            created=_text(value, "created") or None,
            author=_text(value, "author"),
            user=_text(run, "User"),
            exposed_ports=_keys(run, "ExposedPorts"),
            env=_strings(run, "Env") or (),
            entrypoint=_strings(run, "Entrypoint"),
            cmd=_strings(run, "Cmd"),
            volumes=_keys(run, "Volumes"),
            workdir=_text(run, "WorkingDir"),
            labels=_pairs(run, "Labels"),
            stop_signal=_text(run, "StopSignal"),
            args_escaped=bool(run.get("ArgsEscaped")),
            healthcheck=_healthcheck(run.get("Healthcheck")),
            on_build=_strings(run, "OnBuild") or (),
            shell=_strings(run, "Shell"),
            diff_ids=tuple(DiffId(Digest.parse(d)) for d in _strings(rootfs, "diff_ids") or ()),
            history=tuple(_history(item) for item in value.get("history") or ()),
            extra=_unknown(value, _TOP_KEYS),
            config_extra=_unknown(run, _RUN_KEYS),
        )

    def run_config_json(self) -> dict[str, Any]:
        """The ``config`` object: empty fields left out."""
        out: dict[str, Any] = {}
        if self.user:
            out["User"] = self.user
        if self.exposed_ports:
            out["ExposedPorts"] = {port: {} for port in sorted(self.exposed_ports)}
        if self.env:
            out["Env"] = list(self.env)
        if self.entrypoint is not None:
            out["Entrypoint"] = list(self.entrypoint)
        if self.cmd is not None:
            out["Cmd"] = list(self.cmd)
        if self.healthcheck is not None:
            out["Healthcheck"] = healthcheck_json(self.healthcheck)
        if self.volumes:
            out["Volumes"] = {path: {} for path in sorted(self.volumes)}
        if self.workdir:
            out["WorkingDir"] = self.workdir
        if self.on_build:
            out["OnBuild"] = list(self.on_build)
        if self.labels:
            out["Labels"] = dict(sorted(self.labels))
        if self.stop_signal:
            out["StopSignal"] = self.stop_signal
        if self.shell is not None:
            out["Shell"] = list(self.shell)
        if self.args_escaped:
            out["ArgsEscaped"] = True
        out.update((key, json.loads(text)) for key, text in self.config_extra)
        return out

    def to_json(self) -> dict[str, Any]:
        """The whole document, top-level keys sorted (EXP-06)."""
        out: dict[str, Any] = {key: json.loads(text) for key, text in self.extra}
        out["architecture"] = self.platform.architecture
        out["os"] = self.platform.os
        out["config"] = self.run_config_json()
        out["rootfs"] = {"type": "layers", "diff_ids": [str(d) for d in self.diff_ids]}
        if self.platform.variant:
            out["variant"] = self.platform.variant
        if self.platform.os_version:
            out["os.version"] = self.platform.os_version
        if self.platform.os_features:
            out["os.features"] = list(self.platform.os_features)
        if self.created is not None:
            out["created"] = self.created
        if self.author:
            out["author"] = self.author
        if self.history:
            out["history"] = [history_json(entry) for entry in self.history]
        return dict(sorted(out.items()))

    def to_bytes(self) -> bytes:
        """The published form; its digest is the image id."""
        return compact_json(self.to_json())


_TOP_KEYS = frozenset(
    {
        "architecture",
        "os",
        "variant",
        "os.version",
        "os.features",
        "config",
        "rootfs",
        "created",
        "author",
        "history",
    }
)
_RUN_KEYS = frozenset(
    {
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
        # Written by the classic builder into every config; they say nothing about the image.
        "Hostname",
        "Domainname",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Image",
    }
)


def set_env(env: tuple[str, ...], key: str, value: str) -> tuple[str, ...]:
    """``env`` with ``key`` set: replaced in place or appended."""
    prefix = key + "="
    entry = prefix + value
    for index, item in enumerate(env):
        if item.startswith(prefix) or item == key:
            return (*env[:index], entry, *env[index + 1 :])
    return (*env, entry)


def normalized(platform: Platform) -> Platform:
    """The platform as written into a config (IMG-02)."""
    return normalize(platform)


def healthcheck_json(check: HealthCheck) -> dict[str, Any]:
    """The ``Healthcheck`` object: unset fields left out."""
    out: dict[str, Any] = {}
    if check.test:
        out["Test"] = list(check.test)
    numbers = (
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", check.retries),
    )
    out.update((key, value) for key, value in numbers if value)
    return out


def history_json(entry: History) -> dict[str, Any]:
    """One entry of ``history``: empty fields left out."""
    out: dict[str, Any] = {}
    if entry.created is not None:
        out["created"] = entry.created
    if entry.created_by:
        out["created_by"] = entry.created_by
    if entry.author:
        out["author"] = entry.author
    if entry.comment:
        out["comment"] = entry.comment
    if entry.empty_layer:
        out["empty_layer"] = True
    return out


def _healthcheck(value: Any) -> HealthCheck | None:
    if not isinstance(value, dict):
        return None

    def number(key: str) -> int:
        found = value.get(key)
        return found if isinstance(found, int) else 0

    return HealthCheck(
        test=_strings(value, "Test") or (),
        interval_ns=number("Interval"),
        timeout_ns=number("Timeout"),
        start_period_ns=number("StartPeriod"),
        start_interval_ns=number("StartInterval"),
        retries=number("Retries"),
    )


def _history(value: Any) -> History:
    if not isinstance(value, dict):
        raise InvalidValue("image config: a history entry must be an object")
    return History(
        created=_text(value, "created") or None,
        created_by=_text(value, "created_by"),
        author=_text(value, "author"),
        comment=_text(value, "comment"),
        empty_layer=bool(value.get("empty_layer")),
    )


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise InvalidValue(f"image config: {key!r} must be text")
    return found


def _strings(value: dict[str, Any], key: str) -> tuple[str, ...] | None:
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, str):
        return (found,)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidValue(f"image config: {key!r} must be a list of text")
    return tuple(found)


def _keys(value: dict[str, Any], key: str) -> tuple[str, ...]:
    found = value.get(key)
    if found is None:
        return ()
    if not isinstance(found, (dict, list)):
        raise InvalidValue(f"image config: {key!r} must be an object")
    return tuple(str(item) for item in found)


def _pairs(value: dict[str, Any], key: str) -> Pairs:
    found = value.get(key)
    if found is None:
        return ()
    if not isinstance(found, dict):
        raise InvalidValue(f"image config: {key!r} must be an object")
    return tuple((str(k), str(v)) for k, v in found.items())


def _unknown(value: dict[str, Any], known: frozenset[str]) -> Pairs:
    return tuple((k, json.dumps(v, sort_keys=True)) for k, v in value.items() if k not in known)
