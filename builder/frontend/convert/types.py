"""What a conversion is asked, whom it may ask, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from builder.llb.definition import Definition, LinuxResources
from builder.llb.ops import SourceOp, Ulimit
from builder.oci.config import ImageConfig
from builder.oci.digest import Digest
from builder.oci.platform import Platform

if TYPE_CHECKING:
    from builder.frontend.dockerignore import IgnoreMatcher
    from builder.frontend.lint import LintWarning
    from builder.frontend.parser import NodesOf
    from builder.frontend.source import Span

Pairs = tuple[tuple[str, str], ...]
ResolveMode = Literal["default", "pull", "local"]
RESOLVE_MODES: tuple[str, ...] = get_args(ResolveMode)
ContextKind = Literal["local", "image", "oci", "git", "http", "scratch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """The frontend options of one build for one platform (section 15 of the rows).

    - ``platform_explicit``: the user asked for this platform;
    - ``no_cache``: all stages, or the named ones;
    - ``ignore``: the context's ignore file, only for the CopyIgnoredFile warning;
    - ``context`` replaces the local context ``local://<context_name>`` by a git or http source;
    - ``epoch`` wins over SOURCE_DATE_EPOCH arguments;
    - ``scans``: what else than the result is to be scanned is of interest (CMP-09);
    - ``supported_platforms``: what this machine can run (FRM-15); ``more_platforms`` is asked for others,
      which may take a moment to find out;
    - ``trigger_nodes`` knows the shapes of ONBUILD triggers, so that they need not be parsed again;
    - ``frontend`` takes the place of the one that the file asks for.
    """

    platform: Platform
    build_platform: Platform
    platform_explicit: bool = False
    supported_platforms: tuple[Platform, ...] = ()
    more_platforms: Callable[[], tuple[Platform, ...]] | None = field(default=None, compare=False)
    target: str | None = None
    build_args: Pairs = ()
    labels: Pairs = ()
    no_cache: bool | tuple[str, ...] = False
    multi_platform: bool = False
    resolve_mode: ResolveMode = "default"
    context_name: str = "context"
    context: SourceOp | None = None
    ignore: IgnoreMatcher | None = None
    epoch: int | None = None
    network_mode: Literal["", "sandbox", "host", "none"] = ""
    extra_hosts: Pairs = ()
    hostname: str = ""
    shm_size_bytes: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    resources: LinuxResources | None = None
    devices: tuple[str, ...] = ()
    trigger_nodes: NodesOf | None = field(default=None, compare=False)
    scans: bool = False
    frontend: str = ""


class ResolvedImage(NamedTuple):
    """An image found: the digest of its root descriptor, and the config for ``platform``.

    ``ref`` is the normalised reference with its tag, without the digest. ``known`` is False when nobody was
    asked, and digest and config stand for an image of which nothing is known (a check without network).
    """

    digest: Digest
    config: ImageConfig
    platform: Platform
    ref: str
    known: bool = True


class NamedContext(NamedTuple):
    """What ``--build-context name=…`` stands for.

    ``identifier`` is a source identifier (``local://name``, ``docker-image://ref``, ``oci-layout://key@digest``,
    ``git://…``, ``https://…``); ``image`` is set for ``oci``, and may be for ``image``.
    """

    name: str
    kind: ContextKind
    identifier: str = ""
    attrs: Pairs = ()
    image: ResolvedImage | None = None


class Resolver(Protocol):
    """Answers what a Dockerfile's names mean; the only way the frontend learns of the world."""

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:
        """The image called ``ref`` (normalised, tag filled in) for ``platform``."""
        ...

    def context(self, name: str, platform: Platform) -> NamedContext | None:
        """The named context called ``name`` (CTX-07), if there is one."""
        ...

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:
        """These images are about to be asked for; they may be resolved in parallel."""
        ...

    def source_epoch(self, source: SourceOp) -> int | None:
        """When a remote source was made, in seconds: committer date, Last-Modified (EPO-02)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A Dockerfile as a graph, and the config of the image it makes.

    - ``definition.head`` is the target stage's tree;
    - ``config.history`` ends with the entries of this file; those with ``empty_layer`` False are one per new
      layer, in order; ``config.diff_ids`` are those of the base image;
    - ``remote_epoch``: the epoch was asked of a remote source, so it may be another one the next time;
    - ``unset``: lines that use variables without a value, and why these have none;
    - ``unused_hints``: what may have been meant by build arguments that no ARG declares;
    - ``local_sources`` are the local inputs used, ``contexts`` the named contexts, ``bases`` the images
      asked for, ``stages`` the labels of the stages converted;
    - ``scans`` are the other trees to scan by name: stages, and the build context as ``context``.
    """

    definition: Definition
    config: ImageConfig
    base_config: ImageConfig | None
    platform: Platform
    epoch: int | None = None
    remote_epoch: bool = False
    target: str = ""
    warnings: tuple[LintWarning, ...] = ()
    unset: tuple[tuple[Span, str], ...] = ()
    unused_build_args: tuple[str, ...] = ()
    unused_hints: tuple[str, ...] = ()
    local_sources: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    bases: tuple[ResolvedImage, ...] = ()
    stages: tuple[str, ...] = ()
    scans: tuple[tuple[str, Definition], ...] = ()
