"""Registry settings from the surroundings: credentials, ``registries.conf``, certificates, proxies (section
16).
"""

from __future__ import annotations

from builder.registry.hosts import RegistryConfig
from builder.registry.surroundings import user_registries
from cli.settings import Settings


def registry_config(settings: Settings) -> RegistryConfig:
    """How the registries of this user are spoken to."""
    return user_registries(
        docker_config_dir=settings.docker_config_dir,
        registries_conf=settings.registries_conf,
        certs_dirs=settings.certs_dirs,
        insecure=settings.insecure_registries,
        proxies=settings.proxies,
    )
