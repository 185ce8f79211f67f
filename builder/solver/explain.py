"""Why a step ran again: compares what its cache key is made of with what earlier keys were made of.

Pure: ``parts`` are the trees that stand beside every cache record (``planning.record_parts``), and ``Files``
answers which files a selection of a context had. What to compare with is found by ``builder.build.why``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from builder.frontend.redact import redact
from builder.llb.ops import EMPTY
from builder.solver.causes import Cause
from builder.solver.filecauses import Files, Listing, file_causes, limited
from builder.solver.steppairs import text_of

Parts = Mapping[str, Any]
Same = Callable[[int, Parts], bool]
"""Whether an input, by position, is what an earlier one was although its key is another."""
Refine = Callable[[str, list[Cause], Listing, Listing], list[Cause]]
"""Causes among the files of a context, by its name, as somebody sees them who can look at the files."""

INLINE = "[internal] preparing inline document"
_BASES = ("docker-image://", "oci-layout://")
_CHOOSING = re.compile(r"--(?:mount|from|exclude|include|parents)\b\S*")


def diff(
    before: Parts,
    after: Parts,
    files: Files,
    *,
    same: Same = lambda _, __: False,
    refine: Refine = lambda _, causes, __, ___: causes,
) -> tuple[Cause, ...]:
    """Everything that sets ``after`` apart from ``before``, the step's own matters first; () when equal."""
    if before.get("version") != after.get("version"):
        return (Cause("version"),)
    found = _operation(before, after)
    own = bool(found)
    platforms = str(before.get("platform")), str(after.get("platform"))
    choice = _choice(before) == _choice(after)
    for position, part, old in _aligned(before.get("inputs") or [], after.get("inputs") or []):
        if part.get("content"):
            if old is None or old.get("content") == part.get("content"):
                continue
            if choice:
                found += _content(old, part, position, files, refine)
            elif not own:
                found.append(_command(before, after))
        elif old is None:
            found += [] if own else [_upstream({}, part)]
        elif old.get("key") != part.get("key") and not same(position, old):
            found.append(_upstream(old, part))
    if platforms[0] != platforms[1] and "None" not in platforms:
        found = [cause for cause in found if cause.kind != "base" or cause.before != cause.after]
        found.append(Cause("platform", "", *platforms))
    return tuple(dict.fromkeys(found))


def nearest(found: Iterable[tuple[Cause, ...]]) -> tuple[Cause, ...]:
    """The shortest list of differences that is not empty, the first of equals; () when there is none."""
    best: tuple[Cause, ...] = ()
    for causes in found:
        if causes and (not best or len(causes) < len(best)):
            best = causes
        if len(best) == 1:
            break
    return best


def _choice(parts: Parts) -> tuple[object, ...]:
    """What decides which files a step takes: of a RUN the mounts, else all words but the options."""
    command = str(parts.get("command", ""))
    words = [] if "ExecOp" in (parts.get("op") or {}) else [w for w in command.split()[1:] if w[:2] != "--"]
    actions = ((parts.get("op") or {}).get("FileOp") or {}).get("actions") or []
    return _CHOOSING.findall(command), words[:-1], [_action(item)[1].get("src") for item in actions]


def _aligned(old: Sequence[Parts], new: Sequence[Parts]) -> Iterator[tuple[int, Parts, Parts | None]]:
    """Each input with the earlier one that it corresponds to: of the same name, else the next of its kind."""
    left = list(old)
    found: dict[int, Parts] = {}
    for named in (True, False):
        for position, part in enumerate(new):
            if position in found:
                continue
            for item in left:
                alike = text_of(str(item.get("name"))) == text_of(str(part.get("name")))
                if bool(item.get("content")) == bool(part.get("content")) and (alike or not named):
                    found[position] = item
                    left.remove(item)
                    break
    for position, part in enumerate(new):
        yield position, part, found.get(position)


# --- the operation ----------------------------------------------------------------------------------------


def _operation(before: Parts, after: Parts) -> list[Cause]:
    old, new = before.get("op") or {}, after.get("op") or {}
    if old == new:
        return []
    found: list[Cause] = []
    changed = before.get("command", "") != after.get("command", "")
    if changed:
        found.append(_command(before, after))
    if set(old) != set(new):
        return found or [_command(before, after)]
    if "ExecOp" in new:
        arguments = {*(before.get("args") or []), *(after.get("args") or [])}
        found += _exec(old["ExecOp"], new["ExecOp"], arguments, same_text=not changed)
    elif "FileOp" in new and not changed:
        inline = after.get("command") == INLINE
        found += _file(old["FileOp"].get("actions") or [], new["FileOp"].get("actions") or [], inline=inline)
    found = found or _rebased(_built_on(before), _built_on(after))
    return found or [Cause("option", "how it is carried out")]


