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
            *("inspect", "explain", "events", "du", "prune", "info", "version", "doctor"),
            *("debug dump-llb", "completion"),
        ),
    ),
)

_BUILDER = {"build": "build", "du": "du", "prune": "builder prune"}

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
    "debug": {"dump-llb": "debug dump-llb"},
}

_HIDDEN_ALIASES = {"list": "ls", "remove": "rm", "ps": "ls", "i": "import"}

SUMMARIES |= {
    "debug dump-llb": "Show the build graph of a Dockerfile",
    "builder prune": "Remove build cache",
    "container inspect": "Show everything known about containers",
    "container prune": "Remove stopped containers",
    "image inspect": "Show everything known about images",
    "image prune": "Remove images that nothing uses",
}


def find(words: list[str]) -> tuple[str, int] | None:
    """The verb that ``words`` name and how many of them it took; None when there is none."""
    first = words[0]
    if first in GROUPS:
        if len(words) < 2:
            return None
        verbs = GROUPS[first]
        verb = verbs.get(words[1]) or verbs.get(_HIDDEN_ALIASES.get(words[1], ""))
        return (verb, 2) if verb else None
    return (first, 1) if first in SUMMARIES or first == "__complete" else None


_MODULES = {
    "__complete": "completion",
    "builder prune": "prune",
    "container inspect": "inspect",
    "container prune": "prune",
    "df": "du",
    "image inspect": "inspect",
    "image prune": "prune",
    "import": "import_",
}


def module_of(verb: str) -> str:
    """The module that carries out ``verb``; it lists its ``COMMANDS``."""
    return f"cli.commands.{_MODULES.get(verb) or verb.split()[0]}"
