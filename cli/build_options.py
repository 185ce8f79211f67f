"""Values of build's flags that have a grammar of their own: secrets, ssh, outputs, hosts, limits.

Secret values are read here, from files or the environment, and handed on as bytes; they are never shown.
"""

from __future__ import annotations

import os

from builder.errors import UsageError
from cli.flags import Args
from cli.settings import PROXY_NAMES, Settings
from cli.units import csv_fields, csv_pairs, pair, size_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.llb.ops import Ulimit
    from builder.solver.types import Secret, SshAgent
    from runtime.spec import Limits

MAX_SECRET_BYTES = 500 * 1024


def build_args(args: Args, settings: Settings) -> tuple[tuple[str, str], ...]:
    """``--build-arg`` values, then proxies of docker's configuration, the environment and ours, and
    SOURCE_DATE_EPOCH, unless given.
    """
    found: dict[str, str] = {}
    for item in args.many("build-arg"):
        name, equals, value = item.partition("=")
        if not name:
            raise UsageError(f"invalid build argument {item!r}", hint="want NAME=VALUE or NAME")
        own = value if equals else settings.env(name)
        if own is not None:
            found[name] = own
    for source in (settings.docker_proxies, settings.proxies):
        taken = {name.upper() for name in found}
        found |= {name: value for name, value in source if name.upper() not in taken}
    if settings.epoch is not None:
        found.setdefault("SOURCE_DATE_EPOCH", settings.epoch)
    return tuple(found.items())


def is_implicit_arg(name: str) -> bool:
    """Whether a build argument may come from the environment without being asked for."""
    return name.upper() in PROXY_NAMES or name == "SOURCE_DATE_EPOCH"


def attestations(args: Args) -> tuple[str, ...]:
    """``--attest``, and ``--provenance`` and ``--sbom``, which hold attributes or a boolean (OPT-16)."""
    found = list(args.many("attest"))
    found += [f"type={name},{args.text(name)}" for name in ("provenance", "sbom") if args.given(name)]
    return tuple(found)


def labels(args: Args, settings: Settings) -> tuple[tuple[str, str], ...]:
    """Labels of the configuration, then ``--label`` values; a label without ``=`` is empty."""
    found = dict(settings.labels)
    for item in args.many("label"):
        key, _, value = item.partition("=")
        if not key:
            raise UsageError(f"invalid label {item!r}", hint="want NAME=VALUE")
        found[key] = value
    return tuple(found.items())


def read_secret(text: str, settings: Settings) -> Secret:
    """``id=NAME[,src=FILE|,env=VARIABLE]`` (CLI-03)."""
    from builder.solver.types import Secret

    fields = dict(csv_pairs(text, "secret"))
    known = {"id", "src", "source", "env", "type"}
    if unknown := sorted(set(fields) - known):
        from cli.suggest import did_you_mean

        raise UsageError(f"unexpected key {unknown[0]!r} in secret{did_you_mean(unknown[0], known)}")
    kind = fields.get("type", "")
    if kind not in ("", "file", "env"):
        raise UsageError(f"unsupported secret type {kind!r}", hint="file and env are known")
    name = fields.get("id", "")
    if not name:
        raise UsageError("secret missing ID", hint="like --secret id=token,src=token.txt")
    source, variable = fields.get("src") or fields.get("source") or "", fields.get("env") or ""
    if kind == "env" and source and not variable:
        source, variable = "", source
    if not source and not variable:
        if kind == "env" or (kind == "" and settings.env(name) is not None):
            variable = name
        else:
            source = name
    if variable:
        value = settings.env(variable)
        if value is None:
            raise UsageError(f"secret {name}: environment variable {variable} is not set")
        return _checked(Secret(id=name, data=os.fsencode(value)))
    return _checked(Secret(id=name, data=_read_secret_file(name, source)))


def _read_secret_file(name: str, source: str) -> bytes:
    try:
        with open(os.path.expanduser(source), "rb") as file:
            return file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise UsageError(f"secret {name}: failed to stat {source}: {error.strerror}") from error


def _checked(secret: Secret) -> Secret:
    if len(secret.data) > MAX_SECRET_BYTES:
        raise UsageError(f"secret {secret.id} too big. max size {MAX_SECRET_BYTES // 1024}KB")
    return secret


def ssh_agents(
    args: Args, settings: Settings, at_end: Callable[[Callable[[], None]], object]
) -> tuple[SshAgent, ...]:
    """``default`` or ``NAME[=SOCKET|KEY[,KEY…]][,raw=true]`` (CLI-04); ``at_end`` takes what stops agents."""
    if not args.many("ssh"):
        return ()
    from builder.solver.types import SshAgent

    found: dict[str, SshAgent] = {}
    for item in args.many("ssh"):
        head, *more = csv_fields(item, "ssh")
        name, _, first = head.partition("=")
        name = name or "default"
        if name in found:
            raise UsageError(f"duplicate agent ID {name!r}")
        options = [field for field in more if field.startswith("raw=")]
        paths = [path for path in (first, *more) if path and path not in options]
        raw = any(option.removeprefix("raw=").lower() in ("1", "t", "true") for option in options)
        socket = _agent_of(item, name, paths, settings, at_end, raw=raw)
        found[name] = SshAgent(id=name, socket=os.path.abspath(socket), raw=raw)
    return tuple(found.values())


