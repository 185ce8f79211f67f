"""Why a step ran again: compares what its cache key is made of with what earlier keys were made of.

Pure: ``parts`` are the trees that stand beside every cache record (``planning.record_parts``), and ``Files``
answers which files a selection of a context had. What to compare with is found by ``builder.build``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from builder.frontend.redact import redact
from builder.solver.causes import Cause

Parts = Mapping[str, Any]
Entry = tuple[str, int, int]
Files = Callable[[str], Mapping[str, Entry] | None]
"""The files behind the content digest of a selection, by path: digest, mode, size. None = not known."""

MAX_FILES = 50
_BASES = ("docker-image://", "oci-layout://")


def diff(before: Parts, after: Parts, files: Files) -> tuple[Cause, ...]:
    """Everything that sets ``after`` apart from ``before``, the step's own matters first; () when equal."""
    if before.get("version") != after.get("version"):
        return (Cause("version"),)
    found = _operation(before, after)
    old, new = before.get("inputs") or [], after.get("inputs") or []
    for position, part in enumerate(new):
        found += _input(old[position] if position < len(old) else {}, part, files)
    if before.get("platform") != after.get("platform"):
        found.append(Cause("platform", "", str(before.get("platform")), str(after.get("platform"))))
    if not found and len(old) != len(new):
        found.append(Cause("option", "what it takes files from"))
    return tuple(dict.fromkeys(found))


def nearest(after: Parts, earlier: Iterable[Parts], files: Files) -> tuple[Cause, ...]:
    """The differences from that one of ``earlier`` that has the fewest; () when none is comparable."""
    best: tuple[Cause, ...] = ()
    for parts in earlier:
        found = diff(parts, after, files)
        if found and (not best or len(found) < len(best)):
            best = found
        if len(best) == 1:
            break
    return best


def match_steps(now: Sequence[str], earlier: Sequence[str]) -> dict[int, int]:
    """Which step of an earlier build each step of this one corresponds to, by position.

    Steps correspond when stage and text are the same; what then remains, when they are the same instruction
    in the same stage between the same neighbours.
    """
    new, old = [_step(name) for name in now], [_step(name) for name in earlier]
    waiting: dict[tuple[str, str], list[int]] = {}
    for position, step in enumerate(old):
        waiting.setdefault(step, []).append(position)
    pairs: dict[int, int] = {}
    for position, step in enumerate(new):
        if waiting.get(step):
            pairs[position] = waiting[step].pop(0)
    used = set(pairs.values())
    for position, (stage, text) in enumerate(new):
        if position in pairs:
            continue
        keyword = text.partition(" ")[0]
        for candidate, (other_stage, other_text) in enumerate(old):
            if (
                candidate not in used
                and stage == other_stage
                and other_text.partition(" ")[0] == keyword
                and _fits(pairs, position, candidate)
            ):
                pairs[position] = candidate
                used.add(candidate)
                break
    return pairs


def _fits(pairs: Mapping[int, int], position: int, candidate: int) -> bool:
    """Whether nothing that stands before goes with something behind, nor the other way round."""
    return all((new < position) == (old < candidate) for new, old in pairs.items())


def _step(name: str) -> tuple[str, str]:
    """Stage and text of ``[build 2/3] RUN make``; the numbers do not count."""
    if not name.startswith("["):
        return "", name
    label, _, text = name[1:].partition("] ")
    words = [word for word in label.split() if "/" not in word or not word.replace("/", "").isdigit()]
    return " ".join(words), text


# --- the operation ----------------------------------------------------------------------------------------


def _operation(before: Parts, after: Parts) -> list[Cause]:
    old, new = before.get("op") or {}, after.get("op") or {}
    if old == new:
        return []
    found: list[Cause] = []
    old_text, new_text = redact(str(before.get("command", ""))), redact(str(after.get("command", "")))
    changed = before.get("command", "") != after.get("command", "")
    if changed:
        found.append(Cause("command", "", old_text, new_text))
    if set(old) != set(new):
        return found or [Cause("command", "", old_text, new_text)]
    if "ExecOp" in new:
        found += _exec(old["ExecOp"], new["ExecOp"], same_text=not changed)
    elif "FileOp" in new and not changed:
        found += _file(old["FileOp"].get("actions") or [], new["FileOp"].get("actions") or [])
    return found or [Cause("option", "how it is carried out")]