def _built_on(parts: Parts) -> Parts:
    """The input that a step starts from; {} = none."""
    op, inputs = parts.get("op") or {}, parts.get("inputs") or []
    mounts = (op.get("ExecOp") or {}).get("mounts") or []
    actions = (op.get("FileOp") or {}).get("actions") or []
    starts = [*(item for item in mounts if item.get("dest") == "/"), *actions]
    position = starts[0].get("input", EMPTY) if starts else EMPTY
    return inputs[position] if 0 <= position < len(inputs) else {}


def _rebased(old: Parts, new: Parts) -> list[Cause]:
    """It starts from something else, which may be an input of another kind, too, or none."""
    before, after = ({"name": "scratch", **part} for part in (old, new))
    return [_upstream(before, after)] if text_of(before["name"]) != text_of(after["name"]) else []


def _command(before: Parts, after: Parts) -> Cause:
    return Cause("command", "", *(redact(str(parts.get("command", ""))) for parts in (before, after)))


def _exec(old: Parts, new: Parts, arguments: set[str], *, same_text: bool) -> list[Cause]:
    before, after = old.get("meta") or {}, new.get("meta") or {}
    found = _arguments(before.get("args") or [], after.get("args") or []) if same_text else []
    found += _variables(before.get("env") or [], after.get("env") or [], arguments)
    if before.get("cwd", "/") != after.get("cwd", "/"):
        found.append(Cause("workdir", "", before.get("cwd", "/"), after.get("cwd", "/")))
    if before.get("user", "") != after.get("user", ""):
        found.append(Cause("user", "", before.get("user") or "root", after.get("user") or "root"))
    for key, name in _META.items():
        if before.get(key) != after.get(key):
            found.append(Cause("option", name, _brief(before.get(key)), _brief(after.get(key))))
    if same_text:
        found += _mounts(old.get("mounts") or [], new.get("mounts") or [])
    if old.get("network") != new.get("network"):
        found.append(Cause("network", "", old.get("network", "default"), new.get("network", "default")))
    if old.get("secret_env") != new.get("secret_env"):
        found.append(Cause("secret", "", _names(old.get("secret_env")), _names(new.get("secret_env"))))
    for key in ("security", "devices"):
        if old.get(key) != new.get(key):
            found.append(Cause("option", f"--{key.rstrip('s')}", _brief(old.get(key)), _brief(new.get(key))))
    return found


def _arguments(old: Sequence[str], new: Sequence[str]) -> list[Cause]:
    """The instruction says the same: what differs is the shell, or the text of a here-document."""
    found = []
    if old[:-1] != new[:-1]:
        found.append(Cause("shell", "", " ".join(old[:-1]), " ".join(new[:-1])))
    if old[-1:] != new[-1:]:
        found.append(Cause("command", "", redact("".join(old[-1:])), redact("".join(new[-1:]))))
    return found


_META = {
    "extra_hosts": "--add-host",
    "hostname": "the host name",
    "ulimits": "--ulimit",
    "valid_exit_codes": "the accepted exit codes",
}


def _variables(old: Sequence[str], new: Sequence[str], arguments: set[str]) -> list[Cause]:
    """Build arguments first: variables may be made from them."""
    before, after = _pairs(old), _pairs(new)
    found = []
    for name in dict.fromkeys([*after, *before]):
        if before.get(name) == after.get(name):
            continue
        values = ("", "") if _is_private(name) else (_value(before, name), _value(after, name))
        found.append(Cause("argument" if name in arguments else "variable", name, *values))
    if not found and list(old) != list(new):
        found.append(Cause("option", "the order of variables"))
    return sorted(found, key=lambda cause: cause.kind != "argument")


def _pairs(env: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (item.partition("=") for item in env)}


def _value(values: Mapping[str, str], name: str) -> str:
    """Redacted; a value that is set but empty is told from none."""
    if name not in values:
        return ""
    return redact(values[name]) or '""'


def _is_private(name: str) -> bool:
    from builder.frontend.lint import names_secret

    return names_secret(name)


