"""Credentials: docker's config.json and credential helpers, as values (REG-01, REG-LOGIN-2, REG-LOGOUT).

The directory of the file is passed in; nothing here reads the environment. Passwords never enter ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import InvalidValue, RegistryError

MAX_CONFIG_BYTES = 4 * 1024 * 1024
HELPER_TIMEOUT_S = 60
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user name with a password, or an identity token for the token server."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization: Basic`` header."""
        raw = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(raw).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """What config.json says about registries."""

    path: Path | None = None
    auths: tuple[tuple[str, Credentials], ...] = ()
    cred_helpers: tuple[tuple[str, str], ...] = ()
    creds_store: str = ""
    http_headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def load(cls, directory: Path) -> DockerConfig:
        """Read ``directory``/config.json; a missing file is an empty configuration. Raises InvalidValue."""
        path = directory / "config.json"
        value = _read_json(path)
        auths = value.get("auths")
        helpers = value.get("credHelpers")
        headers = value.get("HttpHeaders")
        store = value.get("credsStore")
        return cls(
            path=path,
            auths=tuple((k, _entry(k, v)) for k, v in auths.items()) if isinstance(auths, dict) else (),
            cred_helpers=_text_pairs(helpers),
            creds_store=store if isinstance(store, str) else "",
            http_headers=_text_pairs(headers),
        )

    def credentials(self, registry: str, repository: str = "") -> Credentials | None:
        """What to say to ``registry``: its helper, the store of all, the file itself, in this order."""
        for server in _server_names(registry):
            for key, helper in self.cred_helpers:
                if _host_of(key) == _host_of(server):
                    return helper_get(helper, key)
        if self.creds_store:
            found = helper_get(self.creds_store, server_key(registry))
            if found is not None:
                return found
        return self._from_file(registry, repository)

    def _from_file(self, registry: str, repository: str) -> Credentials | None:
        """The most exact entry: ``host/namespace`` keys (containers' auth.json) win over the host."""
        hosts = {_host_of(name) for name in _server_names(registry)}
        best: tuple[int, Credentials] | None = None
        for key, credentials in self.auths:
            host, _, path = _strip_scheme(key).partition("/")
            if host not in hosts:
                continue
            path = path.strip("/")
            if path in ("", "v1", "v2") or "://" in key:
                length = 0
            elif repository == path or repository.startswith(path + "/"):
                length = len(path)
            else:
                continue
            if not (credentials.username or credentials.identity_token):
                continue
            if best is None or length > best[0]:
                best = (length, credentials)
        return best[1] if best else None

    def login(self, registry: str, credentials: Credentials) -> str:
        """Keep ``credentials``; returns where: the helper's name or the file (REG-LOGIN-2)."""
        key = server_key(registry)
        helper = self._helper_for(registry)
        if helper:
            helper_store(helper, key, credentials)
            return f"docker-credential-{helper}"
        entry: dict[str, str] = {"auth": credentials.basic.removeprefix("Basic ")}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        self._update_auths(key, entry)
        return str(self.path)

    def logout(self, registry: str) -> bool:
        """Forget the credentials of ``registry``; whether there were any (REG-LOGOUT)."""
        helper = self._helper_for(registry)
        if helper:
            known = helper_get(helper, server_key(registry)) is not None
            if known:
                helper_erase(helper, server_key(registry))
            return known
        hosts = {_host_of(name) for name in _server_names(registry)}
        keys = [key for key, _ in self.auths if _host_of(key) in hosts]
        for key in keys:
            self._update_auths(key, None)
        return bool(keys)

    def _helper_for(self, registry: str) -> str:
        hosts = {_host_of(name) for name in _server_names(registry)}
        for key, helper in self.cred_helpers:
            if _host_of(key) in hosts:
                return helper
        return self.creds_store

    def _update_auths(self, key: str, entry: dict[str, str] | None) -> None:
        if self.path is None:
            raise RegistryError("no configuration directory to keep credentials in")
        value = _read_json(self.path)
        auths = value.get("auths")
        auths = auths if isinstance(auths, dict) else {}
        if entry is None:
            auths.pop(key, None)
        else:
            auths[key] = entry
        value["auths"] = auths
        try:
            _write_private(self.path, json.dumps(value, indent="\t").encode())
        except OSError as error:
            raise RegistryError(
                f"cannot write credentials to {self.path}: {error.strerror}",
                hint="name a directory that can be written to with DOCKER_CONFIG or --config",
            ) from error


