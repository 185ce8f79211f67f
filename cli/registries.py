"""Registry settings from the surroundings: credentials, ``registries.conf``, certificates, proxies (section
16).
"""

from __future__ import annotations

from pathlib import Path

from builder.registry.auth import DockerConfig
from builder.registry.hosts import HostConfig, RegistryConfig, load_registries_conf
from cli.settings import Settings


def registry_config(settings: Settings) -> RegistryConfig:
    """How the registries of this user are spoken to."""
    conf = next((path for path in settings.registries_conf if path.exists()), None)
    hosts = load_registries_conf(conf) if conf is not None and _has_tables(conf) else ()
    insecure = tuple(HostConfig(prefix=host, insecure=True) for host in settings.insecure_registries)
    return RegistryConfig(
        docker=DockerConfig.load(settings.docker_config_dir),
        hosts=(*insecure, *hosts),
        proxies=_proxies(settings),
        no_proxy=_no_proxy(settings),
        certs_dirs=tuple(path for path in settings.certs_dirs if path.is_dir()),
    )


def _has_tables(conf: Path) -> bool:
    """Whether the file says anything: most are all comments, and reading TOML takes long."""
    try:
        return any(line.lstrip().startswith(b"[[") for line in conf.read_bytes().splitlines())
    except OSError:
        return False


def _proxies(settings: Settings) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name, value in settings.proxies:
        scheme, _, kind = name.lower().partition("_")
        if kind == "proxy" and scheme in ("http", "https", "all"):
            found[scheme] = value
    return tuple(found.items())


def _no_proxy(settings: Settings) -> tuple[str, ...]:
    listed = dict(settings.proxies)
    text = listed.get("no_proxy") or listed.get("NO_PROXY") or ""
    return tuple(part.strip() for part in text.split(",") if part.strip())
