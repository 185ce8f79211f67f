"""``pybuild build``: docker build and buildx build."""

from __future__ import annotations

import os
import sys

from builder.errors import Cancelled, UsageError
from cli import build_options as options
from cli.app import App, is_terminal
from cli.flags import Args, Command, many, number, switch, text
from cli.units import pair, size_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.build import BuildRequest, BuildResult
    from builder.exporter.types import OutputSpec

FLAGS = (
    many("add-host", "", 'Add a custom host-to-IP mapping ("host:ip")'),
    many("allow", "", 'Allow extra privileges ("network.host", "security.insecure")', split=True),
    many("annotation", "", "Add an annotation to the image"),
    many("attest", "", 'Attestation parameters ("type=sbom,generator=image")'),
    many("build-arg", "", "Set a build argument (NAME=VALUE, or NAME to take it from the environment)"),
    many("build-context", "", "Additional build contexts (NAME=PATH|URL|docker-image://…)"),
    many("cache-from", "", "Where to look for cached results"),
    many("cache-to", "", "Where to store results for other machines"),
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
    number("cpu-period", "", "Length of a CPU scheduling period in microseconds", hidden=True),
    number("cpu-quota", "", "CPU time per period in microseconds", hidden=True),
    number("cpu-shares", "c", "CPU shares (relative weight)", hidden=True),
    text("cpuset-cpus", "", "CPUs that steps may use (0-3, 0,1)", hidden=True),
    text("cpuset-mems", "", "Memory nodes that steps may use (0-3, 0,1)", hidden=True),
    switch("disable-content-trust", "", "Accepted for compatibility", hidden=True, default=True),
    switch("explain", "", "Say why every step that ran had to run"),
    text("file", "f", 'Name of the Dockerfile (default: "PATH/Dockerfile"; "-" reads it from stdin)'),
    switch("force-rm", "", "Accepted for compatibility", hidden=True),
    text("iidfile", "", "Write the image id to a file", metavar="file"),
    text("isolation", "", "Accepted for compatibility", hidden=True),
    many("label", "", "Set metadata for the image"),
    switch("load", "", "Store the image here (the default without --output)"),
    text("memory", "m", "Memory limit of each step", metavar="bytes"),
    text("memory-swap", "", "Memory and swap together; -1 = unlimited swap", metavar="bytes"),
    text("metadata-file", "", "Write facts about the result to a file", metavar="file"),
    text("network", "", 'Network of RUN steps ("default", "host", "none")', aliases=("net",)),
    switch("no-cache", "", "Run every step anew"),
    many("no-cache-filter", "", "Stages that run anew", split=True),
    many("output", "o", 'Where the result goes ("type=local,dest=path", a directory, or "-")'),
    number("parallel", "", "Steps that may run at the same time"),
    many("platform", "", "Target platforms", split=True),
    text("progress", "", 'Kind of progress output ("auto", "plain", "tty", "quiet", "rawjson")'),
    text("provenance", "", "Short for --attest=type=provenance", bare="true"),
    switch("pull", "", "Ask the registry for newer base images"),
    switch("push", "", "Push the image (same as --output=type=registry)"),
    switch("quiet", "q", "Print only the image id"),
    switch("rm", "", "Accepted for compatibility", hidden=True, default=True),
    text("sbom", "", "Short for --attest=type=sbom", bare="true"),
    many("secret", "", "Expose a secret to the build (id=NAME[,src=FILE|,env=VARIABLE])"),
    text("shm-size", "", "Size of /dev/shm", metavar="bytes"),
    switch("squash", "", "Merge the new layers into one"),
    many("ssh", "", "Expose an ssh agent (default|NAME[=SOCKET])"),
    many("tag", "t", "Name of the image (name:tag)"),
    text("target", "", "Stage to build"),
    many("ulimit", "", "Resource limits of steps (name=soft[:hard])"),
    many("security-opt", "", "Accepted for compatibility", hidden=True),
    text("builder", "", "Accepted for compatibility", hidden=True),
)


LIMIT_FLAGS = ("memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems")
WITHOUT_EFFECT = ("attest", "cache-from", "cache-to", "provenance", "sbom", "squash")
_ANNOTATED = ("manifest", "manifest-descriptor", "index", "index-descriptor")


def run(app: App, args: Args) -> int:
    """Build, then say what came out."""
    if args.text("call") not in ("", "build") or args.on("check"):
        from cli.commands.build_call import call

        return call(app, args)
    _warn_without_effect(app, args)
    iidfile = args.text("iidfile")
    if iidfile:
        _remove_stale(iidfile)
    request = request_from(app, args)
    result = _explained(app, args, request) if args.on("explain") else _build(app, args, request)
    if iidfile:
        _write_file(iidfile, (result.image_id or result.digest or "").encode())
    if args.text("metadata-file"):
        import json

        _write_file(args.text("metadata-file"), json.dumps(result.metadata, indent=2).encode() + b"\n")
    _epilogue(app, args, request, result)
    return 0


def _build(app: App, args: Args, request: BuildRequest) -> BuildResult:
    from builder.build import build
    from cli.interrupt import Interrupt
    from cli.render.progress import make_progress

    mode = args.text("progress") or app.settings.progress
    progress = make_progress("quiet" if args.on("quiet") else mode, app.settings, sys.stderr)
    with progress, Interrupt(progress.close) as interrupt:
        try:
            return build(app.store, request, on_event=progress, machine=app.machine, cancel=interrupt.cancel)
        except Cancelled:
            raise
        except Exception as error:
            if interrupt.cancel.is_set:
                raise Cancelled("build cancelled") from error
            raise


