"""What the surroundings say: environment variables and the user's configuration; nothing else reads them.

The command line wins over the environment, the environment over the configuration file (``cli.config``).
There may be two: the machine's and, over it, the user's. ``PYBUILD_CONFIG``, or ``--config`` with a name that
ends in ``.toml``, names one file in the place of both.
"""

from __future__ import annotations

import os

from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from cli.config import Config
    from runtime.hosts import Dns

SYSTEM_FILE = "/etc/pybuild/config.toml"
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


def home_of_user() -> str:
    """The home directory that the system knows, "/" for a user it does not know."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir or "/"
    except KeyError:
        return "/"


class Settings:
    """The environment and the config file of one call."""

    __slots__ = ("_config", "_config_dir", "_config_file", "_environ", "_looked", "_root")

    def __init__(self, environ: Mapping[str, str], *, root: str = "", config_dir: str = "") -> None:
        self._environ = environ
        self._root = root
        own = config_dir.endswith(".toml")
        self._config_dir = "" if own else config_dir
        self._config_file = config_dir if own else environ.get("PYBUILD_CONFIG", "")
        self._config: Config | None = None
        self._looked = False

    @classmethod
    def load(cls, *, root: str = "", config_dir: str = "") -> Settings:
        """Settings of this process; empty texts = not given on the command line.

        ``config_dir`` is ``--config``: docker's directory, or a configuration file of ours.
        """
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
        return _path(self._environ.get("HOME") or home_of_user())

    @property
    def root(self) -> Path:
        """The state directory (design: ``--root``, PYBUILD_ROOT, file, then the default for this user)."""
        chosen = self._root or self._environ.get("PYBUILD_ROOT") or self._said("root")
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
        return self._environ.get("BUILDKIT_PROGRESS") or self._said("progress") or "auto"

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
    def history_limits(self) -> tuple[int, int]:
        """How many builds, and of how many seconds back, stay on record (HSY-05)."""
        count = self.config.history_max_entries if self.config else None
        age_s = self.config.history_max_age_s if self.config else None
        return 50 if count is None else count, 48 * 3600 if age_s is None else int(age_s)

    @property
    def step_log_limits(self) -> tuple[int, int]:
        """Bytes, and bytes per second, that a step may show; -1 = any number (EXE-27)."""
        return (
            self._limit("BUILDKIT_STEP_LOG_MAX_SIZE", 2 << 20),
            self._limit("BUILDKIT_STEP_LOG_MAX_SPEED", 200 << 10),
        )

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
        """Proxy variables of the environment, as spelt there, then those of the file."""
        names = (*PROXY_NAMES, *(name.lower() for name in PROXY_NAMES))
        found = {name: self._environ[name] for name in names if self._environ.get(name)}
        taken = {name.upper() for name in found}
        return (*found.items(), *(pair for pair in self._pairs("proxies") if pair[0] not in taken))

    @property
    def ssh_auth_sock(self) -> str | None:
        """The socket of the user's ssh agent."""
        return self._environ.get("SSH_AUTH_SOCK") or None

    @property
    def terminal_type(self) -> str:
        """TERM, or ``xterm``."""
        return self._environ.get("TERM") or "xterm"

    @property
    def config(self) -> Config | None:
        """What the configuration files say; None without any. Costs one look for each of two files."""
        if not self._looked:
            paths = tuple(path for path in self._config_paths() if os.path.exists(path))
            if self._config_file and not paths:
                raise UsageError(f"config file {self._config_file}: No such file or directory")
            if paths:
                from cli.config import load

                self._config = load(paths)
            self._looked = True
        return self._config

    @property
    def max_parallelism(self) -> int | None:
        """Steps that may run at the same time; None = the builder's own choice."""
        return (self.config.max_parallelism or None) if self.config else None

    @property
    def insecure_registries(self) -> tuple[str, ...]:
        """Registries that may be spoken to without TLS."""
        return self.config.insecure_registries if self.config else ()

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
        return self.config.allow if self.config else ()

    @property
    def cdi_dirs(self) -> tuple[str, ...]:
        """Where devices are described, if not where it is usual."""
        return self.config.cdi_dirs if self.config else ()

    @property
    def dns(self) -> Dns | None:
        """Resolver settings of RUN steps, if the configuration has any."""
        found = self.config
        if not found or not (found.nameservers or found.dns_search or found.dns_options):
            return None
        from runtime.hosts import Dns

        return Dns(found.nameservers, found.dns_search, found.dns_options)

    @property
    def snapshotter(self) -> Literal["auto", "overlay", "native"]:
        """How new snapshots are made."""
        said = self._said("snapshotter")
        return "overlay" if said == "overlay" else "native" if said == "native" else "auto"

    @property
    def cgroup_parent(self) -> str:
        """Parent cgroup of steps without ``--cgroup-parent``."""
        return self._said("cgroup_parent")

    @property
    def platforms(self) -> tuple[str, ...]:
        """Target platforms of builds without ``--platform``."""
        return self.config.platforms if self.config else ()

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Labels of every image that is built."""
        return self._pairs("labels")

    @property
    def docker_proxies(self) -> tuple[tuple[str, str], ...]:
        """Proxies for builds from docker's ``config.json`` (``proxies.default``), as variables."""
        path = (
            f"{self._environ.get('DOCKER_CONFIG') or self._config_dir or f'{self.home}/.docker'}/config.json"
        )
        try:
            with open(path, "rb") as file:
                data = file.read(1 << 20)
        except OSError:
            return ()
        if b'"proxies"' not in data:
            return ()
        import json

        try:
            found = json.loads(data)["proxies"]["default"]
            names = {name: f"{name.removesuffix('Proxy').upper()}_PROXY" for name in found}
            return tuple((names[name], str(value)) for name, value in found.items() if value)
        except (ValueError, KeyError, TypeError, AttributeError):
            return ()

    @property
    def traced(self) -> bool:
        """Whether tracebacks of unexpected errors are wanted without ``--debug``."""
        return bool(self._environ.get("PYBUILD_DEBUG"))

    def _whole(self, name: str, default: int) -> int:
        value = self._environ.get(name, "")
        return int(value) if value.isdigit() else default

    def _limit(self, name: str, default: int) -> int:
        """A number of bytes; negative ones all mean that there is no limit."""
        try:
            return max(-1, int(self._environ.get(name, "")))
        except ValueError:
            return default

    def _said(self, name: str) -> str:
        """A text of the configuration files, "" when they do not say it."""
        return str(getattr(self.config, name)) if self.config else ""

    def _pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        return getattr(self.config, name) if self.config else ()

    def _config_paths(self) -> tuple[str, ...]:
        if self._config_file:
            return (os.path.abspath(os.path.expanduser(self._config_file)),)
        base = self._environ.get("XDG_CONFIG_HOME") or f"{self.home}/.config"
        return (SYSTEM_FILE, f"{base}/pybuild/config.toml")


def _path(text: str | os.PathLike[str]) -> Path:
    from pathlib import Path

    return Path(text)
