"""The text of ``/etc/hosts``, ``/etc/resolv.conf`` and ``/etc/hostname`` of a container (EXE-14, EXE-15,
CRE-09).

Everything here is a function from text to text, except ``host_resolv_conf`` and ``host_hosts``, which read
the two host files. Addresses and names come from users, so each is checked before it becomes a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ContainerError

PUBLIC_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
HOST_GATEWAY = "host-gateway"

_STUB_RESOLVER = "127.0.0.53"
_RESOLV_CONF = Path("/etc/resolv.conf")
_SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
_HOSTS = Path("/etc/hosts")
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Dns:
    """Resolver settings that win over the host's."""

    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class BadHostEntry(ContainerError):
    """An ``--add-host``, ``--dns`` or ``--hostname`` value cannot become a line of a file."""

    code = "invalid-host-entry"


def parse_add_host(text: str, *, gateway: str = "") -> tuple[str, str]:
    """``NAME:IP`` or ``NAME=IP`` as (name, address); ``host-gateway`` stands for ``gateway`` (RUN-02)."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    address = address.strip().removeprefix("[").removesuffix("]")
    if not separator or not name or not address:
        raise BadHostEntry(f"invalid argument {text!r} for --add-host", hint="write NAME:IP")
    if address == HOST_GATEWAY:
        if not gateway:
            raise BadHostEntry("host-gateway has no meaning in this network mode")
        address = gateway
    return _checked_name(name), checked_address(address)


def checked_address(text: str) -> str:
    """``text`` when it is an IPv4 or IPv6 address (a zone is allowed); raises BadHostEntry."""
    import _socket

    plain = text.partition("%")[0]
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, plain)
        except (OSError, ValueError):
            continue
        if not any(c.isspace() for c in text):
            return text
    raise BadHostEntry(f"invalid IP address {text!r}")


def _checked_name(name: str) -> str:
    if not name or any(c.isspace() or c in "#\0" or ord(c) < 32 for c in name):
        raise BadHostEntry(f"invalid host name {name!r}")
    return name


def hostname_file(hostname: str) -> str:
    """The content of ``/etc/hostname``."""
    return f"{_checked_name(hostname)}\n"


def hosts_file(hostname: str, *, address: str = "", extra: tuple[tuple[str, str], ...] = ()) -> str:
    """``/etc/hosts``: the loopback lines, the container's own name, then ``extra`` (name, address) pairs.

    Without ``address`` the own name is an alias of localhost (EXE-14).
    """
    own = _checked_name(hostname) if hostname else ""
    first = f"127.0.0.1\tlocalhost {own}".rstrip() if not address else "127.0.0.1\tlocalhost"
    lines = [first, "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{checked_address(ip)}\t{_checked_name(name)}" for name, ip in extra]
    if address and own:
        lines.append(f"{address}\t{own}")
    return "\n".join(lines) + "\n"


def host_hosts(extra: tuple[tuple[str, str], ...] = (), *, path: Path = _HOSTS) -> str:
    """The host's own file with ``extra`` lines appended: what a container on the host's network sees
    (NET-02).
    """
    text = _read(path) or "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
    if not text.endswith("\n"):
        text += "\n"
    return text + "".join(f"{checked_address(ip)}\t{_checked_name(name)}\n" for name, ip in extra)


def host_resolv_conf(*, path: Path = _RESOLV_CONF, systemd_path: Path = _SYSTEMD_RESOLV_CONF) -> str:
    """The host's resolver configuration; the real one behind systemd's stub when only that is listed."""
    text = _read(path)
    if nameservers(text) == (_STUB_RESOLVER,):
        return _read(systemd_path) or text
    return text


def resolv_conf(
    host_text: str,
    *,
    isolated: bool,
    dns: tuple[str, ...] = (),
    search: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> str:
    """``/etc/resolv.conf`` for a container.

    Without settings of its own a container on the host's network keeps ``host_text`` as it is. An
    ``isolated`` one cannot reach name servers on the host's loopback: they are dropped, and public ones
    used when none is left. ``search`` of a single dot means no search list.
    """
    if not (dns or search or options or isolated):
        return host_text
    kept: list[str] = []
    servers = list(dns)
    for line in host_text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver":
            if not dns and len(words) > 1 and not (isolated and _is_loopback(words[1])):
                servers.append(words[1])
        elif not (words[0] in ("search", "domain") and search) and not (words[0] == "options" and options):
            kept.append(" ".join(words))
    if not servers and isolated:
        servers = list(PUBLIC_NAMESERVERS)
    lines = [f"nameserver {checked_address(server)}" for server in servers]
    if search and search != (".",):
        lines.append("search " + " ".join(_checked_name(name) for name in search))
    if options:
        lines.append("options " + " ".join(_checked_name(option) for option in options))
    return "\n".join(kept + lines) + "\n"


def nameservers(text: str) -> tuple[str, ...]:
    """The name servers of a resolver configuration, in order."""
    words = (line.split() for line in text.splitlines())
    return tuple(w[1] for w in words if len(w) > 1 and w[0] == "nameserver")


def loopback_warning(dns: tuple[str, ...]) -> str | None:
    """A warning for ``--dns`` values on the loopback (NET-11)."""
    local = [server for server in dns if _is_loopback(server)]
    if not local:
        return None
    return f"Localhost DNS setting (--dns={local[0]}) may fail in containers."


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""
