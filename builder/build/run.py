"""The build use case, step by step: context, Dockerfile, definition, solve, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from builder.build import entitlements
from builder.build.export import TREE_OUTPUTS, export_all
from builder.build.layers import LayerMaker, LayerOptions
from builder.build.learning import learn
from builder.build.machine import Machine
from builder.build.memo import full_names, warn
from builder.build.phases import phase
from builder.build.recording import Recorder
from builder.build.request import BuildRequest, BuildResult, BuildWarning, Lines
from builder.build.resolver import BuildResolver
from builder.build.sources import BuildSources
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.errors import SolveError, UsageError
from builder.exporter.types import BuiltImage, ExportResult, OutputSpec
from builder.frontend.convert import Conversion, ConvertOptions, Resolver, convert
from builder.frontend.nodes import FORMAT, Nodes
from builder.frontend.parser import Dockerfile, parse_nodes
from builder.llb.definition import LinuxResources, Vertex
from builder.oci.digest import Digest
from builder.oci.platform import Platform, host_platform
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv
from builder.solver.ops.machine import supported_platforms
from builder.solver.progress import OnEvent
from builder.solver.solver import Solved, solve
from builder.sources.contexts import PreparedContext, RemoteAccess, prepare_context
from builder.sources.contexttree import Ignore
from builder.sources.local import LocalContext
from runtime.spec import Limits

if TYPE_CHECKING:
    from builder.solver import planning

NODES_KIND = "dockerfile"


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
    on_planned: Callable[[planning.Nodes], None] | None = None


def run_build(
    store: Store,
    request: BuildRequest,
    *,
    on_event: OnEvent,
    machine: Machine,
    cancel: Cancel | None = None,
) -> BuildResult:
    """Build what ``request`` asks for. Raises PybuildError; Cancelled when ``cancel`` was set meanwhile."""
    outputs = _outputs(request)
    granted = entitlements.granted(request.allow, network=request.network)
    recorder = Recorder(store, request, on_event)
    with recorder.recording(), store.hold() as hold, ExitStack() as stack:
        job = _Job(
            store=store,
            request=request,
            emit=recorder,
            on_planned=recorder.planned,
            granted=granted,
            cancel=cancel or Cancel(),
            machine=machine,
            hold=hold,
            outputs=outputs,
        )
        prepared = stack.enter_context(_prepare(job))
        dockerfile = load_dockerfile(store, prepared.dockerfile, prepared.dockerfile_name)
        with _located(dockerfile):
            result = _build(job, prepared, dockerfile)
        recorder.done(result.image_id)
        return replace(result, build_id=recorder.id, steps=recorder.steps)


def load_dockerfile(store: Store, data: bytes, name: str) -> Dockerfile:
    """Parse a Dockerfile, or take the nodes of an earlier parse of the same bytes."""
    key = f"{FORMAT}:{Digest.of(data)}"
    known = store.doc(NODES_KIND, key)
    if known is not None:
        return Dockerfile.from_nodes(Nodes.from_bytes(known), data, name)
    nodes = parse_nodes(data, name)
    dockerfile = Dockerfile.from_nodes(nodes, data, name)
    store.put_doc(NODES_KIND, key, nodes.to_bytes())
    return dockerfile


def _prepare(job: _Job) -> PreparedContext:
    request = job.request
    return prepare_context(
        job.store,
        request.context,
        compile_ignore=_compile_ignore,
        stdin=request.stdin,
        dockerfile=request.dockerfile,
        dockerfile_data=request.dockerfile_data,
        build_contexts=request.build_contexts,
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
    keep = args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "") in ("1", "true")
    return RemoteAccess(
        git_tokens=tokens, ssh_socket=socket, proxy_env=proxies, keep_git_dir=keep, commit_times=times
    )


def _build(job: _Job, prepared: PreparedContext, dockerfile: Dockerfile) -> BuildResult:
    request = job.request
    platforms = _platforms(request) or (host_platform(),)
    resolver = BuildResolver(job.store, job.hold, job.emit, prepared, request)
    conversions = [_convert(job, prepared, dockerfile, resolver, platform) for platform in platforms]
    entitlements.check(
        (conversion.definition for conversion in conversions), job.granted, job.machine.cdi_dirs
    )
    warnings = _warnings(conversions)
    warn(job.emit, warnings)
    epoch = conversions[0].epoch
    outputs = tuple(spec if spec.epoch is not None else replace(spec, epoch=epoch) for spec in job.outputs)
    with ExitStack() as stack:
        makers = _makers(job, outputs, stack)
        solved: list[Solved] = []
        images: list[BuiltImage] = []
        sources: list[BuildSources] = []
        for conversion, platform in zip(conversions, platforms, strict=True):
            env = _env(job, prepared, resolver, makers)
            sources.append(cast("BuildSources", env.sources))
            result = solve(conversion.definition, env)
            solved.append(result)
            images.append(_image(conversion, platform, result.snapshot))
        results = export_all(
            job.store,
            images,
            outputs,
            makers,
            registry=resolver.registry,
            emit=job.emit,
            cancel=job.cancel,
            stdout=request.stdout,
        )
    metadata = _metadata(results)
    if len(platforms) == 1 and len(results) == 1:
        learn(
            store=job.store,
            request=request,
            prepared=prepared,
            bases=resolver.bases(),
            conversion=conversions[0],
            solved=solved[0],
            selections=sources[0].selections,
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
    return convert(dockerfile, _options(job, prepared, platform), resolver, all_stages=all_stages)


def _options(job: _Job, prepared: PreparedContext, platform: Platform) -> ConvertOptions:
    request = job.request
    return ConvertOptions(
        platform=platform,
        build_platform=host_platform(),
        platform_explicit=bool(request.platforms),
        more_platforms=partial(supported_platforms, job.machine.search_path),
        target=request.target,
        build_args=request.build_args,
        labels=request.labels,
        no_cache=request.no_cache or request.no_cache_filter,
        multi_platform=_multi_platform(request),
        resolve_mode="pull" if request.pull else "default",
        ignore=cast("Any", prepared.ignore),
        network_mode=_network_mode(request.network),
        extra_hosts=request.extra_hosts,
        hostname=request.hostname,
        shm_size_bytes=request.shm_size_bytes,
        ulimits=request.ulimits,
        cgroup_parent=request.cgroup_parent,
        resources=_resources(request.limits) if request.limits is not None else None,
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
    def on_snapshot(_: Vertex, snapshot: str) -> None:
        for maker in makers.values():
            maker.want(snapshot)

    locals_: dict[str, LocalContext] = dict(prepared.locals)
    if prepared.main is not None:
        locals_["context"] = prepared.main
    return SolveEnv(
        store=job.store,
        hold=job.hold,
        sources=BuildSources(
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
        max_parallelism=job.request.max_parallelism,
        on_planned=job.on_planned,
        on_snapshot=on_snapshot if makers else None,
    )


def _outputs(request: BuildRequest) -> tuple[OutputSpec, ...]:
    """The outputs with the names of ``-t``; without any output the image goes into the store."""
    names = full_names(request.tags)
    asked = request.outputs or (OutputSpec(type="image"),)
    if _multi_platform(request):
        asked = tuple(replace(spec, indexed=True) for spec in asked)
    return tuple(
        spec if spec.names or spec.type in TREE_OUTPUTS else replace(spec, names=names) for spec in asked
    )


def _makers(job: _Job, outputs: tuple[OutputSpec, ...], stack: ExitStack) -> dict[LayerOptions, LayerMaker]:
    makers: dict[LayerOptions, LayerMaker] = {}
    for spec in outputs:
        if spec.type in TREE_OUTPUTS:
            continue
        options = LayerOptions.of(spec)
        if options not in makers:
            makers[options] = stack.enter_context(LayerMaker(job.store, options))
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


@contextmanager
def _located(dockerfile: Dockerfile) -> Iterator[None]:
    """Give a step's failure the text of the file that it points at."""
    try:
        yield
    except SolveError as error:
        if error.filename and not error.source_lines:
            error.source_lines = tuple(dockerfile.source.lines)
        raise
