"""Frontend options, ``key=value`` as other clients send them, onto a build request (OPT rows, ARG-13)."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from builder.build.request import BuildInput, BuildRequest
from builder.csvline import csv_fields
from builder.errors import UsageError

DEFAULT_CONTEXT = "context"
DEFAULT_DOCKERFILE = "dockerfile"
MAX_DOCKERFILE_BYTES = 16 << 20
CONFIG_KEY = "containerimage.config"


class FrontendOptions(NamedTuple):
    """What options mean.

    ``call`` is the subrequest asked for ("" = build); ``attests`` and ``cache_from`` are values of the flags
    ``--attest`` and ``--cache-from``; ``facts`` are the ``vcs:`` options, which change nothing of the result.
    """

    request: BuildRequest
    call: str = ""
    attests: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def with_options(
    request: BuildRequest,
    options: Iterable[tuple[str, str]],
    *,
    locals_: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> FrontendOptions:
    """``request`` with the options on top of what it says already; of two with one key the later counts.

    ``locals_`` are directories by the names that ``contextkey``, ``dockerfilekey`` and ``local:NAME`` use
    ("context" and "dockerfile" unless told otherwise); ``inputs`` are digests of images, results of other
    builds, by the names that ``input:NAME`` uses. Raises UsageError.
    """
    reader = _Reader(request, locals_ or {}, inputs or {})
    given = dict(options)
    for key, value in given.items():
        reader.take(key, value)
    reader.place(given)
    return reader.result()


class _Reader:
    """Takes one option after the other."""

    def __init__(self, request: BuildRequest, locals_: Mapping[str, str], inputs: Mapping[str, str]) -> None:
        self.request = request
        self.locals = locals_
        self.inputs = inputs
        self.changes: dict[str, Any] = {}
        self.args = dict(request.build_args)
        self.labels = dict(request.labels)
        self.contexts = dict(request.build_contexts)
        self.configs: dict[str, bytes] = {}
        self.limits: dict[str, Any] = {}
        self.hidden_args: dict[str, str] = {}
        self.call = ""
        self.attests: list[str] = []
        self.cache_from: list[str] = []
        self.facts: list[tuple[str, str]] = []

    def take(self, key: str, value: str) -> None:
        """One option; raises UsageError for one that nobody knows."""
        prefix, colon, name = key.partition(":")
        if colon and prefix in _PREFIXES:
            _PREFIXES[prefix](self, name, value)
        elif key in _LIMITS:
            self.limit(key, value)
        elif key in _KEYS:
            _KEYS[key](self, value)
        elif key not in _PLACES:
            from builder.frontend.errors import suggestion

            known = [*_KEYS, *_LIMITS, *_PLACES, *(f"{name}:" for name in _PREFIXES)]
            raise UsageError(f"unknown frontend option {key[:200]}{suggestion(key, known)}")

    def limit(self, key: str, value: str) -> None:
        """OPT-15: a number, or a list of processors."""
        field = _LIMITS[key]
        if field.startswith("cpuset"):
            found: Any = value
            good = not value or all(char.isdigit() or char in ",-" for char in value)
        else:
            least = -1 if key == "memswap" else 0
            good = value.isascii() and value.removeprefix("-" if least else "").isdigit()
            found = int(value[:20]) if good else 0
            good = good and least <= found < 1 << 63
        if not good:
            raise UsageError(f"invalid {key} value: {value[:80]}")
        self.limits[field] = found or None if field not in ("cpuset_cpus", "cpuset_mems") else found

    def place(self, given: Mapping[str, str]) -> None:
        """Where the context and the Dockerfile are (CTX-01, CTX-05)."""
        context_key = given.get("contextkey") or DEFAULT_CONTEXT
        remote = given.get("context", "")
        if remote:
            self.changes["context"] = remote
        elif context_key in self.locals:
            self.changes["context"] = self.locals[context_key]
        elif "contextkey" in given:
            raise self._no_local(context_key, "contextkey")
        if "contextsubdir" in given:
            self.changes["context_subdir"] = given["contextsubdir"]
        filename = given.get("filename", "")
        dockerfile_key = given.get("dockerfilekey") or DEFAULT_DOCKERFILE
        forced = "dockerfilekey" in given
        if dockerfile_key in self.locals and (forced or not remote):
            path = os.path.join(self.locals[dockerfile_key], filename or "Dockerfile")
            if not os.path.lexists(path) and os.path.basename(path) == "Dockerfile":
                path = os.path.join(os.path.dirname(path), "dockerfile")
            if remote:
                self.changes["dockerfile_data"] = _read(path)
            else:
                self.changes["dockerfile"] = path
        elif forced:
            raise self._no_local(dockerfile_key, "dockerfilekey")
        elif filename:
            self.changes["dockerfile"] = filename

    def named(self, name: str, value: str) -> None:
        """``context:NAME``; a local or an input is one of those given."""
        kind, colon, key = value.partition(":")
        if kind == "local" and colon:
            if key not in self.locals:
                raise self._no_local(key, f"context:{name}")
            value = os.path.abspath(self.locals[key])
        self.contexts[name] = value

    def result(self) -> FrontendOptions:
        """The request with all that was taken."""
        from runtime.spec import Limits

        keys = {
            value.removeprefix("input:") for value in self.contexts.values() if value.startswith("input:")
        }
        inputs = tuple(
            BuildInput(key, digest, self.configs.get(key))
            for key, digest in self.inputs.items()
            if key in keys
        )
        if self.limits:
            self.changes["limits"] = replace(self.request.limits or Limits(), **self.limits)
        request = replace(
            self.request,
            build_args=tuple({**self.hidden_args, **self.args}.items()),
            labels=tuple(self.labels.items()),
            build_contexts=tuple(self.contexts.items()),
            inputs=(*self.request.inputs, *inputs),
            **self.changes,
        )
        return FrontendOptions(
            request, self.call, tuple(self.attests), tuple(self.cache_from), tuple(self.facts)
        )

    def _no_local(self, key: str, option: str) -> UsageError:
        known = ", ".join(sorted(self.locals)) or "none"
        return UsageError(f"{option}: there is no local directory {key[:200]!r}", hint=f"given: {known}")


def _set(field: str) -> Callable[[_Reader, str], None]:
    def put(reader: _Reader, value: str) -> None:
        reader.changes[field] = value

    return put


def _platforms(reader: _Reader, value: str) -> None:
    reader.changes["platforms"] = tuple(filter(None, value.split(",")))


def _no_cache(reader: _Reader, value: str) -> None:
    """OPT-06."""
    reader.changes["no_cache"] = not value
    reader.changes["no_cache_filter"] = tuple(filter(None, value.split(",")))


def _resolve_mode(reader: _Reader, value: str) -> None:
    """OPT-09."""
    if value not in ("", "default", "pull", "local"):
        raise UsageError(f"invalid image-resolve-mode: {value[:80]}", hint="default, pull or local")
    reader.changes["pull"] = value == "pull"
    reader.changes["resolve_mode"] = "local" if value == "local" else ""


def _hosts(reader: _Reader, value: str) -> None:
    """OPT-10."""
    import ipaddress

    found = []
    for item in _csv(value):
        name, equals, address = item.lower().partition("=")
        if not equals:
            raise UsageError(f"failed to parse additional hosts: invalid key-value pair {item[:200]}")
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise UsageError(
                f"failed to parse additional hosts: failed to parse IP {address[:80]}"
            ) from error
        found.append((name, address))
    reader.changes["extra_hosts"] = tuple(found)


def _network(reader: _Reader, value: str) -> None:
    """OPT-11."""
    if value not in ("", "none", "host", "sandbox"):
        raise UsageError(f"invalid netmode {value[:80]}", hint="none, host or sandbox")
    reader.changes["network"] = value


def _shm_size(reader: _Reader, value: str) -> None:
    """OPT-12."""
    if value and not (value.isascii() and value.isdigit() and len(value) < 19):
        raise UsageError(f"failed to parse shm size: {value[:80]} is not a number of bytes")
    reader.changes["shm_size_bytes"] = int(value or 0)


def _ulimits(reader: _Reader, value: str) -> None:
    """OPT-13."""
    from builder.llb.ops import Ulimit

    found = []
    for item in _csv(value):
        name, equals, rest = item.partition("=")
        soft, colon, hard = rest.partition(":")
        numbers = [
            text.removeprefix("-").isdigit() and text.isascii() for text in (soft, hard if colon else soft)
        ]
        if not name or not equals or not all(numbers):
            raise UsageError(f"failed to parse ulimit: invalid ulimit argument: {item[:200]}")
        found.append(Ulimit(name=name, soft=int(soft[:20]), hard=int((hard if colon else soft)[:20])))
    reader.changes["ulimits"] = tuple(found)


def _multi_platform(reader: _Reader, value: str) -> None:
    """OPT-08; the build argument of this meaning wins."""
    if value:
        reader.hidden_args["BUILDKIT_MULTI_PLATFORM"] = value


def _cache_imports(reader: _Reader, value: str) -> None:
    """OPT-17: a JSON array."""
    try:
        items = json.loads(value or "[]")
        for item in items:
            pairs = {"type": item["Type"], **(item.get("Attrs") or {})}
            reader.cache_from.append(_csv_text(f"{key}={text}" for key, text in pairs.items()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # The value stays out of the message: it may have the keys of a cloud service in it.
        raise UsageError(f"failed to unmarshal cache-imports: {error}") from error


def _cache_from(reader: _Reader, value: str) -> None:
    """OPT-17: references, the old way."""
    reader.cache_from += [f"type=registry,ref={ref}" for ref in value.split(",") if ref]


def _frontend(reader: _Reader, value: str) -> None:  # noqa: ARG001
    """OPT-20: only the frontend that is built in."""
    from builder.frontend.syntax import check_frontend

    check_frontend(value)


def _capabilities(reader: _Reader, value: str) -> None:  # noqa: ARG001
    from builder.frontend.syntax import check_capabilities

    check_capabilities(value)


def _removed(reader: _Reader, value: str) -> None:  # noqa: ARG001
    """ARG-13."""
    if value:
        from builder.frontend.errors import removed_switch

        raise removed_switch("override-copy-image")


def _call(reader: _Reader, value: str) -> None:
    reader.call = value


def _build_arg(reader: _Reader, name: str, value: str) -> None:
    reader.args[name] = value


def _label(reader: _Reader, name: str, value: str) -> None:
    reader.labels[name] = value


def _context(reader: _Reader, name: str, value: str) -> None:
    reader.named(name, value)


def _metadata(reader: _Reader, name: str, value: str) -> None:
    """OPT-18: what belongs to a result of another build; its config is JSON in base64."""
    try:
        config = json.loads(value).get(CONFIG_KEY)
        if config is not None:
            reader.configs[name] = base64.b64decode(config, validate=True)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise UsageError(f"failed to parse input metadata {value[:200]}: {error}") from error


def _attest(reader: _Reader, name: str, value: str) -> None:
    """OPT-16."""
    fields = _csv("disabled=true" if value == "false" else value)
    reader.attests.append(_csv_text([f"type={name}", *fields]))


def _fact(reader: _Reader, name: str, value: str) -> None:
    """OPT-21."""
    reader.facts.append((f"vcs:{name}", value))


def _nothing(reader: _Reader, name: str, value: str) -> None:
    """OPT-18: which session has a local directory, and how transfers are shared; here all is one process."""


def _csv(text: str) -> list[str]:
    return csv_fields(text, "option") if text else []


def _csv_text(fields: Iterable[str]) -> str:
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(list(fields))
    return out.getvalue()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_DOCKERFILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"failed to read dockerfile: {path}: {error.strerror}") from error
    if len(data) > MAX_DOCKERFILE_BYTES:
        raise UsageError(f"failed to read dockerfile: {path} is too large")
    return data


_LIMITS = {
    "memory": "memory_bytes",
    "memswap": "memory_swap_bytes",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period_us",
    "cpuquota": "cpu_quota_us",
    "cpusetcpus": "cpuset_cpus",
    "cpusetmems": "cpuset_mems",
}
_PLACES = ("context", "contextkey", "contextsubdir", "dockerfilekey", "filename")
_KEYS: dict[str, Callable[[_Reader, str], None]] = {
    "target": _set("target"),
    "platform": _platforms,
    "no-cache": _no_cache,
    "multi-platform": _multi_platform,
    "image-resolve-mode": _resolve_mode,
    "add-hosts": _hosts,
    "force-network-mode": _network,
    "shm-size": _shm_size,
    "ulimit": _ulimits,
    "cgroup-parent": _set("cgroup_parent"),
    "hostname": _set("hostname"),
    "cache-imports": _cache_imports,
    "cache-from": _cache_from,
    "requestid": _call,
    "source": _frontend,
    "cmdline": _frontend,
    "frontend.caps": _capabilities,
    "override-copy-image": _removed,
}
_PREFIXES: dict[str, Callable[[_Reader, str, str], None]] = {
    "build-arg": _build_arg,
    "label": _label,
    "context": _context,
    "input-metadata": _metadata,
    "attest": _attest,
    "vcs": _fact,
    "local-sessionid": _nothing,
    "sharedkey": _nothing,
}
