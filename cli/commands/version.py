"""``pybuild version``."""

from __future__ import annotations

import sys
from typing import Any

from cli.app import App
from cli.flags import Args, Command, text


def short_version() -> str:
    """What ``pybuild --version`` prints."""
    from pybuild import __version__

    return f"pybuild version {__version__}"


def facts() -> dict[str, Any]:
    """What is known about this program."""
    import os
    import platform

    from builder.frontend.syntax import CAPABILITIES
    from builder.oci.platform import host_platform
    from pybuild import __version__

    host = host_platform()
    return {
        "Version": __version__,
        "PythonVersion": platform.python_version(),
        "Python": sys.executable,
        "Os": host.os,
        "Arch": host.architecture,
        "KernelVersion": os.uname().release,
        "FrontendCapabilities": list(CAPABILITIES),
    }


def run(app: App, args: Args) -> int:
    """Print the facts."""
    from cli.render.format import formatted

    found = facts()
    if args.text("format"):
        app.say(formatted(args.text("format"), found | {"Client": found, "Server": found}))
        return 0
    app.say("pybuild (daemonless)")
    app.say(f" Version:           {found['Version']}")
    app.say(f" Python version:    {found['PythonVersion']}")
    app.say(f" OS/Arch:           {found['Os']}/{found['Arch']}")
    app.say(f" Kernel version:    {found['KernelVersion']}")
    return 0


COMMANDS = (
    Command(
        "version",
        "[OPTIONS]",
        "Show version information",
        run,
        flags=(text("format", "f", "Template, or json"),),
    ),
)
