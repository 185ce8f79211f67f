"""The build use case, step by step: context, Dockerfile, definition, solve, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from builder.build import entitlements
from builder.build.export import TREE_OUTPUTS, export_all
from builder.build.failed import StepKeeper
from builder.build.layers import LayerMaker, LayerOptions
from builder.build.learning import learn
from builder.build.machine import Machine
from builder.build.memo import full_names, wants_attestations, warn
from builder.build.phases import phase
from builder.build.policy import SourceGate
from builder.build.recording import Recorder
from builder.build.request import BuildRequest, BuildResult, BuildWarning, Lines
from builder.build.resolver import BuildResolver
from builder.build.sources import BuildSources
from builder.build.space import Guard, guarded, tidy
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.cancelling import within
from builder.errors import SolveError, UsageError
from builder.exporter.types import BuiltImage, ExportResult, OutputSpec
from builder.frontend.convert import Conversion, ConvertOptions, Resolver, convert
from builder.frontend.nodes import FORMAT, Nodes
from builder.frontend.parser import Dockerfile, NodesOf, parse_line, parse_nodes
from builder.frontend.redact import redact
from builder.llb.definition import LinuxResources, Vertex
from builder.oci.digest import Digest
from builder.oci.platform import Platform, host_platform
from builder.registry.announce import watching
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv
from builder.solver.ops.machine import supported_platforms
from builder.solver.progress import OnEvent
from builder.solver.solver import solve_all
from builder.sources.contexts import PreparedContext, RemoteAccess, prepare_context
from builder.sources.contexttree import Ignore
from builder.sources.local import LocalContext
from runtime.hosts import Dns
from runtime.spec import Limits

if TYPE_CHECKING:
    from builder.attest.request import AttestRequest
    from builder.build.attesting import Attesting
    from builder.build.caches import BuildCaches
    from builder.solver import planning

NODES_KIND = "dockerfile"
NO_DOCKERFILE = b"FROM scratch\n"
"""What stands where the Dockerfile of a definition would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One build under way."""

    store: Store
    request: BuildRequest
    emit: OnEvent
    cancel: Cancel
    machine: Machine
    hold: Hold
    outputs: tuple[OutputSpec, ...]
    granted: entitlements.Granted = field(default_factory=entitlements.Granted)
    on_planned: tuple[Callable[[planning.Nodes], None], ...] = ()
    keeper: StepKeeper | None = None
    guard: Guard | None = None
    attest: AttestRequest | None = None
    build_id: str = ""


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
    outputs = _outputs(request)
    granted = entitlements.granted(request.allow, network=request.network, forbidden=request.forbid)
    attest = _attest(request)
    recorder = Recorder(store, request, on_event, outputs)
    with recorder.recording(), store.hold() as hold, ExitStack() as stack:
        stack.enter_context(watching(partial(phase, emit=recorder)))
        guard, stop = stack.enter_context(guarded(store, request.space, cancel))
        stack.enter_context(within(stop))
        keeper = StepKeeper(store, recorder.id)
        stack.callback(keeper.done)
        job = _Job(
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
        prepared = _retried(job, lambda _: stack.enter_context(_prepare(job)))
        dockerfile = load_dockerfile(store, prepared.dockerfile, prepared.dockerfile_name)
        with _located(dockerfile, request):
            result = _build(job, prepared, dockerfile)
        recorder.done(result)
        return replace(result, build_id=recorder.id, steps=recorder.steps)


def _retried(job: _Job, call: Callable[[bool], PreparedContext]) -> PreparedContext:
    """A context that comes over the network is asked for again as often as was wanted."""
    if not job.request.retries or "://" not in job.request.context:
        return call(True)
    from builder.solver.retrying import retrying

    def say(text: str) -> None:
        with phase(text.strip(), job.emit):
            return

    return retrying(call, job.request.retries, say=say, cancel=job.cancel)


def _seconds(store: Store) -> dict[str, float]:
    from builder.build.estimates import step_seconds

    return step_seconds(store)


def load_dockerfile(store: Store, data: bytes, name: str) -> Dockerfile:
    """Parse a Dockerfile, or take the nodes of an earlier parse of the same bytes."""
    key = f"{FORMAT}:{Digest.of(data)}"
    known = store.doc(NODES_KIND, key)
    if known is not None:
        return Dockerfile.from_nodes(Nodes.from_bytes(known), data, name)
    nodes = parse_nodes(data, name)
    dockerfile = Dockerfile.from_nodes(nodes, data, name)
    text = data.decode("utf-8", "replace")
    if redact(text) == text:  # credentials in URLs are kept nowhere
        store.put_doc(NODES_KIND, key, nodes.to_bytes())
    return dockerfile


def _trigger_nodes(store: Store) -> NodesOf:
    """Triggers of base images, parsed once and kept by their text like Dockerfiles."""

    def nodes(text: str, escape: str) -> Nodes:
        key = f"{FORMAT}:{escape}:{Digest.of(text.encode('utf-8', 'surrogateescape'))}"
        known = store.doc(NODES_KIND, key)
        if known is not None:
            return Nodes.from_bytes(known)
        found = parse_line(text, escape)
        store.put_doc(NODES_KIND, key, found.to_bytes())
        return found

    return nodes


def _prepare(job: _Job) -> PreparedContext:
    request = job.request
    return prepare_context(
        job.store,
        SourceGate.of(request).context(request.context),
        compile_ignore=_compile_ignore,
        stdin=request.stdin,
        dockerfile=request.dockerfile,
        dockerfile_data=request.dockerfile_data if request.llb is None else NO_DOCKERFILE,
        build_contexts=request.build_contexts,
        subdir=request.context_subdir,
        steps=partial(phase, emit=job.emit),
        remote=_remote_access(request),
    )


def _compile_ignore(text: bytes) -> Ignore:
    from builder.frontend.dockerignore import IgnoreMatcher

    return IgnoreMatcher.parse(text)


def _remote_access(request: BuildRequest) -> RemoteAccess:
    """Credentials for git come as secrets (GIT-05); the agent is the default one."""
    tokens = {
        secret.id: secret.data.decode("utf-8", "replace").strip()
        for secret in request.secrets
        if secret.id.startswith(("GIT_AUTH_", "HTTP_AUTH_"))
    }
    socket = next((agent.socket for agent in request.ssh if agent.id == "default"), "")
    args = dict(request.build_args)
    proxies = tuple((k, v) for k, v in args.items() if k.lower().endswith("_proxy"))
    times = bool(args.get("SOURCE_DATE_EPOCH"))
    keep = args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in ("1", "t", "true")
    return RemoteAccess(
        git_tokens=tokens, ssh_socket=socket, proxy_env=proxies, keep_git_dir=keep, commit_times=times
    )


def _build(job: _Job, prepared: PreparedContext, dockerfile: Dockerfile) -> BuildResult:
    request = job.request
    platforms = _platforms(request) or (host_platform(),)
    resolver = BuildResolver(job.store, job.hold, job.emit, prepared, request)
    conversions = [
        resolver.gated(_convert(job, prepared, dockerfile, resolver, platform)) for platform in platforms
    ]
    attesting = _attesting(job, prepared, resolver)
    caches = _caches(job, resolver)
    entitlements.check(
        (conversion.definition for conversion in conversions), job.granted, job.machine.cdi_dirs
    )
    warnings = _warnings(conversions)
    warn(job.emit, warnings)
    epoch = conversions[0].epoch
    outputs = tuple(spec if spec.epoch is not None else replace(spec, epoch=epoch) for spec in job.outputs)
    with ExitStack() as stack:
        makers = _makers(job, outputs, stack)
        images: list[BuiltImage] = []
        env = _env(job, prepared, resolver, makers)
        if caches is not None:
            env = caches.joined(env, outputs)
        solved = solve_all([conversion.definition for conversion in conversions], env)
        for conversion, platform, result in zip(conversions, platforms, solved, strict=True):
            built = _image(conversion, platform, result.snapshot)
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
        )
    metadata = {**_metadata(results), **cached}
    if len(platforms) == 1 and len(results) == 1:
        learn(
            store=job.store,
            request=request,
            prepared=prepared,
            bases=resolver.bases(),
            conversion=conversions[0],
            solved=solved[0],
            selections=cast("BuildSources", env.sources).selections,
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


def _attesting(job: _Job, prepared: PreparedContext, resolver: BuildResolver) -> Attesting | None:
    if job.attest is None or all(spec.type == "cacheonly" for spec in job.outputs):
        return None
    from builder.build.attesting import Attesting

    return Attesting(job.attest, job.store, job.request, prepared, resolver, job.build_id)


def _caches(job: _Job, resolver: BuildResolver) -> BuildCaches | None:
    """The caches of other machines that the build uses."""
    request = job.request
    if not (request.cache_from or request.cache_to or "BUILDKIT_INLINE_CACHE" in dict(request.build_args)):
        return None
    from builder.build.caches import BuildCaches

    return BuildCaches.of(
        request, job.store, registry=lambda: resolver.registry, emit=job.emit, cancel=job.cancel
    )


def _convert(
    job: _Job,
    prepared: PreparedContext,
    dockerfile: Dockerfile,
    resolver: Resolver,
    platform: Platform,
    *,
    all_stages: bool = False,
) -> Conversion:
    if job.request.llb is not None:
        from builder.build.llb import conversion

        return conversion(job.request, platform)
    return convert(dockerfile, _options(job, prepared, platform), resolver, all_stages=all_stages)


def _options(job: _Job, prepared: PreparedContext, platform: Platform) -> ConvertOptions:
    request = job.request
    return ConvertOptions(
        platform=platform,
        build_platform=host_platform(),
        platform_explicit=bool(request.platforms),
        trigger_nodes=_trigger_nodes(job.store),
        more_platforms=partial(supported_platforms, job.machine.search_path),
        target=request.target,
        build_args=request.build_args,
        labels=request.labels,
        no_cache=request.no_cache or request.no_cache_filter,
        multi_platform=_multi_platform(request),
        resolve_mode=cast("Any", "pull" if request.pull else request.resolve_mode or "default"),
        ignore=cast("Any", prepared.ignore),
        network_mode=_network_mode(request.network),
        extra_hosts=request.extra_hosts,
        hostname=request.hostname,
        shm_size_bytes=request.shm_size_bytes,
        ulimits=request.ulimits,
        cgroup_parent=request.cgroup_parent,
        resources=_resources(request.limits) if request.limits is not None else None,
        scans=job.attest is not None and job.attest.sbom is not None,
    )


def _platforms(request: BuildRequest) -> tuple[Platform, ...]:
    """The platforms asked for, each once."""
    return tuple(dict.fromkeys(map(Platform.parse, request.platforms)))


def _multi_platform(request: BuildRequest) -> bool:
    """Whether the result is an index: for several platforms, or asked for (ARG-12, OPT-08)."""
    several = len(_platforms(request)) > 1
    text = dict(request.build_args).get("BUILDKIT_MULTI_PLATFORM", "").lower()
    if text in ("1", "t", "true"):
        return True
    if text not in ("", "0", "f", "false"):
        raise UsageError(f"invalid boolean value for multi-platform: {text[:80]}")
    if text and several:
        raise UsageError("conflicting config: returning multiple target platforms is not allowed")
    return several


def _network_mode(text: str) -> Any:
    known = {"": "", "default": "", "bridge": "", "sandbox": "sandbox", "host": "host", "none": "none"}
    if text not in known:
        raise UsageError(f"invalid netmode {text}", hint="use default, none or host")
    return known[text]


def _resources(limits: Limits) -> LinuxResources | None:
    resources = LinuxResources(
        memory_bytes=limits.memory_bytes or 0,
        memory_swap_bytes=limits.memory_swap_bytes or 0,
        cpu_shares=limits.cpu_shares or 0,
        cpu_period=limits.cpu_period_us or 0,
        cpu_quota=limits.cpu_quota_us or 0,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
    )
    return resources if resources != LinuxResources() else None


def _env(
    job: _Job, prepared: PreparedContext, resolver: BuildResolver, makers: dict[LayerOptions, LayerMaker]
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
        keep_going=job.request.keep_going,
        retries=job.request.retries,
        step_timeout_s=job.request.step_timeout_s,
        durations=partial(_seconds, job.store),
        on_failed=job.keeper.failed if job.keeper is not None else None,
        check_space=job.guard.check if job.guard else None,
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


def _outputs(request: BuildRequest) -> tuple[OutputSpec, ...]:
    """The outputs with the names of ``-t``; without any output the image goes into the store."""
    names = full_names(request.tags)
    asked = request.outputs or (OutputSpec(type="image"),)
    if _multi_platform(request):
        asked = tuple(replace(spec, indexed=True) for spec in asked)
    return tuple(
        spec if spec.type in TREE_OUTPUTS else replace(spec, names=_names(spec, names)) for spec in asked
    )


def _names(spec: OutputSpec, tags: tuple[str, ...]) -> tuple[str, ...]:
    """An output's own names; ``*`` among them stands for those of ``-t`` (EXP-03)."""
    own = tuple(name for name in spec.names if name != "*")
    return own if own == spec.names and own else (*own, *tags)


