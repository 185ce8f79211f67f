"""``pybuild build``: docker build and buildx build."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from io import BytesIO

from builder.errors import Cancelled, UsageError
from cli import build_options as options
from cli import on_failure, space
from cli.app import App, is_terminal
from cli.flags import Args, Command, many, number, switch, text
from cli.units import pair, size_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from builder.build import BuildRequest, BuildResult
    from builder.exporter.types import OutputSpec
    from builder.remotecache.spec import CacheSpec
    from builder.solver.progress import OnEvent
    from builder.sources.policy import Policy
    from cli.settings import Settings

FLAGS = (
    many("add-host", "", 'Add a custom host-to-IP mapping ("host:ip")'),
    many("allow", "", 'Allow extra privileges ("network.host", "security.insecure", "device")', split=True),
    many("annotation", "", "Add an annotation to the image"),
    many("attest", "", 'Attest the image ("type=provenance,mode=min", "type=sbom,generator=IMAGE")'),
    many("build-arg", "", "Set a build argument (NAME=VALUE, or NAME to take it from the environment)"),
    many("build-context", "", "Additional build contexts (NAME=PATH|URL|docker-image://…)"),
    many(
        "cache-from",
        "",
        "Where to look for cached results (a reference, or type=registry|local|s3|azblob|gha,…)",
        aliases=("import-cache",),
    ),
    many(
        "cache-to",
        "",
        "Where to store results for other machines (type=registry|local|inline|s3|azblob|gha,…)",
        aliases=("export-cache",),
    ),
    text(
        "call",
        "",
        'Do something else than build ("check", "outline", "targets")',
        default="build",
        aliases=("print",),
    ),
    text("cgroup-parent", "", "Parent cgroup of the steps"),
    switch("check", "", "Check the Dockerfile without building (same as --call=check)"),
    switch("compress", "", "Accepted for compatibility", hidden=True),
    number("cpu-period", "", "Length of a CPU scheduling period in microseconds"),
    number("cpu-quota", "", "CPU time per period in microseconds"),
    number("cpu-shares", "c", "CPU shares (relative weight)"),
    text("cpuset-cpus", "", "CPUs that steps may use (0-3, 0,1)"),
    text("cpuset-mems", "", "Memory nodes that steps may use (0-3, 0,1)"),
    switch("disable-content-trust", "", "Accepted for compatibility", hidden=True, default=True),
    switch("explain", "", "Say why every step that ran had to run"),
    text("file", "f", 'Name of the Dockerfile (default: "PATH/Dockerfile"; "-" reads it from stdin)'),
    switch("force-rm", "", "Accepted for compatibility", hidden=True),
    text("iidfile", "", "Write the image id to a file", metavar="file"),
    text("isolation", "", "Accepted for compatibility", hidden=True),
    many("label", "", "Set metadata for the image"),
    text("llb", "", 'Build a definition in BuildKit\'s protobuf form ("-" reads stdin)', metavar="file"),
    switch("load", "", "Store the image here (the default without --output)"),
    text("memory", "m", "Memory limit of each step", metavar="bytes"),
    text("memory-swap", "", "Memory and swap together; -1 = unlimited swap", metavar="bytes"),
    text("metadata-file", "", "Write facts about the result to a file", metavar="file"),
    text("network", "", 'Network of RUN steps ("default", "host", "none")', aliases=("net",)),
    switch("no-cache", "", "Run every step anew"),
    many("no-cache-filter", "", "Stages that run anew", split=True),
    many("output", "o", 'Where the result goes ("type=local,dest=path", a directory, or "-")'),
    number("parallel", "", "Steps that may run at the same time (default: four per CPU, and at least 16)"),
    many("platform", "", "Target platforms", split=True),
    text("progress", "", 'Kind of progress output ("auto", "plain", "tty", "quiet", "rawjson")'),
    text("provenance", "", "Short for --attest=type=provenance", bare="true"),
    switch("pull", "", "Ask the registry for newer base images"),
    switch("push", "", "Push the image (same as --output=type=registry)"),
    switch("quiet", "q", "Print only the image id"),
    switch("reproducible", "", "Fix all times, build twice and compare"),
    switch("rm", "", "Accepted for compatibility", hidden=True, default=True),
    text("sbom", "", "Short for --attest=type=sbom", bare="true"),
    many("secret", "", "Expose a secret to the build (id=NAME[,src=FILE|,env=VARIABLE])"),
    text("shm-size", "", "Size of /dev/shm", metavar="bytes"),
    switch("squash", "", "Merge the new layers into one"),
    many("ssh", "", "Expose an ssh agent (default|NAME[=SOCKET])"),
    many("tag", "t", "Name of the image (name:tag)"),
    text("target", "", "Stage to build"),
    many("ulimit", "", "Resource limits of steps (name=soft[:hard])"),
    many("source-policy-file", "", "Rules about which sources may be used (JSON)", metavar="file"),
    text("source-policy-command", "", "Program that is asked about every source", metavar="command"),
    text("frontend", "", 'Like buildctl ("dockerfile.v0")', hidden=True),
    many("opt", "", "Option of the frontend (NAME=VALUE), like buildctl", hidden=True),
    many("local", "", "Directory of the build (NAME=DIRECTORY), like buildctl", hidden=True),
    many("oci-layout", "", "OCI layout of the build (NAME=DIRECTORY), like buildctl", hidden=True),
    text("hostname", "", "Host name of RUN steps"),
    text("ref-file", "", "Write the id of the build to a file", metavar="file"),
    text("trace", "", "Write the events of the build to a file, a JSON object per line", metavar="file"),
    many("registry-auth-tlscontext", "", "TLS for one registry (host=,ca=,cert=,key=,insecure=)"),
    text(
        "debug-json-cache-metrics",
        "",
        "Write counts of cached steps to a file (or stdout, stderr)",
        metavar="file",
    ),
    many("security-opt", "", "Accepted for compatibility", hidden=True),
    text("builder", "", "Accepted for compatibility", hidden=True),
    *space.FLAGS,
    *on_failure.FLAGS,
)


LIMIT_FLAGS = ("memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems")


def run(app: App, args: Args) -> int:
    """Build, then say what came out."""
    args = _plain(args)
    if args.text("call") not in ("", "build") or args.on("check"):
        from cli.commands.build_call import call

        return call(app, args)
    iidfile = args.text("iidfile")
    for path in filter(None, (iidfile, args.text("ref-file"), args.text("metadata-file"))):
        from cli.files import prepare

        prepare(path, stale=path == iidfile)
    request = request_from(app, args)
    made = partial(_explained if args.on("explain") else _build, app, args)
    result = on_failure.attended(app, args, request, made)
    if isinstance(result, int):
        return result
    if iidfile:
        _write_file(iidfile, (result.image_id or result.digest or "").encode())
    if args.text("ref-file"):
        _write_file(args.text("ref-file"), f"{result.build_id or request.build_id}\n".encode())
    if args.text("metadata-file"):
        import json

        _write_file(args.text("metadata-file"), json.dumps(result.metadata, indent=2).encode() + b"\n")
    _epilogue(app, args, request, result)
    return 0


def _plain(args: Args) -> Args:
    """The command line in our own words, and complete."""
    if any(args.given(name) for name in ("frontend", "opt", "local", "oci-layout")):
        from cli.frontend_options import translated

        args = translated(args)
    if args.words:
        return args
    from cli.llb import from_stdin

    return from_stdin(COMMANDS[0], args)


def _build(app: App, args: Args, request: BuildRequest) -> BuildResult:
    from builder.build import build
    from builder.cancelling import within
    from cli.interrupt import Interrupt
    from cli.render.progress import check_mode, make_progress

    mode = args.text("progress") or app.settings.progress
    check_mode(mode)  # -q does not make a wrong one right
    progress = make_progress("quiet" if args.on("quiet") else mode, app.settings, sys.stderr)
    with (
        progress,
        Interrupt(progress.close) as interrupt,
        within(interrupt.cancel),
        _watched(args, progress) as watcher,
    ):
        try:
            return build(app.store, request, on_event=watcher, machine=app.machine, cancel=interrupt.cancel)
        except Cancelled:
            raise
        except Exception as error:
            if interrupt.cancel.is_set:
                raise Cancelled("build cancelled") from error
            raise


def _watched(args: Args, progress: OnEvent) -> AbstractContextManager[OnEvent]:
    """``progress``, and what is written beside it."""
    if not (args.text("trace") or args.text("debug-json-cache-metrics")):
        return nullcontext(progress)
    from cli.render.watchers import watched

    return watched(args, progress)


def _explained(app: App, args: Args, request: BuildRequest) -> BuildResult:
    """Build, and say why, also when it fails."""
    import secrets
    from dataclasses import replace

    from cli.commands.explain import print_build

    request = replace(request, build_id=request.build_id or secrets.token_hex(8))
    try:
        result = _build(app, args, request)
    except Exception:
        print_build(app, request.build_id)
        raise
    print_build(app, result.build_id if result.steps else None, total_steps=result.total_steps)
    return result


def request_from(app: App, args: Args) -> BuildRequest:
    """The request that a command line means."""
    from builder.build import BuildRequest
    from builder.build.request import HistoryLimits

    settings, outputs = app.settings, _outputs(app, args)
    context, dockerfile = args.words[0], args.optional("file") or None
    if context == "-" and dockerfile == "-":
        raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
    alone = not context and args.given("llb")
    context = "-" if alone else context
    uses_stdin = "-" in (context, dockerfile)
    if uses_stdin and not alone and is_terminal(0):
        app.note("pybuild: reading from the terminal; end with Ctrl-D")
    return BuildRequest(
        context=context,
        stdin=(BytesIO() if alone else app.stdin) if uses_stdin else None,
        stdout=app.stdout if any(spec.dest == "-" for spec in outputs) else None,
        dockerfile=dockerfile,
        tags=args.many("tag"),
        build_args=options.build_args(args, settings),
        labels=options.labels(args, settings),
        target=args.text("target") or None,
        platforms=tuple(platform for platform in args.many("platform") if platform) or settings.platforms,
        no_cache=args.on("no-cache"),
        no_cache_filter=args.many("no-cache-filter"),
        pull=args.on("pull"),
        outputs=outputs,
        build_contexts=tuple(pair(item, "build context") for item in args.many("build-context")),
        cache_from=_caches(args.many("cache-from"), settings),
        cache_to=_caches(args.many("cache-to"), settings),
        secrets=tuple(options.read_secret(item, settings) for item in args.many("secret")),
        ssh=options.ssh_agents(args, settings, app.at_end),
        extra_hosts=options.extra_hosts(args.many("add-host")),
        network=_network(args.text("network")),
        shm_size_bytes=size_bytes(args.text("shm-size"), "shm size") if args.text("shm-size") else 0,
        ulimits=options.ulimits(args),
        cgroup_parent=args.text("cgroup-parent") or settings.cgroup_parent,
        hostname=args.text("hostname"),
        limits=options.limits(args) if any(args.given(name) for name in LIMIT_FLAGS) else None,
        attest=options.attestations(args),
        squash=args.on("squash"),
        reproducible=args.on("reproducible"),
        allow=(*settings.allow, *args.many("allow")),
        forbid=settings.config.deny if settings.config else (),
        source_policies=_policies(args, settings),
        source_policy_command=_policy_command(args),
        registry=partial(app.registry_config, args.many("registry-auth-tlscontext")),
        llb=_llb(app, args),
        history=HistoryLimits(*settings.history_limits),
        max_parallelism=_parallel(args) or settings.max_parallelism or 0,
        **on_failure.request_options(args),
        space=space.space_limits(args, settings),
        gc_policies=space.gc_policies(settings),
    )


def _parallel(args: Args) -> int:
    if args.number("parallel") < 0:
        raise UsageError("--parallel must not be negative", hint="0 = four steps per CPU, and at least 16")
    return args.number("parallel")


def _llb(app: App, args: Args) -> bytes | None:
    if not args.given("llb"):
        return None
    from cli.llb import definition_of

    return definition_of(app, args)


def _caches(texts: tuple[str, ...], settings: Settings) -> tuple[CacheSpec, ...]:
    if not texts:
        return ()
    from builder.remotecache.spec import parse_all
    from builder.remotecache.surroundings import completed

    return completed(parse_all(texts), settings.env)


def _policies(args: Args, settings: Settings) -> tuple[Policy, ...]:
    if not (args.given("source-policy-file") or settings.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")):
        return ()
    from cli.source_policy import policies

    return policies(args, settings)


def _policy_command(args: Args) -> tuple[str, ...]:
    if not args.text("source-policy-command"):
        return ()
    from cli.source_policy import command

    return command(args)


def _network(text: str) -> str:
    if text in ("", "default", "bridge", "sandbox"):
        return ""
    if text in ("none", "host"):
        return text
    raise UsageError(f"invalid netmode {text}", hint="default, none or host")


def _outputs(app: App, args: Args) -> tuple[OutputSpec, ...]:
    if not any(args.given(name) for name in ("output", "push", "annotation")):
        return ()
    from cli.build_outputs import outputs

    return outputs(app, args)


def _epilogue(app: App, args: Args, request: BuildRequest, result: BuildResult) -> None:
    """What stands after the progress: warnings (DIA-05, BLD-35), and with -q the id (BLD-07)."""
    unused = [name for name in result.unused_build_args if not options.is_implicit_arg(name)]
    quiet = args.on("quiet") or (args.text("progress") or app.settings.progress) == "quiet"
    if unused and not quiet:
        from cli.render.text import printable

        app.note(f"\n[Warning] One or more build-args [{' '.join(unused)}] were not consumed")
        for hint in result.unused_hints:
            app.note(f"hint: {printable(hint)}")
    if result.warnings and not quiet:
        from cli.render.warnings import summary

        app.note(summary(result, expand=app.debug))
    if quiet and all(spec.dest != "-" for spec in request.outputs):
        found = result.image_id or result.digest
        if found:
            app.say(found)


def _write_file(path: str, data: bytes) -> None:
    from cli.files import written

    with written(path) as file:
        file.write(data)


COMMANDS = (
    Command(
        "build",
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile",
        run,
        flags=FLAGS,
        words=(0, 1),
    ),
)
