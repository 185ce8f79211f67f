"""What a build is asked for and what it answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.build.report import StepReport
    from builder.cache.limits import Policy as GcPolicy
    from builder.cache.limits import SpaceLimits
    from builder.exporter.types import OutputSpec
    from builder.llb.ops import Ulimit
    from builder.registry.hosts import RegistryConfig
    from builder.remotecache.spec import CacheSpec
    from builder.solver.types import Secret, SshAgent
    from builder.sources.policy import Policy
    from runtime.spec import Limits

Pairs = tuple[tuple[str, str], ...]


class HistoryLimits(NamedTuple):
    """A record of the history goes when it is beyond both (HSY-05)."""

    max_builds: int = 50
    max_age_s: int = 48 * 3600


class BuildInput(NamedTuple):
    """The result of another build, as contexts name it: ``input:KEY`` (CTX-08).

    ``digest`` is that of an image in the store; ``config`` takes the place of its config, as JSON.
    """

    key: str
    digest: str
    config: bytes | None = None


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
    cache_from: tuple[CacheSpec, ...] = ()
    """Caches of other machines to look results up in."""
    cache_to: tuple[CacheSpec, ...] = ()
    """Where to keep results for other machines; ``inline`` puts their keys into the image."""
    inputs: tuple[BuildInput, ...] = ()
    context_subdir: str = ""
    """The directory of a remote context that is the context; the Dockerfile is looked for above it."""
    resolve_mode: str = ""
    """``local``: base images from the store before all others (OPT-09); ``pull`` wins."""
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    extra_hosts: Pairs = ()
    network: str = ""
    shm_size_bytes: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    hostname: str = ""
    limits: Limits | None = None
    squash: bool = False
    """One layer in the place of all that the build adds to its base."""
    reproducible: bool = False
    """Build twice, with fixed times, and compare."""
    attest: tuple[str, ...] = ()
    """Attestations to make: ``type=provenance,mode=max``, ``type=sbom,generator=IMAGE``."""
    allow: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    """Entitlements that this machine's configuration grants to nobody."""
    source_policies: tuple[Policy, ...] = ()
    source_policy_command: tuple[str, ...] = ()
    """A program that is asked about every source, with its arguments."""
    registry: Callable[[], RegistryConfig] | None = field(default=None, compare=False)
    max_parallelism: int = 0
    keep_going: bool = False
    """After a failure, run everything that does not need the failed step, and report every failure."""
    retries: int = 0
    """How often a RUN step or a source is tried again."""
    step_timeout_s: float = 0
    """How long the command of a RUN step may take; 0 = for ever."""
    space: SpaceLimits | None = None
    """Limits on the build cache that hold while the build runs; None = the usual clean-up after it."""
    gc_policies: tuple[GcPolicy, ...] | None = None
    """What is cleaned up after the build in place of the usual; empty = nothing."""
    llb: bytes | None = None
    """A definition in wire form, to be built in the place of a Dockerfile."""
    build_id: str = ""
    """How the build is to be called in the history; empty = a new id."""
    history: HistoryLimits = field(default=HistoryLimits(), compare=False)


def find_input(inputs: tuple[BuildInput, ...], key: str, name: str) -> BuildInput:
    """The input called ``key``, for the context ``name``; raises UsageError."""
    for found in inputs:
        if found.key == key:
            return found
    from builder.errors import UsageError

    raise UsageError(
        f"invalid input {key} for {name}", hint="inputs are results of other builds, given by the caller"
    )


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
    bases: Pairs = ()
    """The images that it was built from: name and digest."""
    build_id: str | None = None
    """Its record in the history."""
    inputs: str = ""
    """The document about what it was made from (``builder.build.inputs``)."""
    steps: tuple[StepReport, ...] = ()
    """Every step, with why it ran; empty when the result of an earlier build answered the request."""