def _mounts(old: Sequence[Parts], new: Sequence[Parts]) -> list[Cause]:
    before = {str(mount.get("dest")): _plain(mount) for mount in old}
    after = {str(mount.get("dest")): _plain(mount) for mount in new}
    return [
        Cause("mount", f"the mount at {dest}", _brief(before.get(dest)), _brief(after.get(dest)))
        for dest in dict.fromkeys([*after, *before])
        if before.get(dest) != after.get(dest)
    ]


def _plain(mount: Parts) -> dict[str, Any]:
    """A mount without where it stands among the inputs and without its place."""
    return {key: value for key, value in mount.items() if key not in ("dest", "input", "output")}


def _file(old: Sequence[Parts], new: Sequence[Parts], *, inline: bool) -> list[Cause]:
    if len(old) != len(new):
        return [Cause("value", "what it copies", f"{len(old)} sources", f"{len(new)} sources")]
    found: list[Cause] = []
    for one, other in zip(old, new, strict=True):
        (before_kind, before), (after_kind, after) = _action(one), _action(other)
        if before_kind != after_kind:
            found.append(Cause("value", "what it does", before_kind, after_kind))
            continue
        for key in dict.fromkeys([*after, *before]):
            if before.get(key) != after.get(key):
                found.append(_field(key, before.get(key), after, inline=inline))
    return found


def _action(item: Parts) -> tuple[str, Parts]:
    for kind, body in (item.get("action") or {}).items():
        return kind, body
    return "", {}


def _field(key: str, old: Any, after: Parts, *, inline: bool) -> Cause:
    new = after.get(key)
    match key:
        case "data":
            path = str(after.get("path", ""))
            return Cause("value", f"the text of {'<<' + path.strip('/') if inline else path}")
        case "src":
            return Cause("value", "its source", _brief(old), _brief(new))
        case "dest" | "path":
            return Cause("value", "its destination", _brief(old), _brief(new))
        case "mode" | "mode_str":
            return Cause("option", "--chmod", _mode(old), _mode(new))
        case "owner":
            return Cause("option", "--chown", _owner(old), _owner(new))
        case "timestamp_ns":
            return Cause("value", "SOURCE_DATE_EPOCH", _brief(old), _brief(new))
        case "exclude_patterns":
            return Cause("option", "--exclude", _brief(old), _brief(new))
        case _:
            return Cause("option", key.replace("_", " "), _brief(old), _brief(new))


def _mode(value: Any) -> str:
    return f"{value:04o}" if isinstance(value, int) else str(value or "as it is")


def _owner(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "root"
    who = [value.get("user"), value.get("group")]
    return ":".join(str(item.get("name") or item.get("id", 0)) for item in who if isinstance(item, Mapping))


def _names(value: Any) -> str:
    return ", ".join(str(item.get("name", "")) for item in value or []) or "none"


def _brief(value: Any) -> str:
    """A part of an operation in few words."""
    if value is None or value == []:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_brief(item)}" for key, item in value.items()) or "default"
    if isinstance(value, list):
        return ", ".join(text for item in value if (text := _brief(item)))
    return str(value)


# --- inputs -----------------------------------------------------------------------------------------------


def _upstream(old: Parts, new: Parts) -> Cause:
    """Another key of what is built on: an image, a file from elsewhere, a step."""
    before, after = str(old.get("name", "")), str(new.get("name", ""))
    if after.startswith(_BASES) and (not before or before.startswith(_BASES)):
        return Cause("base", _image(after).partition("@")[0], _image(before), _image(after))
    if "://" in after.partition(" ")[0] and not after.startswith(_BASES):
        pins = str(old.get("pin", "")), str(new.get("pin", ""))
        return Cause("source", after, *(pins if before == after else (before, after)))
    if not before or text_of(before) == text_of(after):
        return Cause("upstream", after or "an earlier step")
    return Cause("upstream", after, before, after)


def _image(identifier: str) -> str:
    return identifier.partition("://")[2]


def _content(old: Parts, new: Parts, position: int, files: Files, refine: Refine) -> list[Cause]:
    before, after = files(str(old["content"]), position), files(str(new["content"]), position)
    if before is None or after is None:
        return [Cause("files")]
    name = str(new.get("name", "")).partition("://")[2]
    return limited(refine(name, file_causes(before, after), before, after)) or [Cause("files")]
