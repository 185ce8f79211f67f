"""``pybuild completion``: a script for the shell, and what it asks (``__complete``)."""

from __future__ import annotations

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
    elif [ "${COMPREPLY[0]: -1}" = "=" ]; then
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


def run(app: App, args: Args) -> int:
    """Print the script."""
    shell = args.words[0] if args.words else "bash"
    if shell not in ("bash", "zsh"):
        raise UsageError(f"no completion for {shell!r}", hint="bash and zsh are known")
    app.write((_BASH if shell == "bash" else _ZSH + _BASH).encode())
    return 0


def complete(app: App, args: Args) -> int:
    """Print the words that may stand where the last of ``args.words`` stands, one per line."""
    *before, current = args.words or ("",)
    for word in sorted(set(_candidates(app, before))):
        if word.startswith(current):
            app.say(word)
    return 0


def _candidates(app: App, before: list[str]) -> list[str]:
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
    flags = [f"--{flag.name}" for flag in command.flags if not flag.hidden] + ["--help"]
    return flags + _names(app, verb)


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
