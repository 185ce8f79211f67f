"""Questions about a Dockerfile that need no build (section 21 of the rows): warnings, targets, parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from builder.build.conversion import convert_for, options_for
from builder.build.dockerfiles import load_dockerfile
from builder.build.job import Job, prepare
from builder.build.machine import Machine
from builder.build.offline import OfflineResolver
from builder.build.request import BuildRequest
from builder.build.resolver import BuildResolver
from builder.build.targets import platforms_of
from builder.cache.store import Store
from builder.frontend.convert import Conversion, Outline, outline
from builder.frontend.declared import description
from builder.frontend.errors import DockerfileError
from builder.frontend.lint import LintWarning
from builder.frontend.parser import Dockerfile
from builder.frontend.source import SourceFile
from builder.frontend.stages import StageTable
from builder.llb.definition import Definition
from builder.oci.platform import host_platform
from builder.solver.cancel import Cancel
from builder.solver.env import Executor, Networks
from builder.solver.progress import OnEvent
from builder.sources.contexts import PreparedContext

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What ``check`` found: warnings by line, and the error that would stop a build, if any (SUB-05)."""

    source: SourceFile
    warnings: tuple[LintWarning, ...] = ()
    error: DockerfileError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stage that can be built (SUB-03)."""

    name: str
    default: bool
    description: str
    base: str
    platform: str
    start: int
    end: int


def check(store: Store, request: BuildRequest, *, on_event: OnEvent) -> Checked:
    """Convert the Dockerfile without building it; every stage when no target is asked for.

    No registry is asked. An error of the file is part of the answer (SUB-07).
    """
    error: DockerfileError | None = None
    found: list[LintWarning] = []
    with _opened(store, request, on_event) as (job, prepared):
        source = SourceFile(prepared.dockerfile_name, prepared.dockerfile)
        resolver = OfflineResolver(store, prepared)
        try:
            dockerfile = load_dockerfile(store, prepared.dockerfile, prepared.dockerfile_name)
        except DockerfileError as problem:
            from builder.frontend.salvage import written_warnings

            problem.source = problem.source or source
            warnings = written_warnings(source.data, source.filename, problem, dict(request.build_args))
            return Checked(source=source, warnings=warnings, error=problem)
        try:
            for platform in platforms_of(request) or (host_platform(),):
                all_stages = request.target is None
                found += convert_for(
                    job, prepared, dockerfile, resolver, platform, all_stages=all_stages
                ).warnings
        except DockerfileError as problem:
            problem.source = problem.source or source
            found += problem.warnings
            error = problem
    ordered = sorted(dict.fromkeys(found), key=lambda warning: (warning.span.filename, warning.span.start))
    return Checked(source=source, warnings=tuple(ordered), error=error)


def definitions(store: Store, request: BuildRequest, *, on_event: OnEvent) -> tuple[Definition, ...]:
    """What would be solved, a definition for each platform."""
    with _opened(store, request, on_event) as (job, prepared):
        return tuple(conversion.definition for conversion in _conversions(job, prepared))


def definitions_of_file(
    store: Store, request: BuildRequest, *, on_event: OnEvent
) -> tuple[SourceFile, tuple[Definition, ...]]:
    """The same with the Dockerfile that they are made from."""
    with _opened(store, request, on_event) as (job, prepared):
        source = SourceFile(prepared.dockerfile_name, prepared.dockerfile)
        return source, tuple(conversion.definition for conversion in _conversions(job, prepared))


def targets(
    store: Store, request: BuildRequest, *, on_event: OnEvent
) -> tuple[SourceFile, tuple[Target, ...], DockerfileError | None]:
    """The stages of the Dockerfile in order; the last one is what a build makes by default.

    With the first mistake of a file that has some (SUB-07).
    """
    with _opened(store, request, on_event) as (_, prepared):
        return _asked(store, prepared, _targets)


def _asked(
    store: Store, prepared: PreparedContext, use: Callable[[Dockerfile], T]
) -> tuple[SourceFile, T, DockerfileError | None]:
    """What ``use`` says of the Dockerfile, or of what is right in it."""
    data, name = prepared.dockerfile, prepared.dockerfile_name
    source = SourceFile(name, data)
    try:
        return source, use(load_dockerfile(store, data, name)), None
    except DockerfileError as error:
        if error.span is None:
            raise
        from builder.frontend.salvage import best_effort

        found, mistake = best_effort(data, name, use)
        mistake.source = mistake.source or source
        return source, found, mistake


def _targets(dockerfile: Dockerfile) -> tuple[Target, ...]:
    table = StageTable.of(dockerfile)
    return tuple(
        Target(
            name=stage.name,
            default=stage is table.stages[-1],
            description=description(stage.name, stage.base.at.comments),
            base=stage.base.image,
            platform=stage.base.platform or "",
            start=stage.base.at.span.start,
            end=stage.base.at.span.end,
        )
        for stage in table.stages
    )


def parameters(
    store: Store, request: BuildRequest, *, on_event: OnEvent
) -> tuple[SourceFile, Outline, DockerfileError | None]:
    """What the target takes: build arguments, secrets, ssh agents (SUB-04). No registry is asked.

    With the first mistake of a file that has some (SUB-07).
    """
    with _opened(store, request, on_event) as (job, prepared):
        options = options_for(job, prepared, (platforms_of(request) or (host_platform(),))[0])
        resolver = OfflineResolver(store, prepared)
        return _asked(store, prepared, lambda dockerfile: outline(dockerfile, options, resolver))


@contextmanager
def _opened(store: Store, request: BuildRequest, on_event: OnEvent) -> Iterator[tuple[Job, PreparedContext]]:
    with store.hold() as hold:
        job = Job(
            store=store,
            request=request,
            emit=on_event,
            cancel=Cancel(),
            machine=Machine(executor=_no_executor, networks=_no_networks),
            hold=hold,
            outputs=(),
        )
        with prepare(job) as prepared:
            yield job, prepared


def _conversions(job: Job, prepared: PreparedContext) -> tuple[Conversion, ...]:
    dockerfile = load_dockerfile(job.store, prepared.dockerfile, prepared.dockerfile_name)
    resolver = BuildResolver(job.store, job.hold, job.emit, prepared, job.request)
    platforms = platforms_of(job.request) or (host_platform(),)
    return tuple(convert_for(job, prepared, dockerfile, resolver, platform) for platform in platforms)


def _no_executor() -> Executor:
    raise AssertionError("a check runs nothing")


def _no_networks() -> Networks:
    raise AssertionError("a check runs nothing")
