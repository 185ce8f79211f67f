"""buildctl's way to ask for a build: ``--frontend``, ``--opt K=V``, ``--local NAME=DIR`` (CLI-01, OPT-01…21).

Each option means the same as a flag or the context of ``build``; here they are translated, before anything
else reads the command line.
"""

from __future__ import annotations

import os

from builder.errors import UsageError
from cli.flags import Args, Value
from cli.suggest import did_you_mean
from cli.units import csv_fields, pair

FRONTEND = "dockerfile.v0"
FLAGS = ("frontend", "opt", "local", "oci-layout")
_TEXTS = {
    "target": "target",
    "shm-size": "shm-size",
    "cgroup-parent": "cgroup-parent",
    "hostname": "hostname",
    "memory": "memory",
    "memswap": "memory-swap",
    "cpusetcpus": "cpuset-cpus",
    "cpusetmems": "cpuset-mems",
    "requestid": "call",
}
_NUMBERS = {"cpushares": "cpu-shares", "cpuperiod": "cpu-period", "cpuquota": "cpu-quota"}
_LISTS = {"platform": "platform", "ulimit": "ulimit", "add-hosts": "add-host", "cache-from": "cache-from"}
_PREFIXES = {"build-arg:": "build-arg", "label:": "label"}
_NO_MEANING = ("frontend.caps", "cmdline", "source")
_NO_MEANING_PREFIXES = ("local-sessionid:", "sharedkey:", "input-metadata:", "vcs:")
_NETWORKS: dict[str, Value] = {"": "", "sandbox": "", "host": "host", "none": "none"}
_MODES: dict[str, Value] = {"": False, "default": False, "local": False, "pull": True}
_PLACES = ("filename", "context", "contextkey", "dockerfilekey", "contextsubdir")
_OTHERS = ("no-cache", "multi-platform", "image-resolve-mode", "force-network-mode", "cache-imports")


def is_used(args: Args) -> bool:
    """Whether the command line speaks this way."""
    return any(args.given(name) for name in FLAGS)


def translated(args: Args) -> Args:
    """The same command line with flags in the place of options. Raises UsageError."""
    frontend = args.text("frontend")
    if frontend not in ("", FRONTEND):
        raise UsageError(
            f"frontend {frontend} is not supported",
            hint=f"the one that there is: --frontend {FRONTEND}",
            code="unsupported-frontend",
        )
    options = dict(pair(item, "option") for item in args.many("opt"))
    taken = _Taken(args)
    if not (frontend or options or args.words):
        return args.changed(*taken.definition())
    for key, value in options.items():
        taken.option(key, value)
    taken.contexts(options)
    return args.changed(taken.values, taken.words)