def _exec(old: Parts, new: Parts, *, same_text: bool) -> list[Cause]:
    before, after = old.get("meta") or {}, new.get("meta") or {}
    found: list[Cause] = []
    if same_text and before.get("args") != after.get("args"):
        shell, other = before.get("args") or [], after.get("args") or []
        found.append(Cause("shell", "", " ".join(shell[:-1]), " ".join(other[:-1])))
    found += _variables(before.get("env") or [], after.get("env") or [])
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


_META = {
    "extra_hosts": "--add-host",
    "hostname": "the host name",
    "ulimits": "--ulimit",
    "valid_exit_codes": "the accepted exit codes",
}


def _variables(old: Sequence[str], new: Sequence[str]) -> list[Cause]:
    before, after = _pairs(old), _pairs(new)
    found = []
    for name in dict.fromkeys([*after, *before]):
        if before.get(name) == after.get(name):
            continue
        if _is_private(name):
            found.append(Cause("variable", name))
        else:
            found.append(Cause("variable", name, _value(before, name), _value(after, name)))
    if not found and list(old) != list(new):
        found.append(Cause("option", "the order of variables"))
    return found


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


def _file(old: Sequence[Parts], new: Sequence[Parts]) -> list[Cause]:
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
                found.append(_field(key, before.get(key), after))
    return found


def _action(item: Parts) -> tuple[str, Parts]:
    for kind, body in (item.get("action") or {}).items():
        return kind, body
    return "", {}


def _field(key: str, old: Any, after: Parts) -> Cause:
    new = after.get(key)
    match key:
        case "data":
            return Cause("value", f"the text of {after.get('path', '')}")
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
        return ", ".join(_brief(item) for item in value)
    return str(value)


# --- inputs -----------------------------------------------------------------------------------------------


def _input(old: Parts, new: Parts, files: Files) -> list[Cause]:
    content = str(new.get("content", ""))
    if content:
        if old.get("content") == content:
            return []
        return _files(str(old.get("content", "")), content, files)
    if old.get("key") == new.get("key"):
        return []
    before, after = str(old.get("name", "")), str(new.get("name", ""))
    if after.startswith(_BASES):
        was = before if before.startswith(_BASES) else ""
        return [Cause("base", _image(after).partition("@")[0], _image(was), _image(after))]
    if "://" in after.partition(" ")[0]:
        return [Cause("source", after, before, after)]
    return [Cause("upstream", after or "an earlier step")]


def _image(identifier: str) -> str:
    return identifier.partition("://")[2]


def _files(old: str, new: str, files: Files) -> list[Cause]:
    before, after = files(old) if old else None, files(new)
    if before is None or after is None:
        return [Cause("files")]
    found: list[Cause] = []
    for path in sorted({*before, *after}):
        was, now = before.get(path), after.get(path)
        if was == now:
            continue
        if was is None:
            found.append(Cause("file-added", path))
        elif now is None:
            found.append(Cause("file-removed", path))
        else:
            found += _changed(path, was, now)
    if len(found) > MAX_FILES:
        rest = len(found) - MAX_FILES
        return [*found[:MAX_FILES], Cause("files", "", "", str(rest))]
    return found or [Cause("files")]


def _changed(path: str, was: Entry, now: Entry) -> list[Cause]:
    """A file of the same size and another mode has changed its mode; that its text has, too, is not seen."""
    if was[0] == now[0]:
        return []
    same_type = was[1] >> 12 == now[1] >> 12
    found = []
    if same_type and was[1] != now[1]:
        found.append(Cause("file-mode", path, f"{was[1] & 0o7777:04o}", f"{now[1] & 0o7777:04o}"))
    if not found or was[2] != now[2]:
        found.append(Cause("file-changed", path))
    return found
