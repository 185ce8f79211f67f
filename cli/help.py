"""Usage texts, made from the same tables that parsing uses."""

from __future__ import annotations

from cli.commands import GROUPS, SECTIONS, SUMMARIES
from cli.flags import Command, Flag

_GLOBAL_OPTIONS = """\
Global options:
      --root dir              State directory (PYBUILD_ROOT)
  -D, --debug                 Show tracebacks and more detail
      --error-format string   How errors are shown: "text" or "json" (default "text")
      --config dir|file       Docker's configuration (DOCKER_CONFIG), or a .toml of ours (PYBUILD_CONFIG)
  -v, --version               Print version information and quit
"""


def main_help() -> str:
    """What ``pybuild --help`` prints: verbs grouped by what people do."""
    width = max(len(name) for name in SUMMARIES) + 2
    lines = [
        "Usage:  pybuild [OPTIONS] COMMAND",
        "",
        "Build, run and ship container images without a daemon",
        "",
    ]
    for title, names in SECTIONS:
        lines.append(f"{title}:")
        lines += [f"  {name:<{width}}{SUMMARIES[name]}" for name in names]
        lines.append("")
    lines.append("Command groups:")
    lines += [f"  {name:<{width}}{', '.join(sorted(verbs))}" for name, verbs in GROUPS.items() if verbs]
    lines += ["", _GLOBAL_OPTIONS, "Run 'pybuild COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def group_help(group: str) -> str:
    """What ``pybuild image --help`` prints."""
    verbs = {name: SUMMARIES[verb] for name, verb in GROUPS[group].items()}
    for inner, below in GROUPS.items():
        if inner.startswith(f"{group} "):
            verbs[inner.removeprefix(f"{group} ")] = ", ".join(sorted(below))
    width = max(len(name) for name in verbs) + 2
    lines = [f"Usage:  pybuild {group} COMMAND", "", "Commands:"]
    lines += [f"  {name:<{width}}{verbs[name]}" for name in sorted(verbs)]
    lines += ["", f"Run 'pybuild {group} COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def command_help(command: Command) -> str:
    """What ``pybuild VERB --help`` prints."""
    lines = [f"Usage:  pybuild {command.name} {command.usage}".rstrip(), "", command.summary]
    if command.details:
        lines += ["", command.details]
    shown = sorted((flag for flag in command.flags if not flag.hidden), key=lambda flag: flag.name)
    if shown:
        heads = [_head(flag) for flag in shown]
        width = max(len(head) for head in heads) + 3
        lines += ["", "Options:"]
        lines += [f"{head:<{width}}{_about(flag)}" for head, flag in zip(heads, shown, strict=True)]
    return "\n".join(lines)


def _head(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    value = "" if flag.kind == "bool" else f" {flag.metavar}"
    if flag.bare:
        value = f' {flag.metavar}[="{flag.bare}"]'
    return f"  {short}--{flag.name}{value}"


def _about(flag: Flag) -> str:
    if flag.kind == "bool":
        return f"{flag.help} (default true)" if flag.default else flag.help
    if not flag.default or "default" in flag.help:
        return flag.help
    default = f'"{flag.default}"' if flag.kind == "text" else flag.default
    return f"{flag.help} (default {default})"
