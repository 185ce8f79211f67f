"""``pybuild port`` (row IO-PORT)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command


def run(app: App, args: Args) -> int:
    """Print published ports, or where one of them is."""
    from builder.containers import port

    one = args.words[1] if len(args.words) > 1 else ""
    for row in port(app.store, args.words[0], one):
        host = f"[{row.host_ip}]" if ":" in row.host_ip else row.host_ip
        public = f"{host}:{row.host_port}"
        app.say(public if one else f"{row.container_port}/{row.protocol} -> {public}")
    return 0


COMMANDS = (
    Command(
        "port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "Show a container's published ports",
        run,
        words=(1, 2),
    ),
)
