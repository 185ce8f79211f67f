"""What a build is asked for and what it answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.build.report import StepReport
    from builder.exporter.types import OutputSpec
    from builder.llb.ops import Ulimit
    from builder.registry.hosts import RegistryConfig
    from builder.solver.types import Secret, SshAgent
    from runtime.spec import Limits

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build.

    ``context`` is a directory, ``-`` (tar or Dockerfile on ``stdin``), a git or an http(s) URL.
    ``dockerfile`` is a path (in the context, or outside), or ``-``; ``dockerfile_data`` takes its place when
    the text is in
    memory. ``platforms`` empty means this machine's. ``no_cache_filter`` names stages that must run anew.
    ``registry`` is asked how to speak to registries when one is needed.
    """

    context: str
    stdin: BinaryIO | None = field(default=None, compare=False)
    stdout: BinaryIO | None = field(default=None, compare=False)
    dockerfile: str | None = None
    dockerfile_data: bytes | None = None
    tags: tuple[str, ...] = ()
    build_args: Pairs = ()
    labels: Pairs = ()
    target: str | None = None
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    outputs: tuple[OutputSpec, ...] = ()
    build_contexts: Pairs = ()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    extra_hosts: Pairs = ()
    network: str = ""
    shm_size_bytes: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    hostname: str = ""
    limits: Limits | None = None
    allow: tuple[str, ...] = ()
    registry: Callable[[], RegistryConfig] | None = field(default=None, compare=False)
    max_parallelism: int = 0
    build_id: str = ""
    """How the build is to be called in the history; empty = a new id."""


class Lines(NamedTuple):
    """A range of lines of a file, 1-based and inclusive."""

    filename: str
    start: int
    end: int


class BuildWarning(NamedTuple):
    """Something about the Dockerfile that does not stop the build; texts, to be kept and shown again."""

    rule: str
    message: str
    span: Lines
    url: str = ""
    detail: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} (line {self.span.start})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build made. Digests are texts; ``metadata`` is the content of ``--metadata-file``.

    ``dockerfile`` is the text that ``warnings`` point into, empty without any.
    """

    image_id: str | None = None
    digest: str | None = None
    names: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[BuildWarning, ...] = ()
    dockerfile: bytes = b""
    unused_build_args: tuple[str, ...] = ()
    unused_hints: tuple[str, ...] = ()
    cached_steps: int = 0
    total_steps: int = 0
    build_id: str | None = None
    """Its record in the history; None when the result of an earlier build answered the request."""
    steps: tuple[StepReport, ...] = ()
    """Every step of a build on record, with why it ran."""
