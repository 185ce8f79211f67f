"""Conversions of whole Dockerfiles as readable JSON, against base images with fixed configs."""

from __future__ import annotations

import json
from pathlib import Path

from builder.frontend.convert import ConvertOptions
from builder.llb.definition import encode_op
from builder.llb.ops import MkFile
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from tests.support.dockerfiles import FakeResolver, base_image

BUILD_PLATFORM = "linux/amd64"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IMAGES = {
    "alpine:": {"env": (f"PATH={_PATH}",), "cmd": ("/bin/sh",)},
    "alpine/git:": {"env": (f"PATH={_PATH}",), "entrypoint": ("git",), "cmd": ("--help",), "workdir": "/git"},
    "debian:": {"env": (f"PATH={_PATH}",), "cmd": ("bash",)},
    "ubuntu:": {"env": (f"PATH={_PATH}",), "cmd": ("/bin/bash",), "labels": (("org.opencontainers.image.ref.name", "ubuntu"),)},
    "node:": {"env": (f"PATH={_PATH}", "NODE_VERSION=20.11.1"), "entrypoint": ("docker-entrypoint.sh",), "cmd": ("node",)},
    "golang:": {"env": (f"PATH=/go/bin:/usr/local/go/bin:{_PATH}", "GOPATH=/go"), "cmd": ("bash",), "workdir": "/go"},
    "rust:": {"env": (f"PATH=/usr/local/cargo/bin:{_PATH}", "CARGO_HOME=/usr/local/cargo"), "cmd": ("bash",)},
    "python:": {"env": (f"PATH={_PATH}", "LANG=C.UTF-8"), "cmd": ("python3",)},
    "php:": {"env": (f"PATH={_PATH}",), "entrypoint": ("docker-php-entrypoint",), "cmd": ("apache2-foreground",), "workdir": "/var/www/html", "stop_signal": "SIGWINCH", "exposed_ports": ("80/tcp",)},
    "nginx:": {"env": (f"PATH={_PATH}",), "cmd": ("nginx", "-g", "daemon off;"), "exposed_ports": ("80/tcp",), "stop_signal": "SIGQUIT"},
    "gradle:": {"env": (f"PATH={_PATH}",), "user": "gradle", "volumes": ("/home/gradle/.gradle",), "workdir": "/home/gradle", "cmd": ("gradle",)},
    "mcr.microsoft.com/windows/": {"env": (), "cmd": ("c:\\windows\\system32\\cmd.exe",)},
    "mcr.microsoft.com/dotnet/aspnet:": {"env": (f"PATH={_PATH}", "APP_UID=1654")},
    "nvidia/cuda:": {"env": (f"PATH=/usr/local/cuda/bin:{_PATH}", "CUDA_VERSION=12.3.1"), "entrypoint": ("/opt/nvidia/nvidia_entrypoint.sh",), "labels": (("maintainer", "someone"),)},
    "gcr.io/distroless/": {"env": (f"PATH={_PATH}",), "user": "65532", "workdir": "/home/nonroot"},
    "rails:": {"env": (f"PATH={_PATH}",), "cmd": ("irb",), "on_build": ("COPY Gemfile /usr/src/app/", "RUN bundle install", "COPY . /usr/src/app")},
}  # fmt: skip


class FixedImages(FakeResolver):
    """Images look like the well-known ones of their name; the rest are plain."""

    def image(self, ref, platform, *, mode):
        short = ref.removeprefix("docker.io/").removeprefix("library/")
        fields = next((found for name, found in _IMAGES.items() if short.startswith(name)), {})
        self.configs[ref] = base_image(platform=platform, **fields)
        found = super().image(ref, platform, mode=mode)
        pinned = ref.partition("@")[2]
        return found._replace(digest=Digest.parse(pinned)) if pinned else found


def settings(folder: Path):
    """The options and the resolver that a case asks for in ``options.json``."""
    path = folder / "options.json"
    asked = json.loads(path.read_bytes()) if path.exists() else {}
    contexts = {name: tuple(found) for name, found in asked.pop("contexts", {}).items()}
    fields = {
        "platform": Platform.parse(asked.pop("platform", BUILD_PLATFORM)),
        "build_platform": Platform.parse(BUILD_PLATFORM),
        **{key: tuple(asked.pop(key, {}).items()) for key in ("build_args", "labels")},
        "no_cache": tuple(asked.pop("no_cache", ())) or False,
    }
    return ConvertOptions(**fields, **asked), FixedImages(contexts=contexts)


def dump(conversion) -> str:
    """Everything a conversion says: graph, config, history, warnings. Fields with their default are left out."""
    positions = {vertex.digest: n for n, vertex in enumerate(conversion.definition.vertices)}
    head = conversion.definition.head
    config = conversion.config.to_json()
    base = len(conversion.base_config.history) if conversion.base_config else 0
    new = conversion.config.history[base:]
    config.pop("history", None)
    found = {
        "target": conversion.target,
        "platform": str(conversion.platform),
        "stages": list(conversion.stages),
        "vertices": [
            _vertex(n, vertex, positions) for n, vertex in enumerate(conversion.definition.vertices)
        ],
        "head": None if head is None else _edge(head, positions),
        "config": config,
        "history": [("(empty) " if entry.empty_layer else "(layer) ") + entry.created_by for entry in new],
        "history_of_base": base,
        "warnings": [str(warning) for warning in conversion.warnings],
        "unused_build_args": list(conversion.unused_build_args),
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _edge(edge, positions):
    return positions[edge.digest] if edge.index == 0 else f"{positions[edge.digest]}:{edge.index}"


def _vertex(n, vertex, positions):
    meta = vertex.meta
    lines = meta.source and f"{meta.source.start}-{meta.source.end}"
    found = {
        "n": n,
        "name": vertex.name,
        "digest": str(vertex.digest),
        "inputs": [_edge(edge, positions) for edge in vertex.inputs],
        "lines": lines,
        "command": meta.command,
        "platform": str(vertex.platform) if vertex.platform else "",
        "group": meta.progress_group,
        "no_cache": meta.ignore_cache,
        "op": encode_op(vertex.op),
    }
    for action, shown in zip(
        getattr(vertex.op, "actions", ()), found["op"].get("FileOp", {}).get("actions", ()), strict=False
    ):
        if isinstance(action.action, MkFile):
            shown["action"]["MkFile"]["data"] = action.action.data.decode("utf-8", "backslashreplace")
    return {
        key: value for key, value in found.items() if value != "" and value is not None and value is not False
    }
