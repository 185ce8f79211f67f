"""A Dockerfile and a request become definitions: one conversion per platform."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from builder.build.dockerfiles import trigger_nodes
from builder.build.job import Job
from builder.build.targets import multi_platform
from builder.errors import UsageError
from builder.frontend.convert import Conversion, ConvertOptions, Resolver, convert
from builder.frontend.parser import Dockerfile
from builder.llb.definition import LinuxResources
from builder.oci.platform import Platform, host_platform
from builder.solver.ops.machine import supported_platforms
from builder.sources.contexts import PreparedContext
from runtime.spec import Limits


def convert_for(
    job: Job,
    prepared: PreparedContext,
    dockerfile: Dockerfile,
    resolver: Resolver,
    platform: Platform,
    *,
    all_stages: bool = False,
    frontend: str = "",
) -> Conversion:
    """The definition for one platform. Raises DockerfileError, and what the resolver raises.

    ``frontend`` takes the place of the one that the file asks for.
    """
    if job.request.llb is not None:
        from builder.build.llb import conversion

        return conversion(job.request, platform)
    options = options_for(job, prepared, platform)
    if frontend:
        options = replace(options, frontend=frontend)
    return convert(dockerfile, options, resolver, all_stages=all_stages)


def options_for(job: Job, prepared: PreparedContext, platform: Platform) -> ConvertOptions:
    """What the conversion is told of the request and of this machine."""
    request = job.request
    return ConvertOptions(
        platform=platform,
        build_platform=host_platform(),
        platform_explicit=bool(request.platforms),
        trigger_nodes=trigger_nodes(job.store),
        more_platforms=partial(supported_platforms, job.machine.search_path),
        target=request.target,
        build_args=request.build_args,
        labels=request.labels,
        no_cache=request.no_cache or request.no_cache_filter,
        multi_platform=multi_platform(request),
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