def _agent_of(
    item: str,
    name: str,
    paths: list[str],
    settings: Settings,
    at_end: Callable[[Callable[[], None]], object],
    *,
    raw: bool,
) -> str:
    """The socket that one ``--ssh`` means. Raises UsageError."""
    paths = [os.path.expanduser(path) for path in paths]
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(f"--ssh {item}: {path} does not exist")
    sockets = sum(map(_is_socket, paths))
    if raw and (len(paths) != 1 or sockets != 1):
        raise UsageError(f"raw mode must supply exactly one socket path for {name!r}")
    if sockets and sockets != len(paths):
        raise UsageError("invalid combination of keys and sockets", hint="give one socket, or keys only")
    if sockets > 1:
        raise UsageError("only single socket allowed")
    if paths and not sockets:
        from cli.sshkeys import agent_with

        return agent_with(paths, at_end)
    socket = paths[0] if paths else settings.ssh_auth_sock
    if not socket:
        raise UsageError(
            f"--ssh {item}: SSH_AUTH_SOCK is not set", hint="start ssh-agent, or name a socket or a key"
        )
    return socket


def _is_socket(path: str) -> bool:
    import stat

    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def extra_hosts(values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """``name:ip`` or ``name=ip``; the address may stand in brackets, ``host-gateway`` is passed on."""
    found: list[tuple[str, str]] = []
    for item in values:
        equals = "=" in item
        name, _, address = item.partition("=" if equals else ":")
        address = address.removeprefix("[").removesuffix("]")
        if not name or not address:
            raise UsageError(f"invalid key-value pair {item}", hint="want --add-host NAME:ADDRESS")
        if address != "host-gateway" and not _is_address(address):
            raise UsageError(f"failed to parse IP {address}", hint="want --add-host NAME:ADDRESS")
        found.append((name, address))
    return tuple(found)


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def ulimit(text: str) -> tuple[str, int, int]:
    """``name=soft[:hard]`` (OPT-13); -1 or ``unlimited`` = no limit."""
    name, value = pair(text, "ulimit")
    soft_text, colon, hard_text = value.partition(":")
    try:
        soft = _limit(soft_text)
        hard = _limit(hard_text) if colon else soft
    except ValueError:
        raise UsageError(f"invalid ulimit {text!r}", hint="want NAME=SOFT[:HARD]") from None
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(f"ulimit soft limit must be less than or equal to hard limit: {text}")
    return name.lower(), soft, hard


def _limit(text: str) -> int:
    return -1 if text == "unlimited" else int(text)


def ulimits(args: Args) -> tuple[Ulimit, ...]:
    """``--ulimit`` values of a build."""
    if not args.many("ulimit"):
        return ()
    from builder.llb.ops import Ulimit
    from runtime.plan import RLIMITS

    found = [ulimit(text) for text in args.many("ulimit")]
    for name, _, _ in found:
        if name not in RLIMITS:
            raise UsageError(f"unknown ulimit {name!r}", hint=f"known: {', '.join(RLIMITS)}")
    return tuple(Ulimit(name=name, soft=soft, hard=hard) for name, soft, hard in found)


def limits(args: Args) -> Limits:
    """The cgroup limits that build, run and create share (BLD-09, RUN-24, RUN-43)."""
    from runtime.spec import Limits

    memory = size_bytes(args.text("memory"), "memory limit") if args.text("memory") else None
    if memory is not None and 0 < memory < 6 << 20:
        raise UsageError("minimum memory limit allowed is 6MB")
    return Limits(
        memory_bytes=memory or None,
        memory_swap_bytes=_swap(args.text("memory-swap"), memory),
        cpu_shares=args.number("cpu-shares") or None,
        cpu_period_us=args.number("cpu-period") or None,
        cpu_quota_us=args.number("cpu-quota") or None,
        cpuset_cpus=args.text("cpuset-cpus"),
        cpuset_mems=args.text("cpuset-mems"),
    )


def _swap(text: str, memory: int | None) -> int | None:
    if not text:
        return None
    if text == "-1":
        return -1
    swap = size_bytes(text, "memory+swap limit")
    if not memory:
        raise UsageError("--memory-swap needs --memory", hint="it is the sum of memory and swap")
    if swap and swap < memory:
        raise UsageError("minimum memory+swap limit should be larger than the memory limit")
    return swap or None