class _Taken:
    """What the options amount to."""

    def __init__(self, args: Args) -> None:
        self._args = args
        self._locals = dict(pair(item, "local") for item in args.many("local"))
        self._layouts = dict(pair(item, "OCI layout") for item in args.many("oci-layout"))
        self.values: dict[str, Value] = {}
        self.words = args.words

    def option(self, key: str, value: str) -> None:
        """Take one option, unless it says where something is."""
        if key in _TEXTS:
            self.values[_TEXTS[key]] = value
        elif key in _NUMBERS:
            self.values[_NUMBERS[key]] = _number(key, value)
        elif key in _LISTS:
            self._add(_LISTS[key], *(part for part in csv_fields(value, key) if part))
        elif prefix := next((prefix for prefix in _PREFIXES if key.startswith(prefix)), ""):
            self._add(_PREFIXES[prefix], f"{key.removeprefix(prefix)}={value}")
        elif key.startswith("context:"):
            self._add("build-context", f"{key.removeprefix('context:')}={self._named(key, value)}")
        elif key.startswith("attest:"):
            self._attest(key.removeprefix("attest:"), value)
        elif key in _OTHERS:
            self._other(key, value)
        elif key not in (*_PLACES, *_NO_MEANING) and not key.startswith(_NO_MEANING_PREFIXES):
            known = [*_TEXTS, *_NUMBERS, *_LISTS, *_PLACES, *_OTHERS, "build-arg:NAME", "label:NAME"]
            raise UsageError(f"unknown option {key!r} of {FRONTEND}{did_you_mean(key, known)}")

    def definition(self) -> tuple[dict[str, Value], tuple[str, ...]]:
        """Without a frontend a definition is built: its sources are the inputs of these names."""
        named = [f"{name}={path}" for name, path in self._locals.items() if name != "context"]
        named += [f"{name}=oci-layout://{os.path.abspath(path)}" for name, path in self._layouts.items()]
        self._add("build-context", *named)
        return {"llb": self._args.text("llb") or "-", **self.values}, (self._locals.get("context", ""),)

    def contexts(self, options: dict[str, str]) -> None:
        """The context and the Dockerfile, from the inputs that the options choose."""
        name = options.get("contextkey") or "context"
        context = options.get("context") or self._locals.get(name)
        if self.words and context:
            raise UsageError(f"two contexts: {self.words[0]} and {context}", hint="give one of them")
        if context:
            if subdir := options.get("contextsubdir"):
                context = _below(context, subdir)
            self.words = (context,)
        elif not self.words:
            raise UsageError(
                f"local directory {name} not enabled", hint=f"give PATH, or --local {name}=DIRECTORY"
            )
        folder = self._locals.get(options.get("dockerfilekey") or "dockerfile")
        filename = options.get("filename", "")
        if folder is not None:
            self.values["file"] = os.path.join(folder, filename or "Dockerfile")
        elif filename:
            self.values["file"] = filename

    def _named(self, key: str, value: str) -> str:
        """What a named context is, with the directory in the place of an input's name."""
        kind, colon, rest = value.partition(":")
        if colon and kind == "local":
            if rest not in self._locals:
                raise UsageError(
                    f"local directory {rest} not enabled",
                    hint=f"add --local {rest}=DIRECTORY",
                    context=(key,),
                )
            return self._locals[rest]
        if value.startswith("oci-layout://"):
            name, separator, target = _split_layout(value.removeprefix("oci-layout://"))
            if name in self._layouts:
                return f"oci-layout://{os.path.abspath(self._layouts[name])}{separator}{target}"
        return value

    def _attest(self, kind: str, value: str) -> None:
        off = value == "false" or "disabled=true" in value.split(",")
        more = f",{value}" if value and value not in ("true", "false") else ""
        self._add("attest", f"type={kind},disabled=true" if off else f"type={kind}{more}")

    def _other(self, key: str, value: str) -> None:
        match key:
            case "no-cache":
                stages = [part for part in value.split(",") if part]
                if stages:
                    self._add("no-cache-filter", *stages)
                else:
                    self.values["no-cache"] = True
            case "multi-platform":
                self._add("build-arg", f"BUILDKIT_MULTI_PLATFORM={value}")
            case "image-resolve-mode":
                self.values["pull"] = _one_of(_MODES, value, f"invalid image-resolve-mode: {value}")
            case "force-network-mode":
                self.values["network"] = _one_of(_NETWORKS, value, f"invalid netmode {value}")
            case _:
                self._add("cache-from", *_cache_imports(value))

    def _add(self, flag: str, *items: str) -> None:
        found = self.values.get(flag, self._args.many(flag))
        assert isinstance(found, tuple)
        self.values[flag] = (*found, *items)


def _one_of(known: dict[str, Value], value: str, message: str) -> Value:
    if value not in known:
        raise UsageError(message, hint=f"want {', '.join(filter(None, known))}")
    return known[value]


def _number(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"invalid {key} value: {value}", hint="want a whole number") from None


def _below(context: str, subdir: str) -> str:
    if "://" in context:
        base, hash_, fragment = context.partition("#")
        return f"{base}#{fragment if hash_ else ''}:{subdir}"
    path = os.path.normpath(os.path.join(context, subdir.lstrip("/")))
    if os.path.commonpath([os.path.abspath(context), os.path.abspath(path)]) != os.path.abspath(context):
        raise UsageError(f"contextsubdir {subdir!r} is outside of the context")
    return path


def _split_layout(text: str) -> tuple[str, str, str]:
    """``NAME[:TAG][@DIGEST]`` at its name."""
    ends = [at for at in (text.find("@"), text.find(":")) if at >= 0]
    end = min(ends, default=len(text))
    return text[:end], text[end : end + 1], text[end + 1 :]


def _cache_imports(value: str) -> list[str]:
    """``[{"Type": "registry", "Attrs": {"ref": …}}]`` as values of ``--cache-from`` (OPT-17)."""
    import json

    try:
        found = json.loads(value)
        return [
            ",".join([f"type={item['Type']}", *(f"{k}={v}" for k, v in (item.get("Attrs") or {}).items())])
            for item in found
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"failed to unmarshal cache-imports: {value[:100]!r}") from None
