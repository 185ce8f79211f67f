"""What the library takes from the user's surroundings when it is not told: the state directory and how
registries are spoken to. The same places as for the command line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from builder.registry.hosts import RegistryConfig

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


def default_root() -> Path:
    """PYBUILD_ROOT, the config file's ``root``, or the default of this user."""
    chosen = os.environ.get("PYBUILD_ROOT") or _config().get("root")
    if chosen:
        return Path(str(chosen)).expanduser().absolute()
    if os.geteuid() == 0 and "_PYBUILD_USERNS" not in os.environ:
        return Path("/var/lib/pybuild")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "pybuild"


def default_registries() -> RegistryConfig:
    """Docker's credentials, ``registries.conf``, certificates and proxies of this user."""
    from builder.registry.surroundings import user_registries

    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    given = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    usual = (own / "containers/registries.conf", Path("/etc/containers/registries.conf"))
    names = (*_PROXIES, *(name.lower() for name in _PROXIES))
    insecure = _config().get("insecure-registries") or ()
    return user_registries(
        docker_config_dir=Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker").expanduser(),
        registries_conf=(Path(given), *usual) if given else usual,
        certs_dirs=(own / "containers/certs.d", Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d")),
        insecure=map(str, insecure) if isinstance(insecure, list) else (),
        proxies=[(name, os.environ[name]) for name in names if os.environ.get(name)],
    )


def _config() -> dict[str, Any]:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(base) / "pybuild/config.toml"
    if not path.exists():
        return {}
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"config file {path}: {error}") from error
