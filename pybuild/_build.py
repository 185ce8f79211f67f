"""``pybuild.build``: one build, with a client of its own; and what requests are made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, TypedDict, Unpack

from builder.build.request import BuildInput, BuildRequest, BuildResult
from builder.cache.limits import SpaceLimits
from builder.errors import UsageError
from builder.exporter.types import ATTRIBUTES, OutputSpec
from builder.llb.ops import Ulimit
from builder.registry.hosts import RegistryConfig
from builder.remotecache.spec import CacheSpec, parse_all
from builder.remotecache.surroundings import completed
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent
from builder.solver.types import Secret, SshAgent
from pybuild._checks import BUILD, check_context, check_kinds, check_names
from pybuild._context import Tree, tar_of
from runtime.spec import Limits

Path = str | os.PathLike[str]
Context = Path | Tree
NamedContext = Path | BuildResult
"""What a named context stands for: a path, a source like ``docker-image://…``, or what another build made."""


if TYPE_CHECKING:
    from builder.sources.policy import Policy

_WHOLE = ("max_parallelism", "retry", "shm_size_bytes")
_COUNTS = (*_WHOLE, "step_timeout")
_MAX_ID = 128


class BuildOptions(TypedDict, total=False):
    """Everything that ``build`` can be told besides the context; ``Client.build`` says what it means."""

    dockerfile: Path | bytes | None
    tags: Sequence[str]
    build_args: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    target: str | None
    platforms: Sequence[str]
    outputs: Sequence[OutputSpec | str]
    secrets: Mapping[str, bytes | str] | None
    ssh: Mapping[str, Path] | None
    build_contexts: Mapping[str, NamedContext] | None
    cache_from: Sequence[str]
    cache_to: Sequence[str]
    no_cache: bool | Sequence[str]
    pull: bool
    network: str | None
    allow: Sequence[str]
    source_policies: Sequence[bytes]
    extra_hosts: Mapping[str, str] | None
    limits: Limits | None
    ulimits: Sequence[Ulimit]
    shm_size_bytes: int
    attest: Sequence[str]
    squash: bool
    reproducible: bool
    max_parallelism: int
    space: SpaceLimits
    keep_going: bool
    retry: int
    step_timeout: float
    stdout: BinaryIO | None
    build_id: str
    llb: bytes | None


def build(
    context: Context,
    *,
    root: Path | None = None,
    on_event: OnEvent | None = None,
    cancel: Cancel | None = None,
    **options: Unpack[BuildOptions],
) -> BuildResult:
    """Build an image; see ``Client.build`` for the options. ``root`` is the state directory."""
    from pybuild._client import Client

    with Client(root) as client:
        return client.build(context, on_event=on_event, cancel=cancel, **options)


def request_of(
    context: Context, options: BuildOptions, registry: Callable[[], RegistryConfig]
) -> BuildRequest:
    """The request that the arguments mean. Raises UsageError."""
    _check(options)
    check_context(context)
    dockerfile, data = _dockerfile(options.get("dockerfile"))
    no_cache = options.get("no_cache", False)
    contexts = options.get("build_contexts") or {}
    return BuildRequest(
        context="-" if isinstance(context, Mapping) else os.fspath(context),
        stdin=tar_of(context) if isinstance(context, Mapping) else None,
        stdout=options.get("stdout"),
        dockerfile=dockerfile,
        dockerfile_data=data,
        tags=_texts("tags", options.get("tags", ())),
        build_args=_pairs(options.get("build_args")),
        labels=_pairs(options.get("labels")),
        target=options.get("target"),
        platforms=_texts("platforms", options.get("platforms", ())),
        no_cache=no_cache is True,
        no_cache_filter=() if isinstance(no_cache, bool) else _texts("no_cache", no_cache),
        pull=options.get("pull", False),
        outputs=tuple(map(_output, _listed("outputs", options.get("outputs", ())))),
        cache_from=_caches("cache_from", options.get("cache_from", ())),
        cache_to=_caches("cache_to", options.get("cache_to", ())),
        build_contexts=tuple(
            (name, f"input:{name}" if isinstance(value, BuildResult) else os.fspath(value))
            for name, value in contexts.items()
        ),
        inputs=tuple(
            BuildInput(name, _digest(name, value))
            for name, value in contexts.items()
            if isinstance(value, BuildResult)
        ),
        secrets=tuple(
            Secret(id=name, data=value.encode() if isinstance(value, str) else value)
            for name, value in (options.get("secrets") or {}).items()
        ),
        ssh=tuple(
            SshAgent(id=name, socket=os.fspath(value)) for name, value in (options.get("ssh") or {}).items()
        ),
        extra_hosts=_pairs(options.get("extra_hosts")),
        network=_network(options.get("network")),
        shm_size_bytes=options.get("shm_size_bytes", 0),
        ulimits=tuple(options.get("ulimits", ())),
        limits=options.get("limits"),
        allow=_texts("allow", options.get("allow", ())),
        source_policies=_policies(options.get("source_policies", ())),
        attest=_texts("attest", options.get("attest", ())),
        squash=options.get("squash", False),
        reproducible=options.get("reproducible", False),
        registry=registry,
        max_parallelism=options.get("max_parallelism", 0),
        space=options.get("space"),
        keep_going=options.get("keep_going", False),
        retries=options.get("retry", 0),
        step_timeout_s=options.get("step_timeout", 0),
        build_id=options.get("build_id", ""),
        llb=options.get("llb"),
    )


