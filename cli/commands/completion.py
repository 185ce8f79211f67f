"""``pybuild completion``: a script for the shell, and what it asks (``__complete``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from builder.errors import PybuildError, UsageError
from cli.app import App
from cli.commands import GROUPS, SUMMARIES, find, module_of
from cli.flags import Args, Command

_BASH = r"""# bash completion for pybuild: source <(pybuild completion bash)
_pybuild() {
    local IFS=$'\n' cur="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=($(pybuild __complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$cur" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        compopt -o default 2>/dev/null
    elif [[ "${COMPREPLY[0]}" == *[=,] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pybuild pybuild
"""
_ZSH = """#compdef pybuild
# zsh completion for pybuild: source <(pybuild completion zsh)
autoload -U +X bashcompinit && bashcompinit
"""
_CONTAINERS = frozenset(GROUPS["container"]) - {"create", "ls", "prune", "run"} | {"inspect"}
_IMAGES = frozenset(["create", "history", "inspect", "push", "rmi", "run", "save", "tag"]) | {"image inspect"}
_VALUES = {
    "cache-from": ("type=azblob,", "type=gha,", "type=local,src=", "type=registry,ref=", "type=s3,"),
    "cache-to": (
        "type=azblob,",
        "type=gha,",
        "type=inline",
        "type=local,dest=",
        "type=registry,ref=",
        "type=s3,",
    ),
    "call": ("build", "check", "outline", "targets"),
    "on-error": ("shell",),
    "output": tuple(
        f"type={kind}" for kind in ("cacheonly", "docker", "image", "local", "oci", "registry", "tar")
    ),
    "progress": ("auto", "plain", "quiet", "rawjson", "tty"),
}
"""Values of flags by name."""


def run(app: App, args: Args) -> int:
    """Print the script."""
    shell = args.words[0] if args.words else "bash"
    if shell not in ("bash", "zsh"):
        raise UsageError(f"no completion for {shell!r}", hint="bash and zsh are known")
    app.write((_BASH if shell == "bash" else _ZSH + _BASH).encode())
    return 0


def complete(app: App, args: Args) -> int:
    """Print the words that may stand where the last of ``args.words`` stands, one per line."""
    words, cut = _whole(args.words or ("",))
    *before, current = words
    for word in sorted(set(_candidates(app, before, current))):
        if word.startswith(current):
            app.say(word[cut:])
    return 0


def _whole(words: Sequence[str]) -> tuple[list[str], int]:
    """The words as typed, which bash parts at ``=``; and how much of the last one bash has done."""
    whole: list[str] = []
    joined, cut = False, 0
    for word in words:
        cut = 0
        if whole and (word == "=" or (joined and not word.startswith("-"))):
            cut = len(whole[-1]) + 1 if word == "=" else len(whole[-1])
            whole[-1] += word
        else:
            whole.append(word)
        joined = word == "="
    return whole, cut


def _candidates(app: App, before: list[str], current: str) -> list[str]:
    words = [word for word in before if not word.startswith("-")]
    if not words:
        return [
            *(name for name in SUMMARIES if " " not in name),
            *(group for group in GROUPS if " " not in group),
            "--help",
            "--root",
            "--debug",
            "--version",
        ]
    found = find(words)
    if found is None:
        group = " ".join(words[:2])
        inner = [name.split()[1] for name in GROUPS if name.startswith(f"{group} ")]
        return [*GROUPS.get(group, ()), *inner]
    verb, _ = found
    command = next(c for c in import_module(module_of(verb)).COMMANDS if c.name == verb)
    values = _values(command, before[-1], current)
    if values is not None:
        return values
    flags = [f"--{flag.name}" for flag in command.flags if not flag.hidden] + ["--help"]
    more = GROUPS["builder history"] if words == ["history"] else ()
    return [*flags, *more, *_names(app, verb)]


def _values(command: Command, last: str, current: str) -> list[str] | None:
    """What a flag's value may be; [] when it is anything; None when no value stands here."""
    name, equals, _ = current.partition("=")
    lead = ""
    if equals and name.startswith("--"):
        lead = f"{name}="
    else:
        name = last
    flag = next((flag for flag in command.flags if name in (f"--{flag.name}", f"-{flag.short}")), None)
    if flag is None or (not lead and (flag.kind == "bool" or flag.bare)):
        return [] if lead else None
    if flag.name == "progress" and command.name == "history logs":
        return [f"{lead}{value}" for value in ("plain", "rawjson", "tty")]
    return [f"{lead}{value}" for value in _VALUES.get(flag.name, ())]


def _names(app: App, verb: str) -> list[str]:
    names: list[str] = []
    try:
        if verb in _CONTAINERS:
            names += [row.name for row in app.store.containers.list()]
        if verb in _IMAGES:
            from builder.oci.reference import Reference

            names += [
                Reference.parse(name).familiar for image in app.store.images.list() for name in image.names
            ]
        if verb.startswith("history "):
            names += [row.id for row in app.store.builds.list()]
        if verb in ("builder mounts export", "builder mounts import", "builder mounts rm"):
            names += [row.id for row in app.store.cache_mounts.list()]
        if verb == "debug shell":
            names += [row.id for row in app.store.builds.list()]
        if verb.startswith("volume"):
            names += [row.name for row in app.store.volumes.list()]
    except PybuildError:
        return names
    return names


COMMANDS = (
    Command(
        "completion",
        "[bash|zsh]",
        "Print a shell completion script",
        run,
        words=(0, 1),
        details="Load it with:  source <(pybuild completion bash)",
    ),
    Command("__complete", "[WORD...]", "", complete, words=(0, None)),
)
