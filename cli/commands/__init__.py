"""The verbs, one module each; this table lets the command line find them without importing them."""

from __future__ import annotations

SUMMARIES: dict[str, str] = {
    "attach": "Attach to a running container",
    "build": "Build an image from a Dockerfile",
    "commit": "Create an image from a container's changes",
    "completion": "Print a shell completion script",
    "cp": "Copy files between a container and the local file system",
    "create": "Create a container without starting it",
    "df": "Show disk usage",
    "diff": "Show what a container changed in its file system",
    "doctor": "Check what this machine allows, and say what would lift each limit",
    "du": "Show what the build cache keeps",
    "events": "Show events, live or from the record",
    "exec": "Run a command in a running container",
    "explain": "Say why the steps of a build had to run",
    "export": "Write a container's file system as a tar archive",
    "history": "Show how an image was made",
    "images": "List images",
    "import": "Make an image from a tar archive of a file system",
    "info": "Show facts about this installation",
    "inspect": "Show everything known about containers, images or volumes",
    "kill": "Send a signal to containers",
    "load": "Load images from an archive",
    "login": "Log in to a registry",
    "logout": "Log out from a registry",
    "logs": "Show what a container has written",
    "pause": "Freeze all processes of containers",
    "port": "Show a container's published ports",
    "prune": "Remove what is not needed",
    "prune-histories": "Forget all builds on record but pinned and running ones",
    "ps": "List containers",
    "pull": "Fetch an image from a registry",
    "push": "Send an image to a registry",
    "rename": "Give a container another name",
    "restart": "Stop and start containers",
    "rm": "Remove containers",
    "rmi": "Remove images",
    "run": "Run a command in a new container",
    "save": "Write images to an archive",
    "start": "Start stopped containers",
    "stats": "Show what containers use",
    "stop": "Stop running containers",
    "tag": "Give an image another name",
    "top": "Show the processes of a container",
    "unpause": "Let frozen containers go on",
    "version": "Show version information",
    "volume create": "Create a volume",
    "volume inspect": "Show everything known about volumes",
    "volume ls": "List volumes",
    "volume prune": "Remove volumes that no container uses",
    "volume rm": "Remove volumes",
    "wait": "Wait until containers stop, then print their exit codes",
}

SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Build and run", ("build", "run", "exec", "commit", "cp")),
    ("Images", ("images", "history", "tag", "rmi", "save", "load", "import")),
    ("Registries", ("pull", "push", "login", "logout")),
    (
        "Containers",
        (
            "ps",
            "create",
            "start",
            "stop",
            "restart",
            "kill",
            "pause",
            "unpause",
            "wait",
            "rm",
            "rename",
            "attach",
            "logs",
            "top",
            "stats",
            "port",
            "diff",
            "export",
        ),
    ),
    (
        "Everything",
        (
            *(
                "history ls",
                "history inspect",
                "history logs",
                "inspect",
                "explain",
                "events",
                "du",
                "prune",
                "info",
                "version",
                "doctor",
            ),
            *("debug fsck", "debug dump-llb", "debug shell", "completion"),
        ),
    ),
)

_BUILDER = {"build": "build", "du": "du", "prune": "builder prune"}

_HISTORY = {
    verb: f"history {verb}" for verb in ("export", "inspect", "logs", "ls", "pin", "rm", "trace", "unpin")
}
"""Verbs over the builds on record; as ``history VERB`` they stand in the way of images of these names."""

_MOUNTS = {verb: f"builder mounts {verb}" for verb in ("export", "import", "ls", "rm")}