def _check(options: BuildOptions) -> None:
    """Raises UsageError for what cannot be meant."""
    check_names(BuildOptions.__annotations__, options)
    for name, value in options.items():
        if name in _COUNTS and not (isinstance(value, (int, float)) and value >= 0):
            raise UsageError(f"{name} must be a number that is not negative, not {value!r}")
        if name in _WHOLE and not isinstance(value, int):
            raise UsageError(f"{name} must be a whole number, not {value!r}")
    check_kinds(BUILD, options)
    stdout: object = options.get("stdout")
    if not (stdout is None or (hasattr(stdout, "write") and hasattr(stdout, "isatty"))):
        raise UsageError(f"stdout must be a file open for bytes, not {stdout!r}"[:200])
    build_id: object = options.get("build_id", "")
    if not (isinstance(build_id, str) and len(build_id) <= _MAX_ID and build_id.isprintable()):
        raise UsageError(f"build_id must be printable text of at most {_MAX_ID} characters")


def _policies(given: Sequence[bytes]) -> tuple[Policy, ...]:
    if not given:
        return ()
    from builder.sources.policy import Policy

    return tuple(Policy.parse(data, f"source policy {number}") for number, data in enumerate(given, 1))


def _digest(name: str, result: BuildResult) -> str:
    found = result.digest or result.image_id
    if found is None:
        raise UsageError(
            f"the build for the named context {name} made no image", hint="give it an output of type image"
        )
    return found


def _dockerfile(given: Path | bytes | None) -> tuple[str | None, bytes | None]:
    """A path, or the text itself: bytes, or text of more than one line."""
    if given is None or isinstance(given, bytes):
        return None, given
    if isinstance(given, str) and "\n" in given:
        return None, given.encode("utf-8", "surrogateescape")
    if os.fspath(given) == "-":
        raise UsageError("a Dockerfile cannot come from standard input here", hint="give its text as bytes")
    return os.fspath(given), None


def _output(given: OutputSpec | str) -> OutputSpec:
    spec = OutputSpec.parse(given) if isinstance(given, str) else given
    if not isinstance(spec, OutputSpec):
        raise UsageError(f"an output is text or an OutputSpec, not {given!r}"[:200])
    for name, _ in spec.extra:
        if name not in ATTRIBUTES:
            from builder.frontend.errors import suggestion

            raise UsageError(
                f"unknown attribute {name[:60]!r} of output type={spec.type}{suggestion(name, ATTRIBUTES)}"
            )
    return spec


def _pairs(given: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in (given or {}).items())


def _listed(name: str, given: Sequence[OutputSpec | str]) -> Sequence[OutputSpec | str]:
    if isinstance(given, str):
        raise UsageError(f"{name} is a list, not one text", hint=f"{name}=[{given!r}]")
    return given


def _caches(name: str, given: Sequence[str]) -> tuple[CacheSpec, ...]:
    return completed(parse_all(_texts(name, given)), os.environ.get)


def _texts(name: str, given: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(str, _listed(name, given)))


def _network(given: str | None) -> str:
    if given in (None, "", "default", "bridge", "sandbox"):
        return ""
    if given in ("none", "host"):
        return str(given)
    raise UsageError(f"network mode {given!r} is not known to build", hint="default, none or host")
