"""How a user's registries are spoken to, from the places where docker's and podman's settings are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from builder.registry.auth import DockerConfig
from builder.registry.hosts import HostConfig, RegistryConfig, load_registries_conf


def user_registries(
    *,
    docker_config_dir: Path,
    registries_conf: Iterable[Path] = (),
    certs_dirs: Iterable[Path] = (),
    insecure: Iterable[str] = (),
    proxies: Iterable[tuple[str, str]] = (),
    hosts: Iterable[HostConfig] = (),
) -> RegistryConfig:
    """Credentials of docker's ``config.json``, the first ``registries.conf`` that there is, certificates.

    ``hosts`` win over what ``registries.conf`` says of the same prefix; ``insecure`` are hosts that may be
    spoken to without TLS; ``proxies`` are variables such as ``HTTPS_PROXY``, as spelt in the environment.
    """
    conf = next((path for path in registries_conf if path.exists()), None)
    listed_hosts = load_registries_conf(conf) if conf is not None and _has_tables(conf) else ()
    plain = tuple(HostConfig(prefix=host, insecure=True) for host in insecure)
    listed = tuple(proxies)
    return RegistryConfig(
        docker=DockerConfig.load(docker_config_dir),
        hosts=(*plain, *hosts, *listed_hosts),
        proxies=_proxies(listed),
        no_proxy=_no_proxy(dict(listed)),
        certs_dirs=tuple(path for path in certs_dirs if path.is_dir()),
    )


def _has_tables(conf: Path) -> bool:
    """Whether the file says anything: most are all comments, and reading TOML takes long."""
    try:
        return any(line.lstrip().startswith(b"[[") for line in conf.read_bytes().splitlines())
    except OSError:
        return False


def _proxies(listed: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name, value in listed:
        scheme, _, kind = name.lower().partition("_")
        if kind == "proxy" and scheme in ("http", "https", "all"):
            found[scheme] = value
    return tuple(found.items())


def _no_proxy(listed: dict[str, str]) -> tuple[str, ...]:
    text = listed.get("no_proxy") or listed.get("NO_PROXY") or ""
    return tuple(part.strip() for part in text.split(",") if part.strip())
