"""Registry settings from the surroundings: credentials, our configuration file, ``registries.conf``,
certificates, proxies (section 16).
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import UsageError
from builder.registry.hosts import HostConfig, RegistryConfig
from builder.registry.http import TlsOptions
from builder.registry.surroundings import user_registries
from cli.settings import Settings
from cli.units import csv_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.config import RegistryEntry

_TRUE = ("", "1", "true")


def registry_config(settings: Settings, tls_contexts: Iterable[str] = ()) -> RegistryConfig:
    """How the registries of this user are spoken to; ``tls_contexts`` are ``--registry-auth-tlscontext``."""
    entries = settings.config.registries if settings.config else ()
    return user_registries(
        docker_config_dir=settings.docker_config_dir,
        registries_conf=settings.registries_conf,
        certs_dirs=settings.certs_dirs,
        insecure=settings.insecure_registries,
        proxies=settings.proxies,
        hosts=(*(_tls_context(text) for text in tls_contexts), *_hosts(entries)),
    )


def _hosts(entries: tuple[RegistryEntry, ...]) -> tuple[HostConfig, ...]:
    """A mirror that has a table of its own is spoken to as that says."""
    plain = {entry.host: _host(entry) for entry in entries}
    found = []
    for entry in entries:
        mirrors = tuple(_mirror(text, plain) for text in entry.mirrors)
        found.append(_host(entry, mirrors))
    return tuple(found)


def _mirror(text: str, known: dict[str, HostConfig]) -> HostConfig:
    scheme, separator, rest = text.partition("://")
    place = (rest if separator else text).strip("/")
    own = known.get(place.partition("/")[0])
    http = True if separator and scheme == "http" else own.plain_http if own else None
    return HostConfig(
        prefix=place,
        plain_http=http,
        insecure=bool(own and own.insecure),
        tls=own.tls if own else TlsOptions(),
    )


def _host(entry: RegistryEntry, mirrors: tuple[HostConfig, ...] = ()) -> HostConfig:
    return HostConfig(
        prefix=entry.host,
        plain_http=entry.http,
        insecure=entry.insecure,
        tls=TlsOptions(ca_file=entry.ca, client_cert=entry.cert, client_key=entry.key),
        mirrors=mirrors,
    )


def _tls_context(text: str) -> HostConfig:
    """``host=…[,ca=…][,cert=…,key=…][,insecure=true]``."""
    fields = dict(csv_pairs(text, "registry-auth-tlscontext"))
    if unknown := sorted(set(fields) - {"host", "ca", "cert", "key", "insecure"}):
        raise UsageError(f"unexpected key {unknown[0]!r} in --registry-auth-tlscontext")
    if not fields.get("host"):
        raise UsageError(
            f"--registry-auth-tlscontext {text!r} has no host", hint="like host=registry.lan,ca=ca.pem"
        )
    return HostConfig(
        prefix=fields["host"],
        plain_http=False if any(fields.get(key) for key in ("ca", "cert", "key")) else None,
        insecure="insecure" in fields and fields["insecure"].lower() in _TRUE,
        tls=TlsOptions(
            ca_file=fields.get("ca", ""),
            client_cert=fields.get("cert", ""),
            client_key=fields.get("key", ""),
        ),
    )
