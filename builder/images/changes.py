"""``--change``: Dockerfile instructions applied to a config (EX-40, EX-41); the frontend itself says what
they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.oci.config import DEFAULT_PATH, ImageConfig
from builder.oci.digest import Digest
from builder.oci.platform import Platform, host_platform

if TYPE_CHECKING:
    from builder.frontend.convert.types import NamedContext, ResolvedImage
    from builder.llb.ops import SourceOp

ALLOWED = frozenset(
    {
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    }
)
_BASE = "change.invalid/base:latest"


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """``config`` after the instructions in ``changes``; history and layers stay as they are.

    Raises UsageError for an instruction that needs a build (RUN, COPY), DockerfileError for a broken one.
    """
    lines = [_checked(line) for change in changes for line in change.splitlines() if line.strip()]
    if not lines:
        return config
    from builder.frontend.convert import ConvertOptions, convert
    from builder.frontend.parser import parse

    text = "\n".join((f"FROM {_BASE}", *lines)) + "\n"
    options = ConvertOptions(platform=config.platform, build_platform=host_platform())
    plain = replace(config, on_build=(), history=(), diff_ids=())
    made = convert(
        parse(text.encode("utf-8", "surrogateescape"), "--change"), options, _OneImage(plain)
    ).config
    return replace(
        made,
        env=_without_default_path(config, made.env, lines),
        platform=config.platform,
        on_build=(*config.on_build, *made.on_build),
        history=config.history,
        diff_ids=config.diff_ids,
        created=config.created,
    )


def _without_default_path(config: ImageConfig, env: tuple[str, ...], lines: Sequence[str]) -> tuple[str, ...]:
    """A build gives every image a PATH; a change gives none that it does not name."""
    if any(entry.startswith("PATH=") for entry in config.env) or any("PATH" in line for line in lines):
        return env
    return tuple(entry for entry in env if entry != f"PATH={DEFAULT_PATH}")


def _checked(line: str) -> str:
    name = line.split(None, 1)[0].upper()
    if name not in ALLOWED:
        raise UsageError(
            f"{name[:40]} is not a valid change command", hint=f"known: {', '.join(sorted(ALLOWED))}"
        )
    if line.rstrip().endswith("\\"):
        raise UsageError(f"a change must be one complete line: {line[:80]!r}")
    return line.strip()


class _OneImage:
    """Knows one image: the config that is being changed."""

    def __init__(self, config: ImageConfig) -> None:
        self._config = config

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:  # noqa: ARG002
        from builder.frontend.convert.types import ResolvedImage

        return ResolvedImage(Digest.of(b""), self._config, self._config.platform, ref)

    def context(self, name: str, platform: Platform) -> NamedContext | None:  # noqa: ARG002
        return None

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:  # noqa: ARG002
        return

    def source_epoch(self, source: SourceOp) -> int | None:  # noqa: ARG002
        return None