def _makers(job: _Job, outputs: tuple[OutputSpec, ...], stack: ExitStack) -> dict[LayerOptions, LayerMaker]:
    makers: dict[LayerOptions, LayerMaker] = {}
    for spec in outputs:
        if spec.type in TREE_OUTPUTS:
            continue
        options = LayerOptions.of(spec)
        if options not in makers:
            makers[options] = stack.enter_context(
                LayerMaker(job.store, options, job.guard.check if job.guard else None)
            )
    return makers


def _image(conversion: Conversion, platform: Platform, snapshot: str | None) -> BuiltImage:
    base = conversion.base_config
    return BuiltImage(
        platform=platform,
        config=conversion.config,
        snapshot=snapshot,
        base_history=len(base.history) if base is not None else 0,
    )


def _metadata(results: list[ExportResult]) -> dict[str, Any]:
    import base64
    import json

    out: dict[str, Any] = {}
    for result in results:
        for key, value in result.response:
            out[key] = json.loads(base64.b64decode(value)) if key == "containerimage.descriptor" else value
    return out


def _warnings(conversions: list[Conversion]) -> tuple[BuildWarning, ...]:
    """What was found wrong with the file, each thing once for all platforms (LNT-02)."""
    found = dict.fromkeys(warning for conversion in conversions for warning in conversion.warnings)
    return tuple(
        BuildWarning(
            rule=warning.rule,
            message=warning.message,
            span=Lines(warning.span.filename, warning.span.start, warning.span.end),
            url=warning.url,
            detail=warning.detail,
            hint=warning.hint,
        )
        for warning in found
    )


def _source_lines(dockerfile: Dockerfile, request: BuildRequest, filename: str) -> tuple[str, ...]:
    if request.llb is None:
        return tuple(dockerfile.source.lines)
    from builder.build.llb import source_lines

    return source_lines(request, filename)


@contextmanager
def _located(dockerfile: Dockerfile, request: BuildRequest) -> Iterator[None]:
    """Give a step's failure the text of the file that it points at."""
    try:
        yield
    except SolveError as error:
        for found in (error, *getattr(error, "failures", ())):
            if isinstance(found, SolveError) and found.filename and not found.source_lines:
                found.source_lines = _source_lines(dockerfile, request, found.filename)
        raise
