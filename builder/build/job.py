"""A build under way, and its context: found, fetched with the credentials that it has, fetched again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from builder.build import entitlements
from builder.build.failed import StepKeeper
from builder.build.machine import Machine
from builder.build.phases import phase
from builder.build.policy import SourceGate
from builder.build.request import BuildRequest
from builder.build.space import Guard
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.exporter.types import OutputSpec
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent
from builder.sources.contexts import PreparedContext, RemoteAccess, prepare_context
from builder.sources.contexttree import Ignore

if TYPE_CHECKING:
    from builder.attest.request import AttestRequest
    from builder.solver import planning


NO_DOCKERFILE = b"FROM scratch\n"
"""What stands where the Dockerfile of a definition would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
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


def prepare(job: Job) -> PreparedContext:
    """Find the context and the Dockerfile; a context manager. Raises what sources raise."""
    request = job.request
    gate = SourceGate.of(request)
    if not gate.open:
        from builder.build.judging import judge_dockerfile

        judge_dockerfile(gate, request)
    return prepare_context(
        job.store,
        gate.context(request.context),
        compile_ignore=_compile_ignore,
        stdin=request.stdin,
        dockerfile=request.dockerfile,
        dockerfile_data=request.dockerfile_data if request.llb is None else NO_DOCKERFILE,
        build_contexts=request.build_contexts,
        subdir=request.context_subdir,
        steps=partial(phase, emit=job.emit),
        remote=_remote_access(request),
    )


def retried(job: Job, call: Callable[[bool], PreparedContext]) -> PreparedContext:
    """A context that comes over the network is asked for again as often as was wanted."""
    if not job.request.retries or "://" not in job.request.context:
        return call(True)
    from builder.solver.retrying import retrying

    def say(text: str) -> None:
        with phase(text.strip(), job.emit):
            return

    return retrying(call, job.request.retries, say=say, cancel=job.cancel)


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
