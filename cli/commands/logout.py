"""``pybuild logout`` (row REG-LOGOUT)."""

from __future__ import annotations

from cli.app import App
from cli.commands.login import registry_name
from cli.flags import Args, Command


def run(app: App, args: Args) -> int:
    """Forget the credentials of a registry."""
    from builder.oci.reference import DEFAULT_REGISTRY
    from builder.registry.auth import DockerConfig

    registry = registry_name(args.words[0]) if args.words else DEFAULT_REGISTRY
    if DockerConfig.load(app.settings.docker_config_dir).logout(registry):
        app.say(f"Remove login credentials for {registry}")
    else:
        app.say(f"Not logged in to {registry}")
    return 0


COMMANDS = (Command("logout", "[SERVER]", "Log out from a registry", run, words=(0, 1)),)
