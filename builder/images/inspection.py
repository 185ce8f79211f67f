"""``inspect`` of an image in docker's keys (IMG-04, IC-INSP-1)."""

from __future__ import annotations

from typing import Any

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.exporter.times import rfc3339
from builder.images.listing import image_size
from builder.images.select import find, platform_manifest
from builder.oci.config import ImageConfig, healthcheck_json
from builder.oci.platform import Platform
from builder.oci.reference import Reference

GO_ZERO_TIME = "0001-01-01T00:00:00Z"


def inspect_image(store: Store, text: str, *, platform: Platform | None = None) -> dict[str, Any]:
    """What is known about one image. Raises NoSuchImage."""
    image = find(store, text)
    found = platform_manifest(store, image.manifest, platform, text)
    config = found.config
    out: dict[str, Any] = {
        "Id": str(found.config_digest),
        "RepoTags": [Reference.parse(name).familiar for name in image.names],
        "RepoDigests": [Reference.parse(name).familiar for name in image.digests],
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created or GO_ZERO_TIME,
        "Container": "",
        "DockerVersion": _extra_text(config, "docker_version"),
        "Author": config.author,
        "Config": docker_config_json(config),
        "Architecture": config.platform.architecture,
    }
    if config.platform.variant:
        out["Variant"] = config.platform.variant
    out["Os"] = config.platform.os
    if config.platform.os_version:
        out["OsVersion"] = config.platform.os_version
    size = image_size(store, image) if platform is None else sum_of(store, image, platform)
    out |= {
        "Size": size,
        "VirtualSize": size,
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Metadata": {"LastTagTime": rfc3339(image.created_ns)},
        "Descriptor": image.manifest.to_json(),
    }
    return out


def sum_of(store: Store, image: StoredImage, platform: Platform) -> int:
    """Size of one platform's layers."""
    from builder.images.sizes import layer_sizes

    return sum(layer_sizes(store, platform_manifest(store, image.manifest, platform, str(image.id))))


def docker_config_json(config: ImageConfig) -> dict[str, Any]:
    """The ``Config`` object with all of docker's keys (IMG-03), so that templates find them."""
    out: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env) or None,
        "Cmd": _list(config.cmd),
        "Image": "",
        "Volumes": {path: {} for path in sorted(config.volumes)} or None,
        "WorkingDir": config.workdir,
        "Entrypoint": _list(config.entrypoint),
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(sorted(config.labels)) or None,
    }
    if config.exposed_ports:
        out["ExposedPorts"] = {port: {} for port in sorted(config.exposed_ports)}
    if config.healthcheck is not None:
        out["Healthcheck"] = healthcheck_json(config.healthcheck)
    if config.stop_signal:
        out["StopSignal"] = config.stop_signal
    if config.shell is not None:
        out["Shell"] = list(config.shell)
    if config.args_escaped:
        out["ArgsEscaped"] = True
    return out


def _list(value: tuple[str, ...] | None) -> list[str] | None:
    return None if value is None else list(value)


def _extra_text(config: ImageConfig, key: str) -> str:
    import json

    for name, text in config.extra:
        if name == key:
            value = json.loads(text)
            return value if isinstance(value, str) else ""
    return ""
