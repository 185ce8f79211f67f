"""What kind of thing each argument must be. A type checker says so too, but not everybody has one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.build.request import BuildResult
from builder.cache.limits import SpaceLimits
from builder.errors import UsageError
from builder.exporter.types import OutputSpec
from builder.llb.ops import Ulimit
from builder.solver.cancel import Cancel
from runtime.spec import Limits

Kind = tuple[tuple[type, ...], str]
"""Types, and what they are called."""
_PATH = (str, os.PathLike)
_TEXT: Kind = ((str,), "text")
_FLAG: Kind = ((int,), "True or False")
_BYTES: Kind = ((str, bytes), "bytes or text")
_VALUE: Kind = ((str, int, float, os.PathLike), "text")
_WORDS: Kind = ((str, Iterable), "a word or a list of words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """Of single values (None is one of them), of the values of mappings, and of what is in lists."""

    one: Mapping[str, Kind] = field(default_factory=dict)
    mappings: Mapping[str, Kind] = field(default_factory=dict)
    lists: Mapping[str, Kind] = field(default_factory=dict)


BUILD = Kinds(
    one={
        "dockerfile": ((*_PATH, bytes), "a path, or the text as bytes"),
        "target": _TEXT,
        "root": (_PATH, "a path"),
        "network": _TEXT,
        "llb": ((bytes,), "bytes"),
        "limits": ((Limits,), "Limits"),
        "space": ((SpaceLimits,), "SpaceLimits"),
        "cancel": ((Cancel,), "Cancel"),
        **dict.fromkeys(("pull", "squash", "reproducible", "keep_going"), _FLAG),
    },
    mappings={
        **dict.fromkeys(("build_args", "labels", "extra_hosts"), _VALUE),
        "secrets": _BYTES,
        "ssh": (_PATH, "a path"),
        "build_contexts": ((*_PATH, BuildResult), "a path, a source, or the result of a build"),
    },
    lists={
        **dict.fromkeys(("tags", "platforms", "cache_from", "cache_to", "allow", "attest"), _TEXT),
        "outputs": ((str, OutputSpec), "text or an OutputSpec"),
        "source_policies": _BYTES,
        "ulimits": ((Ulimit,), "an Ulimit"),
        "no_cache": ((str,), "the name of a stage"),
    },
)
CONTAINER = Kinds(
    one={
        **dict.fromkeys(("name", "workdir", "user", "hostname", "network", "stop_signal", "image"), _TEXT),
        **dict.fromkeys(("privileged", "readonly_root"), _FLAG),
        **dict.fromkeys(("stop_timeout_s", "shm_size"), ((int,), "a whole number")),
        **dict.fromkeys(("entrypoint", "command"), _WORDS),
        "limits": ((Limits,), "Limits"),
    },
    mappings={
        **dict.fromkeys(("env", "labels", "extra_hosts"), _VALUE),
        "ports": ((int,), "a port"),
    },
    lists=dict.fromkeys(("volumes", "cap_add", "cap_drop", "security_opt"), _TEXT),
)


def check_kinds(kinds: Kinds, options: Mapping[str, Any]) -> None:
    """Raises UsageError for the first argument that is of the wrong kind, naming it."""
    for name, value in options.items():
        if name in kinds.one:
            types, what = kinds.one[name]
            _must(value is None or isinstance(value, types), name, what, value)
        elif name in kinds.mappings:
            _mapping(name, {} if value is None else value, kinds.mappings[name])
        elif name in kinds.lists and not (name == "no_cache" and isinstance(value, bool)):
            _list(name, value, kinds.lists[name])


def check_names(known: Iterable[str], options: Iterable[str]) -> None:
    """An option that nobody knows must not be taken for one that was heard. Raises UsageError."""
    for name in options:
        if name not in known:
            from builder.frontend.errors import suggestion

            raise UsageError(f"unknown option {name}{suggestion(name, known)}")


def check_context(context: object) -> None:
    """Raises UsageError for what is neither a path, nor a URL, nor a mapping of paths to contents."""
    what = "a directory, a URL, or a mapping of paths to contents"
    _must(isinstance(context, (*_PATH, Mapping)), "context", what, context)
    for path, content in context.items() if isinstance(context, Mapping) else ():
        _must(isinstance(path, str), "a path of context", "text", path)
        data, mode = content if isinstance(content, tuple) and len(content) == 2 else (content, 0)
        good = isinstance(data, (str, bytes, bytearray, memoryview)) and isinstance(mode, int | None)
        _must(good, f"context[{path!r}]", "bytes, text, or (content, mode)", content)


def check_callable(name: str, value: Callable[..., object] | None) -> None:
    """Raises UsageError for what cannot be called."""
    _must(value is None or callable(value), name, "something that can be called", value)


def _mapping(name: str, value: object, kind: Kind) -> None:
    types, what = kind
    shown = name != "secrets"
    _must(isinstance(value, Mapping), name, f"a mapping of names to {what}", value, shown=shown)
    for key, item in value.items() if isinstance(value, Mapping) else ():
        _must(isinstance(key, str) or name == "ports", f"a name in {name}", "text", key)
        _must(isinstance(item, types), f"{name}[{key!r}]", what, item, shown=shown)


def _list(name: str, value: object, kind: Kind) -> None:
    if isinstance(value, (str, bytes)):
        raise UsageError(f"{name} is a list, not one text", hint=f"{name}=[{value!r}]"[:200])
    good = isinstance(value, Iterable) and not isinstance(value, Mapping)
    _must(good, name, "a list", value)
    types, what = kind
    for item in value if isinstance(value, (list, tuple, set, frozenset)) else ():
        _must(isinstance(item, types), f"each of {name}", what, item)


def _must(good: bool, name: str, what: str, value: object, *, shown: bool = True) -> None:
    if not good:
        found = repr(value) if shown else f"of type {type(value).__name__}"
        raise UsageError(f"{name} must be {what}, not {found[:200]}")