def server_key(registry: str) -> str:
    """The key under which ``registry`` is kept in config.json."""
    return DOCKER_HUB_KEY if registry in _HUB_HOSTS else registry


def _server_names(registry: str) -> tuple[str, ...]:
    return (DOCKER_HUB_KEY, *sorted(_HUB_HOSTS)) if registry in _HUB_HOSTS else (registry,)


def _strip_scheme(key: str) -> str:
    return key.partition("://")[2] if "://" in key else key


def _host_of(key: str) -> str:
    return _strip_scheme(key).partition("/")[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise InvalidValue(f"{path} is too large")
    try:
        value = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValue(f"{path} must hold a JSON object")
    return value


def _text_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return ()
    return tuple((str(k), v) for k, v in value.items() if isinstance(v, str))


def _entry(key: str, value: Any) -> Credentials:
    if value is None:
        return Credentials()
    if not isinstance(value, dict):
        raise InvalidValue(f"config.json: auths entry for {key[:100]!r} must be an object")
    username, password = value.get("username") or "", value.get("password") or ""
    encoded = value.get("auth") or ""
    if encoded:
        try:
            text = base64.b64decode(encoded, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError) as error:
            raise InvalidValue(f"config.json: auth of {key[:100]!r} is not valid base64 text") from error
        username, _, password = text.partition(":")
        password = password.rstrip("\x00")
    token = value.get("identitytoken") or ""
    return Credentials(username=str(username), password=str(password), identity_token=str(token))


def _write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` at once, readable by its owner only; a link stays a link to the replaced file."""
    import os
    import tempfile

    target = path.resolve()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=".config-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def helper_get(helper: str, server: str) -> Credentials | None:
    """Ask ``docker-credential-<helper>``; None when it has nothing. Raises RegistryError."""
    code, output = _run_helper(helper, "get", server.encode())
    if code != 0:
        if _NOT_FOUND in output.decode("utf-8", "replace"):
            return None
        raise RegistryError(
            f"credential helper {helper!r} failed for {server}",
            context=tuple(filter(None, (output.decode("utf-8", "replace")[:300].strip(),))),
        )
    try:
        value = json.loads(output)
        username, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"credential helper {helper!r} gave no valid reply for {server}") from error
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


def helper_store(helper: str, server: str, credentials: Credentials) -> None:
    """Give credentials to a helper. Raises RegistryError."""
    secret = credentials.identity_token or credentials.password
    username = "<token>" if credentials.identity_token else credentials.username
    message = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
    _must(helper, "store", message)


def helper_erase(helper: str, server: str) -> None:
    """Let a helper forget a server. Raises RegistryError."""
    _must(helper, "erase", server.encode())


def _must(helper: str, verb: str, message: bytes) -> None:
    code, output = _run_helper(helper, verb, message)
    if code != 0:
        detail = output.decode("utf-8", "replace")[:300]
        raise RegistryError(
            f"credential helper {helper!r} could not {verb} credentials",
            context=(detail.strip() or f"exit status {code}",),
        )


def _run_helper(helper: str, verb: str, message: bytes) -> tuple[int, bytes]:
    import subprocess

    if not helper or not all(c.isalnum() or c in "-_." for c in helper):
        raise InvalidValue(f"invalid credential helper name {helper[:80]!r}")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=message, stdout=subprocess.PIPE, timeout=HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise RegistryError(
            f"credential helper {program} is not installed",
            hint="install it, or remove credsStore/credHelpers from config.json",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"credential helper {program} cannot be run: {error}") from error
    return done.returncode, done.stdout
