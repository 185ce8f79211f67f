"""What the surroundings say: environment variables and the user's config file; nothing else reads them.

The config file is ``$XDG_CONFIG_HOME/pybuild/config.toml`` (optional)::

    root = "/data/pybuild"      # state directory
    progress = "plain"          # default of build --progress
    max-parallelism = 4         # steps that run at the same time
    insecure-registries = ["registry.lan:5000"]
    allow = ["network.host"]    # entitlements that every build has
    cdi-spec-dirs = ["/etc/cdi"]  # where devices are described

The command line wins over the environment, the environment over the file.
"""

from __future__ import annotations

import os

from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


class Settings:
    """The environment and the config file of one call."""

    __slots__ = ("_config_dir", "_environ", "_file", "_root")

    def __init__(self, environ: Mapping[str, str], *, root: str = "", config_dir: str = "") -> None:
        self._environ = environ
        self._root = root
        self._config_dir = config_dir
        self._file: dict[str, Any] | None = None

    @classmethod
    def load(cls, *, root: str = "", config_dir: str = "") -> Settings:
        """Settings of this process; empty texts = not given on the command line."""
        return cls(os.environ, root=root, config_dir=config_dir)

    def env(self, name: str) -> str | None:
        """An environment variable, for ``-e NAME``, ``--build-arg NAME`` and secrets."""
        return self._environ.get(name)

    def all_env(self) -> tuple[tuple[str, str], ...]:
        """The whole environment, for programs that we start for the user."""
        return tuple(self._environ.items())

    @property
    def home(self) -> Path:
        """The user's home directory."""
        return _path(self._environ.get("HOME") or os.path.expanduser("~"))

    @property
    def root(self) -> Path:
        """The state directory (design: ``--root``, PYBUILD_ROOT, file, then the default for this user)."""
        chosen = self._root or self._environ.get("PYBUILD_ROOT") or self._text("root")
        if chosen:
            return _path(os.path.abspath(os.path.expanduser(chosen)))
        if os.geteuid() == 0 and "_PYBUILD_USERNS" not in self._environ:
            return _path("/var/lib/pybuild")
        data = self._environ.get("XDG_DATA_HOME")
        return (_path(data) if data else self.home / ".local/share") / "pybuild"

    @property
    def docker_config_dir(self) -> Path:
        """Where docker's client keeps ``config.json``."""
        chosen = self._config_dir or self._environ.get("DOCKER_CONFIG")
        return _path(os.path.expanduser(chosen)) if chosen else self.home / ".docker"

    @property
    def color(self) -> bool:
        """Whether colours are wanted at all (NO_COLOR, PRG-07)."""
        return not self._environ.get("NO_COLOR") and self._environ.get("TERM") != "dumb"

    @property
    def dumb_terminal(self) -> bool:
        """Whether the terminal cannot move its cursor."""
        return self._environ.get("TERM", "") in ("", "dumb")

    @property
    def progress(self) -> str:
        """Default of ``build --progress``."""
        return self._environ.get("BUILDKIT_PROGRESS") or self._text("progress") or "auto"

    @property
    def progress_colors(self) -> str:
        """BUILDKIT_COLORS as written (PRG-07)."""
        return self._environ.get("BUILDKIT_COLORS", "")

    @property
    def tty_log_lines(self) -> int:
        """How many log lines a running step shows (PRG-07)."""
        return self._whole("BUILDKIT_TTY_LOG_LINES", 6)

    @property
    def tty_display_ms(self) -> int:
        """How often the live display is drawn (PRG-07)."""
        return max(20, self._whole("TTY_DISPLAY_RATE", 100))

    @property
    def no_truncate(self) -> bool:
        """Whether rows of the live display may be wider than the terminal (PRG-07)."""
        return self._environ.get("PROGRESS_NO_TRUNC", "").lower() in ("1", "true")

    @property
    def epoch(self) -> str | None:
        """SOURCE_DATE_EPOCH, which becomes a build argument (EPO-05)."""
        return self._environ.get("SOURCE_DATE_EPOCH") or None

    @property
    def proxies(self) -> tuple[tuple[str, str], ...]:
        """Proxy variables of the environment, as spelt there."""
        names = (*PROXY_NAMES, *(name.lower() for name in PROXY_NAMES))
        return tuple((name, self._environ[name]) for name in names if self._environ.get(name))

    @property
    def ssh_auth_sock(self) -> str | None:
        """The socket of the user's ssh agent."""
        return self._environ.get("SSH_AUTH_SOCK") or None

    @property
    def terminal_type(self) -> str:
        """TERM, or ``xterm``."""
        return self._environ.get("TERM") or "xterm"

    @property
    def max_parallelism(self) -> int | None:
        """Steps that may run at the same time; None = the builder's own choice."""
        found = self._from_file().get("max-parallelism")
        return found if isinstance(found, int) and found > 0 else None

    @property
    def insecure_registries(self) -> tuple[str, ...]:
        """Registries that may be spoken to without TLS."""
        found = self._from_file().get("insecure-registries") or ()
        return tuple(str(host) for host in found) if isinstance(found, list) else ()

    @property
    def registries_conf(self) -> tuple[Path, ...]:
        """Where ``registries.conf`` may be, the user's first."""
        own = _path(self._environ.get("XDG_CONFIG_HOME") or self.home / ".config")
        chosen = self._environ.get("CONTAINERS_REGISTRIES_CONF")
        usual = (own / "containers/registries.conf", _path("/etc/containers/registries.conf"))
        return (_path(chosen), *usual) if chosen else usual

    @property
    def certs_dirs(self) -> tuple[Path, ...]:
        """Where certificates of registries are kept, a directory per host."""
        own = _path(self._environ.get("XDG_CONFIG_HOME") or self.home / ".config")
        return (own / "containers/certs.d", _path("/etc/containers/certs.d"), _path("/etc/docker/certs.d"))

    @property
    def allow(self) -> tuple[str, ...]:
        """Entitlements that builds have without ``--allow``."""
        return self._list("allow")

    @property
    def cdi_dirs(self) -> tuple[str, ...]:
        """Where devices are described, if not where it is usual."""
        return self._list("cdi-spec-dirs")

    @property
    def traced(self) -> bool:
        """Whether tracebacks of unexpected errors are wanted without ``--debug``."""
        return bool(self._environ.get("PYBUILD_DEBUG"))

    def _whole(self, name: str, default: int) -> int:
        value = self._environ.get(name, "")
        return int(value) if value.isdigit() else default

    def _list(self, key: str) -> tuple[str, ...]:
        found = self._from_file().get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise UsageError(f"config file {self._file_path()}: {key} must be a list of texts")
        return tuple(found)

    def _text(self, key: str) -> str:
        found = self._from_file().get(key)
        if found is not None and not isinstance(found, str):
            raise UsageError(f"config file {self._file_path()}: {key} must be text")
        return found or ""

    def _file_path(self) -> str:
        base = self._environ.get("XDG_CONFIG_HOME") or f"{self.home}/.config"
        return f"{base}/pybuild/config.toml"

    def _from_file(self) -> dict[str, Any]:
        if self._file is None:
            path = self._file_path()
            self._file = _read_toml(path) if os.path.exists(path) else {}
        return self._file


def _path(text: str | os.PathLike[str]) -> Path:
    from pathlib import Path

    return Path(text)


def _read_toml(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"config file {path}: {error}") from error
