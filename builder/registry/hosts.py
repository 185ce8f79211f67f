"""How each registry host is reached: scheme, trust, mirrors (REG-03, REG-INSEC); values and their readers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import InvalidValue
from builder.registry.auth import DockerConfig
from builder.registry.http import TlsOptions

Pairs = tuple[tuple[str, str], ...]
HUB_HOST = "registry-1.docker.io"
_DEFAULT_TLS = TlsOptions()
_NO_CREDENTIALS = DockerConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Settings for one host, or (``prefix`` with a path) for the repositories below a path.

    ``location`` replaces the prefix; ``mirrors`` are tried before it; ``blocked`` refuses it.
    """

    prefix: str
    location: str = ""
    plain_http: bool | None = None
    insecure: bool = False
    blocked: bool = False
    tls: TlsOptions = _DEFAULT_TLS
    mirrors: tuple[HostConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Everything the client needs to know; hashable, so that equal settings share connections and tokens."""

    docker: DockerConfig = _NO_CREDENTIALS
    hosts: tuple[HostConfig, ...] = ()
    proxies: Pairs = ()
    no_proxy: tuple[str, ...] = ()
    certs_dirs: tuple[Path, ...] = ()
    user_agent: str = "pybuild"
    timeout_s: float = 60.0
    retry_waits_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    max_transfers: int = 4
    chunk_bytes: int = 0
    """Upload in pieces of this size; 0 = in one piece unless the registry refuses that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that serves a repository: ``scheme://host`` and the repository's name there."""

    registry: str
    host: str
    repository: str
    scheme: str
    tls: TlsOptions
    insecure: bool = False
    mirror: bool = False

    @property
    def base(self) -> str:
        """The URL below which the API lives."""
        return f"{self.scheme}://{self.host}"


def is_loopback(host: str) -> bool:
    """Whether ``host[:port]`` names this machine: such registries speak plain http by default."""
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") <= 1:
        name = host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def endpoints(config: RegistryConfig, registry: str, repository: str) -> tuple[Endpoint, ...]:
    """Where to ask for ``registry/repository``: mirrors in order, then the host itself. Raises
    InvalidValue."""
    chosen = _host_config(config, f"{registry}/{repository}")
    if chosen is None:
        return (_endpoint(config, HostConfig(prefix=registry), registry, repository, mirror=False),)
    if chosen.blocked:
        raise InvalidValue(f"registry {chosen.prefix} is blocked by configuration")
    rest = f"{registry}/{repository}".removeprefix(chosen.prefix).lstrip("/")
    found = [
        _endpoint(config, mirror, *_split(mirror.location or mirror.prefix, rest), mirror=True)
        for mirror in chosen.mirrors
    ]
    found.append(_endpoint(config, chosen, *_split(chosen.location or chosen.prefix, rest), mirror=False))
    return tuple(found)


def _split(location: str, rest: str) -> tuple[str, str]:
    host, _, path = location.strip("/").partition("/")
    repository = "/".join(part for part in (path, rest) if part)
    return host, repository


def _host_config(config: RegistryConfig, name: str) -> HostConfig | None:
    matching = [host for host in config.hosts if name == host.prefix or name.startswith(host.prefix + "/")]
    return max(matching, key=lambda host: len(host.prefix), default=None)


def _endpoint(
    config: RegistryConfig, host: HostConfig, registry: str, repository: str, *, mirror: bool
) -> Endpoint:
    address = HUB_HOST if registry in ("docker.io", "index.docker.io") else registry
    plain = is_loopback(address) if host.plain_http is None else host.plain_http
    tls = host.tls
    if tls == _DEFAULT_TLS:
        tls = _certs_of(config.certs_dirs, registry)
    if host.insecure:
        tls = TlsOptions(verify=False, client_cert=tls.client_cert, client_key=tls.client_key)
    return Endpoint(
        registry=registry,
        host=address,
        repository=repository,
        scheme="http" if plain else "https",
        tls=tls,
        insecure=host.insecure,
        mirror=mirror,
    )


def _certs_of(directories: tuple[Path, ...], registry: str) -> TlsOptions:
    """The certificates that docker keeps per host: ``<dir>/<host>/*.crt``, ``client.cert``,
    ``client.key``."""
    for directory in directories:
        folder = directory / registry
        if not folder.is_dir():
            continue
        authorities = sorted(folder.glob("*.crt"))
        certs = sorted(folder.glob("*.cert"))
        key = certs[0].with_suffix(".key") if certs else None
        return TlsOptions(
            ca_file=str(authorities[0]) if authorities else "",
            client_cert=str(certs[0]) if certs else "",
            client_key=str(key) if key is not None and key.exists() else "",
        )
    return TlsOptions()


def load_registries_conf(path: Path) -> tuple[HostConfig, ...]:
    """Read the ``[[registry]]`` tables of a registries.conf (version 2); a missing file is empty."""
    import tomllib

    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{path}: {error}") from error
    tables = value.get("registry", [])
    if not isinstance(tables, list):
        raise InvalidValue(f"{path}: 'registry' must be a list of tables")
    return tuple(_host_table(path, table) for table in tables)


def _host_table(path: Path, table: Any) -> HostConfig:
    if not isinstance(table, dict):
        raise InvalidValue(f"{path}: a registry must be a table")
    location = str(table.get("location") or "")
    prefix = str(table.get("prefix") or location)
    if not prefix or prefix.startswith("*"):
        raise InvalidValue(f"{path}: registry needs a location or a prefix without wildcard")
    mirrors = table.get("mirror") or []
    insecure = bool(table.get("insecure"))
    return HostConfig(
        prefix=prefix,
        location=location if location != prefix else "",
        insecure=insecure,
        blocked=bool(table.get("blocked")),
        mirrors=tuple(_host_table(path, mirror) for mirror in mirrors) if isinstance(mirrors, list) else (),
    )
