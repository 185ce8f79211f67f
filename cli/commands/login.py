"""``pybuild login`` (rows REG-LOGIN-1 … REG-LOGIN-3)."""

from __future__ import annotations

import sys

from builder.errors import Unauthorized, UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, switch, text

FLAGS = (
    text("email", "e", "Accepted for compatibility", hidden=True),
    text("password", "p", "Password (seen by others in the list of processes; better --password-stdin)"),
    switch("password-stdin", "", "Read the password from standard input"),
    text("username", "u", "User name"),
)


def run(app: App, args: Args) -> int:
    """Check the credentials with the registry, then keep them."""
    from dataclasses import replace

    from builder.oci.reference import DEFAULT_REGISTRY
    from builder.registry.auth import Credentials, DockerConfig, server_key
    from builder.registry.client import RegistryClient

    registry = registry_name(args.words[0]) if args.words else DEFAULT_REGISTRY
    username, password = _ask(app, args, registry)
    credentials = Credentials(username=username, password=password)
    config = app.registry_config()
    offered = DockerConfig(auths=((server_key(registry), credentials),))
    client = RegistryClient(replace(config, docker=offered))
    try:
        client.ping(registry)
    except Unauthorized as error:
        raise Unauthorized(
            f"login to {registry} denied: {error.message}",
            request=error.request,
            status=error.status,
            hint="check the user name and the password",
        ) from error
    finally:
        client.close()
    where = DockerConfig.load(app.settings.docker_config_dir).login(registry, credentials)
    if where.startswith("/"):
        app.note(f"WARNING! The password is kept unencrypted in {where}.")
        app.note("Configure a credential helper (credsStore) to keep it elsewhere.")
    app.say("Login Succeeded")
    return 0


def registry_name(text: str) -> str:
    """A registry as people name it: an address loses its scheme and path, Docker Hub has many names."""
    from builder.oci.reference import DEFAULT_REGISTRY

    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0]
    if not _is_address(host):
        raise UsageError(f"invalid registry {text!r}", hint="want HOST or HOST:PORT")
    return DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io", "docker.io") else host


def _is_address(host: str) -> bool:
    """HOST or HOST:PORT, as an address on the network can be."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(f"//{host}")
        return bool(parts.hostname) and parts.port != 0 and host.isprintable() and " " not in host
    except ValueError:
        return False


def _ask(app: App, args: Args, registry: str) -> tuple[str, str]:
    username, password = args.text("username"), args.text("password")
    if args.on("password-stdin"):
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not username:
            raise UsageError("Must provide --username with --password-stdin")
        password = app.stdin.read(65536).decode("utf-8", "surrogateescape").rstrip("\r\n")
    if (not username or not password) and not is_terminal(0):
        raise UsageError(
            "cannot ask for credentials: standard input is not a terminal",
            hint="use --username and --password-stdin",
        )
    if not username:
        app.note(f"Log in to {registry}")
        sys.stderr.write("Username: ")
        sys.stderr.flush()
        username = sys.stdin.readline().strip()
        if not username:
            raise UsageError("username is empty")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not password:
        raise UsageError("Password Required")
    return username, password


COMMANDS = (Command("login", "[OPTIONS] [SERVER]", "Log in to a registry", run, flags=FLAGS, words=(0, 1)),)
