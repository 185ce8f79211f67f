"""The build use case, step by step: context, Dockerfile, definition, solve, export."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from builder.build import entitlements
from builder.build.bases import BaseLayers
from builder.build.direct import direct_layers
from builder.build.export import TREE_OUTPUTS, export_all
from builder.build.failed import StepKeeper
from builder.build.inputs import Ended, keep
from builder.build.layers import LayerMaker, LayerOptions
from builder.build.learning import learn
from builder.build.machine import Machine
from builder.build.memo import wants_attestations, warn
from builder.build.phases import phase
from builder.build.recording import Recorder
from builder.build.request import BuildRequest, BuildResult
from builder.build.resolver import BuildResolver
from builder.build.sources import BuildSources
from builder.build.space import guarded, tidy
from builder.cache.store import Store
from builder.cancelling import within
from builder.exporter.types import BuiltImage, OutputSpec
from builder.frontend.parser import Dockerfile
from builder.llb.definition import Vertex
from builder.oci.platform import host_platform
from builder.registry.announce import watching
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv
from builder.solver.progress import OnEvent
from builder.solver.solver import solve_all
from builder.sources.contexts import PreparedContext
from builder.sources.local import LocalContext
from runtime.hosts import Dns
from runtime.spec import Limits

if TYPE_CHECKING:
    from builder.attest.request import AttestRequest
    from builder.build.attesting import Attesting
    from builder.build.caches import BuildCaches
    from builder.build.late import LateBases
    from builder.frontend.convert import Conversion
    from builder.solver import planning

from builder.build.conversion import convert_for
from builder.build.dockerfiles import load_dockerfile
from builder.build.job import Job, prepare, retried
from builder.build.outcome import explained, image_of, located, metadata_of, warned, warnings_of
from builder.build.targets import outputs_of, platforms_of


def run_build(
    store: Store,
    request: BuildRequest,
    *,
    on_event: OnEvent,
    machine: Machine,
    cancel: Cancel | None = None,
) -> BuildResult:
    """Build what ``request`` asks for. Raises PybuildError; Cancelled when ``cancel`` was set meanwhile."""
    try:
        return _run(store, request, on_event=on_event, machine=machine, cancel=cancel or Cancel())
    finally:
        tidy(store, request.space, request.gc_policies)


def _run(
    store: Store, request: BuildRequest, *, on_event: OnEvent, machine: Machine, cancel: Cancel
) -> BuildResult:
    outputs = outputs_of(request)
    if request.outputs:
        from builder.exporter import preflight

        preflight.check(outputs, store.root)
    if request.cache_from or request.cache_to:
        from builder.build.caches import check_places

        check_places(request)
    granted = entitlements.granted(request.allow, network=request.network, forbidden=request.forbid)
    attest = _attest(request)
    recorder = Recorder(store, request, on_event, outputs)
    with recorder.recording(), store.hold() as hold, ExitStack() as stack:
        stack.enter_context(watching(partial(phase, emit=recorder)))
        guard, stop = stack.enter_context(guarded(store, request.space, cancel))
        stack.enter_context(within(stop))
        keeper = StepKeeper(store, recorder.id)
        stack.callback(keeper.done)
        job = Job(
            store=store,
            request=request,
            emit=recorder,
            on_planned=(recorder.planned, keeper.planned),
            keeper=keeper,
            granted=granted,
            cancel=stop,
            guard=guard,
            machine=machine,
            hold=hold,
            outputs=outputs,
            attest=attest,
            build_id=recorder.id,
        )
        prepared = retried(job, lambda _: stack.enter_context(prepare(job)))
        recorder.prepared(prepared)
        with warned(recorder, prepared, request):
            dockerfile = load_dockerfile(store, prepared.dockerfile, prepared.dockerfile_name)
            with located(dockerfile, request):
                result = _build(job, prepared, dockerfile)
        recorder.done(result)
        return replace(result, build_id=recorder.id, steps=recorder.steps)


def _seconds(store: Store) -> dict[str, float]:
    from builder.build.estimates import step_seconds

    return step_seconds(store)


def _build(job: Job, prepared: PreparedContext, dockerfile: Dockerfile) -> BuildResult:
    request = job.request
    platforms = platforms_of(request) or (host_platform(),)
    resolver = BuildResolver(job.store, job.hold, job.emit, prepared, request)
    frontend = resolver.frontend(dockerfile)
    conversions = [
        resolver.gated(convert_for(job, prepared, dockerfile, resolver, platform, frontend=frontend))
        for platform in platforms
    ]
    attesting = _attesting(job, prepared, resolver)
    caches = _caches(job, resolver)
    entitlements.check(
        (conversion.definition for conversion in conversions), job.granted, job.machine.cdi_dirs
    )
    warnings = warnings_of(conversions)
    warn(job.emit, warnings)
    epoch = conversions[0].epoch
    outputs = tuple(spec if spec.epoch is not None else replace(spec, epoch=epoch) for spec in job.outputs)
    with ExitStack() as stack:
        makers = _makers(job, outputs, stack, BaseLayers(job.store, resolver.images))
        images: list[BuiltImage] = []
        late = _late(job, conversions, resolver) if caches is None else None
        env = _env(job, prepared, resolver, makers, outputs, late)
        if attesting is not None:
            env = replace(env, on_usage=attesting.on_usage)
        if caches is not None:
            env = caches.joined(env, outputs)
        with explained(conversions):
            solved = solve_all([conversion.definition for conversion in conversions], env)
        for conversion, platform, result in zip(conversions, platforms, solved, strict=True):
            built = image_of(conversion, platform, result.snapshot)
            built = built if late is None else replace(built, below=late.below(conversion.definition))
            images.append(built if attesting is None else attesting.add(built, conversion, result, env))
        if caches is not None:
            caches.solved([conversion.definition for conversion in conversions], env.sources)
        cached: dict[str, object] = {}
        results = export_all(
            job.store,
            images,
            outputs,
            makers,
            registry=resolver.registry,
            emit=job.emit,
            cancel=job.cancel,
            stdout=request.stdout,
            squash=request.squash,
            inline=caches.inline_texts if caches is not None else lambda _: (),
            beside=partial(_export_caches, caches, makers, LayerOptions.of(outputs[0]), cached),
            explicit=bool(request.platforms),
            absent=late,
        )
    metadata = {**metadata_of(results), **cached}
    sources = cast("BuildSources", env.sources)
    ended = Ended(
        request=request,
        prepared=prepared,
        conversions=conversions,
        solved=solved,
        sources=sources,
        images=images,
        results=results,
    )
    inputs = keep(job.store, ended)
    if len(platforms) == 1 and len(results) == 1:
        learn(
            store=job.store,
            request=request,
            prepared=prepared,
            bases=resolver.bases(),
            conversion=conversions[0],
            solved=solved[0],
            selections=sources.selections,
            inputs=inputs,
            result=results[0],
            metadata=metadata,
            warnings=warnings,
        )
    main = next((result for result in results if result.images), None)
    image = main.images[0] if main is not None else None
    return BuildResult(
        image_id=str(image.config_digest) if image is not None else None,
        digest=str(main.root.digest) if main is not None and main.root is not None else None,
        names=tuple(name for result in results for name in result.names),
        metadata=metadata,
        warnings=warnings,
        dockerfile=prepared.dockerfile if warnings else b"",
        unused_build_args=conversions[0].unused_build_args,
        unused_hints=conversions[0].unused_hints,
        cached_steps=sum(result.cached_steps for result in solved),
        total_steps=sum(result.total_steps for result in solved),
        bases=resolver.bases(),
        inputs=inputs,
    )


def _export_caches(
    caches: BuildCaches | None,
    makers: dict[LayerOptions, LayerMaker],
    own: LayerOptions,
    told: dict[str, object],
) -> None:
    """Write the caches, and into ``told`` what is said about them."""
    if caches is not None:
        told.update(caches.export(makers, own))


def _attest(request: BuildRequest) -> AttestRequest | None:
    if not wants_attestations(request):
        return None
    from builder.attest.request import parse_request

    return parse_request(request.attest, request.build_args)


def _attesting(job: Job, prepared: PreparedContext, resolver: BuildResolver) -> Attesting | None:
    if job.attest is None or all(spec.type == "cacheonly" for spec in job.outputs):
        return None
    from builder.build.attesting import Attesting

    return Attesting(job.attest, job.store, job.request, prepared, resolver, job.build_id)


def _caches(job: Job, resolver: BuildResolver) -> BuildCaches | None:
    """The caches of other machines that the build uses."""
    request = job.request
    if not (request.cache_from or request.cache_to or "BUILDKIT_INLINE_CACHE" in dict(request.build_args)):
        return None
    from builder.build.caches import BuildCaches
    from builder.build.judging import judged_imports

    request = replace(request, cache_from=judged_imports(resolver.gate, request.cache_from))
    return BuildCaches.of(
        request, job.store, registry=lambda: resolver.registry, emit=job.emit, cancel=job.cancel
    )


def _late(job: Job, conversions: list[Conversion], resolver: BuildResolver) -> LateBases | None:
    """The base images whose layers are not fetched; None in a build that has to have all."""
    if not job.request.outputs or job.request.squash or job.request.llb is not None:
        return None
    from builder.build.late import late_bases, only_pushed

    if not only_pushed(job.outputs, job.attest):
        return None
    return late_bases([conversion.definition for conversion in conversions], resolver.images)


def _env(
    job: Job,
    prepared: PreparedContext,
    resolver: BuildResolver,
    makers: dict[LayerOptions, LayerMaker],
    outputs: tuple[OutputSpec, ...],
    late: LateBases | None,
) -> SolveEnv:
    def on_planned(nodes: planning.Nodes) -> None:
        for told in job.on_planned:
            told(nodes)

    def on_snapshot(_: Vertex, snapshot: str) -> None:
        for maker in makers.values():
            maker.want(snapshot)

    locals_: dict[str, LocalContext] = dict(prepared.locals)
    if prepared.main is not None:
        locals_["context"] = prepared.main
    return SolveEnv(
        store=job.store,
        hold=job.hold,
        sources=_sources(job.request, prepared, resolver)(
            store=job.store,
            hold=job.hold,
            locals=locals_,
            images=resolver.images,
            remote=resolver.remote,
            late=late.sources if late is not None else frozenset(),
        ),
        executor=job.machine.executor,
        networks=job.machine.networks,
        emit=job.emit,
        cancel=job.cancel,
        secrets=job.request.secrets,
        ssh=job.request.ssh,
        limits=job.request.limits or Limits(),
        shm_size_bytes=job.request.shm_size_bytes,
        allow=job.granted.names,
        device_aliases=job.granted.devices,
        cdi_dirs=job.machine.cdi_dirs,
        search_path=job.machine.search_path,
        dns=job.machine.dns or Dns(),
        max_parallelism=job.request.max_parallelism,
        build_id=job.build_id,
        keep_going=job.request.keep_going,
        retries=job.request.retries,
        step_timeout_s=job.request.step_timeout_s,
        durations=partial(_seconds, job.store),
        on_failed=job.keeper.failed if job.keeper is not None else None,
        check_space=job.guard.check if job.guard else None,
        direct=direct_layers(job.store, job.request, outputs, makers),
        on_planned=on_planned,
        on_snapshot=on_snapshot if makers else None,
    )


def _sources(
    request: BuildRequest, prepared: PreparedContext, resolver: BuildResolver
) -> Callable[..., BuildSources]:
    if request.llb is None:
        return BuildSources
    from builder.build.llb import LlbSources

    mode = "pull" if request.pull else "default"
    return partial(LlbSources, prepared=prepared, resolver=resolver, mode=mode)


def _makers(
    job: Job, outputs: tuple[OutputSpec, ...], stack: ExitStack, bases: BaseLayers
) -> dict[LayerOptions, LayerMaker]:
    makers: dict[LayerOptions, LayerMaker] = {}
    for spec in outputs:
        if spec.type in TREE_OUTPUTS:
            continue
        options = LayerOptions.of(spec)
        if options not in makers:
            makers[options] = stack.enter_context(
                LayerMaker(job.store, options, job.guard.check if job.guard else None, bases)
            )
    return makers