def _explained(app: App, args: Args, request: BuildRequest) -> BuildResult:
    """Build, and say why, also when it fails."""
    import secrets
    from dataclasses import replace

    from cli.commands.explain import print_build

    request = replace(request, build_id=secrets.token_hex(8))
    try:
        result = _build(app, args, request)
    except Exception:
        print_build(app, request.build_id)
        raise
    print_build(app, result.build_id, total_steps=result.total_steps)
    return result


def _warn_without_effect(app: App, args: Args) -> None:
    for name in WITHOUT_EFFECT:
        if args.given(name) and not (name in ("provenance", "sbom") and args.text(name) == "false"):
            app.note(f"WARNING: --{name} has no effect yet")


def request_from(app: App, args: Args) -> BuildRequest:
    """The request that a command line means."""
    from builder.build import BuildRequest

    settings, outputs = app.settings, _outputs(args)
    context, dockerfile = args.words[0], args.optional("file") or None
    if context == "-" and dockerfile == "-":
        raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
    uses_stdin = "-" in (context, dockerfile)
    if uses_stdin and is_terminal(0):
        app.note("pybuild: reading from the terminal; end with Ctrl-D")
    return BuildRequest(
        context=context,
        stdin=app.stdin if uses_stdin else None,
        stdout=app.stdout if any(spec.dest == "-" for spec in outputs) else None,
        dockerfile=dockerfile,
        tags=args.many("tag"),
        build_args=options.build_args(args, settings),
        labels=options.labels(args),
        target=args.text("target") or None,
        platforms=tuple(platform for platform in args.many("platform") if platform),
        no_cache=args.on("no-cache"),
        no_cache_filter=args.many("no-cache-filter"),
        pull=args.on("pull"),
        outputs=outputs,
        build_contexts=tuple(pair(item, "build context") for item in args.many("build-context")),
        secrets=tuple(options.read_secret(item, settings) for item in args.many("secret")),
        ssh=options.ssh_agents(args, settings),
        extra_hosts=options.extra_hosts(args.many("add-host")),
        network=_network(args.text("network")),
        shm_size_bytes=size_bytes(args.text("shm-size"), "shm size") if args.text("shm-size") else 0,
        ulimits=options.ulimits(args),
        cgroup_parent=args.text("cgroup-parent"),
        limits=options.limits(args) if any(args.given(name) for name in LIMIT_FLAGS) else None,
        allow=(*settings.allow, *args.many("allow")),
        registry=app.registry_config,
        max_parallelism=args.number("parallel") or settings.max_parallelism or 0,
    )


def _network(text: str) -> str:
    if text in ("", "default", "bridge", "sandbox"):
        return ""
    if text in ("none", "host"):
        return text
    raise UsageError(f"invalid netmode {text}", hint="default, none or host")


def _outputs(args: Args) -> tuple[OutputSpec, ...]:
    if not any(args.given(name) for name in ("output", "push", "annotation")):
        return ()
    from dataclasses import replace

    from builder.exporter.types import OutputSpec

    found = [OutputSpec.parse(item) for item in args.many("output")]
    if args.on("push"):
        pushed = [replace(spec, push=True) if spec.type == "image" else spec for spec in found]
        found = pushed if pushed != found else [*found, OutputSpec(type="image", push=True)]
    if not found or (args.on("load") and not any(spec.type == "image" for spec in found)):
        found.append(OutputSpec(type="image"))
    if args.many("annotation"):
        found = [_annotated(spec, args.many("annotation")) for spec in found]
    to_stdout = [spec for spec in found if spec.dest == "-"]
    if len(to_stdout) > 1:
        raise UsageError("only one output can go to stdout")
    if to_stdout and is_terminal(1):
        raise UsageError(
            f"refusing to write the {to_stdout[0].type} output to a terminal",
            hint="redirect it, or use dest=FILE",
        )
    return tuple(found)


def _annotated(spec: OutputSpec, annotations: tuple[str, ...]) -> OutputSpec:
    """``--annotation [TYPE[,TYPE]:]KEY=VALUE`` added to an output (EXP-11)."""
    from dataclasses import replace

    from builder.exporter.types import parse_annotation

    added = []
    for item in annotations:
        key, value = pair(item, "annotation")
        kinds, colon, rest = key.partition(":")
        if colon and all(kind.partition("[")[0] in _ANNOTATED for kind in kinds.split(",")):
            added += [parse_annotation(f"annotation-{kind}.{rest}", value) for kind in kinds.split(",")]
        else:
            added.append(parse_annotation(f"annotation.{key}", value))
    return replace(spec, annotations=(*spec.annotations, *added))


def _epilogue(app: App, args: Args, request: BuildRequest, result: BuildResult) -> None:
    """What stands after the progress: warnings (DIA-05, BLD-35), and with -q the id (BLD-07)."""
    unused = [name for name in result.unused_build_args if not options.is_implicit_arg(name)]
    quiet = args.on("quiet")
    if unused and not quiet:
        from cli.render.text import printable

        app.note(f"\n[Warning] One or more build-args [{' '.join(unused)}] were not consumed")
        for hint in result.unused_hints:
            app.note(f"hint: {printable(hint)}")
    if result.warnings and not quiet:
        from cli.render.warnings import text_lines, warning_lines

        lines = text_lines(result.dockerfile) if app.debug else ()
        app.note("\n" + "\n".join(warning_lines(result.warnings, lines, expand=app.debug)))
    if quiet and all(spec.dest != "-" for spec in request.outputs):
        found = result.image_id or result.digest
        if found:
            app.say(found)


def _remove_stale(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"--iidfile {path}: {error.strerror}") from error


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
        words=(1, 1),
    ),
)