GROUPS: dict[str, dict[str, str]] = {
    "image": {
        "build": "build",
        "history": "history",
        "import": "import",
        "inspect": "image inspect",
        "load": "load",
        "ls": "images",
        "prune": "image prune",
        "pull": "pull",
        "push": "push",
        "rm": "rmi",
        "save": "save",
        "tag": "tag",
    },
    "container": {
        verb: verb
        for verb in [
            "attach",
            "commit",
            "cp",
            "create",
            "diff",
            "exec",
            "export",
            "kill",
            "logs",
            "pause",
            "port",
            "rename",
            "restart",
            "rm",
            "run",
            "start",
            "stats",
            "stop",
            "top",
            "unpause",
            "wait",
        ]
    }
    | {"inspect": "container inspect", "ls": "ps", "prune": "container prune"},
    "volume": {verb: f"volume {verb}" for verb in ("create", "inspect", "ls", "prune", "rm")},
    "builder": _BUILDER,
    "system": {"df": "df", "events": "events", "info": "info", "prune": "prune"},
    "buildx": _BUILDER,
    "builder history": _HISTORY,
    "buildx history": _HISTORY,
    "builder mounts": _MOUNTS,
    "buildx mounts": _MOUNTS,
    "debug": {
        "fsck": "debug fsck",
        "dump-llb": "debug dump-llb",
        "shell": "debug shell",
        "get": "history inspect",
        "histories": "debug histories",
        "ctl": "debug ctl",
        "info": "info",
        "logs": "history logs",
        "monitor": "events",
        "workers": "info",
    },
}

_HIDDEN_ALIASES = {"list": "ls", "remove": "rm", "ps": "ls", "i": "import"}

SUMMARIES |= {
    "debug dump-llb": "Show the build graph of a Dockerfile, or of a definition in a file",
    "debug shell": "Open a shell where a step of an earlier build stood",
    "builder mounts export": "Write the content of a cache mount as a tar archive",
    "builder mounts import": "Make a cache mount of a tar archive",
    "builder mounts ls": "List cache mounts",
    "builder mounts rm": "Remove cache mounts",
    "builder prune": "Remove build cache",
    "debug ctl": "Pin, unpin or delete builds on record, or write their traces",
    "debug fsck": "Check the state directory, changing nothing",
    "debug histories": "List the builds on record as buildctl does",
    "container inspect": "Show everything known about containers",
    "container prune": "Remove stopped containers",
    "image inspect": "Show everything known about images",
    "image prune": "Remove images that nothing uses",
    "history export": "Write builds with their logs as an archive",
    "history inspect": "Show everything known about a build",
    "history logs": "Show the whole progress of a build again",
    "history ls": "List the builds on record",
    "history pin": "Keep builds on record",
    "history rm": "Forget builds and their logs",
    "history trace": "Print the OpenTelemetry spans of a build (OTLP JSON)",
    "history unpin": "Let builds go by age again",
}


def find(words: list[str]) -> tuple[str, int] | None:
    """The verb that ``words`` name and how many of them it took; None when there is none."""
    first = words[0]
    if first == "history" and len(words) > 1 and words[1] in _HISTORY:
        return _HISTORY[words[1]], 2
    group = " ".join(words[:2]) if len(words) > 1 else ""
    if group not in GROUPS:
        group = first
    if group in GROUPS:
        taken = group.count(" ") + 2
        if len(words) < taken:
            return None
        word = words[taken - 1]
        verb = GROUPS[group].get(word) or GROUPS[group].get(_HIDDEN_ALIASES.get(word, ""))
        return (verb, taken) if verb else None
    return (first, 1) if first in SUMMARIES or first == "__complete" else None


_MODULES = {
    "__complete": "completion",
    **dict.fromkeys(_MOUNTS.values(), "mounts"),
    "builder prune": "prune",
    "debug fsck": "fsck",
    "container inspect": "inspect",
    "container prune": "prune",
    "debug ctl": "histories",
    "debug histories": "histories",
    "df": "du",
    "prune-histories": "histories",
    **dict.fromkeys(_HISTORY.values(), "build_history"),
    "image inspect": "inspect",
    "image prune": "prune",
    "import": "import_",
}


def module_of(verb: str) -> str:
    """The module that carries out ``verb``; it lists its ``COMMANDS``."""
    return f"cli.commands.{_MODULES.get(verb) or verb.split()[0]}"
