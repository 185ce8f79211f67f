"""The flags of ``run`` and ``create`` as a request (section 2.9 of the requirements)."""

from __future__ import annotations

from pathlib import Path

from builder.containers import BadOption, CreateRequest, options
from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args
from runtime.spec import Limits
from runtime.specfile import LogOptions

_WITHOUT_EFFECT = (
    "cgroupns",
    "health-cmd",
    "health-interval",
    "health-retries",
    "health-start-period",
    "health-timeout",
    "init",
    "ip",
    "link",
    "sysctl",
    "userns",
)
_CPU_PERIOD_US = 100_000


def request_from(app: App, args: Args, *, detach: bool) -> CreateRequest:
    """The request that a command line means. Raises UsageError and BadOption."""
    for name in _WITHOUT_EFFECT:
        if args.given(name):
            app.note(f"WARNING: --{name} has no effect here")
    streams = _streams(args, detach=detach)
    entrypoint = args.optional("entrypoint")
    return CreateRequest(
        image=args.words[0],
        command=args.words[1:],
        name=args.text("name"),
        entrypoint=None if entrypoint is None else ((entrypoint,) if entrypoint else ()),
        env=environment(app, args),
        labels=_labels(args),
        workdir=args.text("workdir"),
        user=args.text("user"),
        groups=args.many("group-add"),
        hostname=args.text("hostname"),
        domainname=args.text("domainname"),
        tty=args.on("tty"),
        interactive=args.on("interactive"),
        attach_stdin="stdin" in streams,
        attach_stdout="stdout" in streams,
        attach_stderr="stderr" in streams,
        auto_remove=args.on("rm"),
        restart=options.restart(args.text("restart")),
        stop_signal=args.text("stop-signal"),
        stop_timeout_s=args.number("stop-timeout") if args.given("stop-timeout") else None,
        log=_log(args),
        volumes=tuple(
            [options.volume(text) for text in args.many("volume")]
            + [options.mount(text) for text in args.many("mount")]
        ),
        volumes_from=args.many("volumes-from"),
        tmpfs=tuple(options.tmpfs(text) for text in args.many("tmpfs")),
        network=args.text("network"),
        ports=tuple(port for text in args.many("publish") for port in options.ports(text)),
        publish_all=args.on("publish-all"),
        expose=args.many("expose"),
        extra_hosts=args.many("add-host"),
        dns=args.many("dns"),
        dns_search=args.many("dns-search"),
        dns_options=args.many("dns-option"),
        mac_address=args.text("mac-address"),
        pid=args.text("pid"),
        ipc=args.text("ipc"),
        uts=args.text("uts"),
        privileged=args.on("privileged"),
        cap_add=args.many("cap-add"),
        cap_drop=args.many("cap-drop"),
        security_opt=args.many("security-opt"),
        devices=tuple(options.device(text) for text in args.many("device")),
        readonly_root=args.on("read-only"),
        shm_size=options.size(args.text("shm-size")) if args.text("shm-size") else 64 << 20,
        ulimits=tuple(options.ulimit(text) for text in args.many("ulimit")),
        limits=_limits(args),
        cgroup_parent=args.text("cgroup-parent"),
        oom_score_adj=args.number("oom-score-adj") if args.given("oom-score-adj") else None,
    )


def environment(app: App, args: Args) -> tuple[str, ...]:
    """``--env-file`` entries, then ``-e``; a bare NAME takes its value from here, if any (RUN-14)."""
    found: list[str] = []
    for path in args.many("env-file"):
        found += options.env_file(Path(path), dict(app.settings.all_env()))
    for item in args.many("env"):
        name, equals, _ = item.partition("=")
        if not name:
            raise BadOption(f"invalid environment variable: {item!r}")
        if equals:
            found.append(item)
        elif (value := app.settings.env(name)) is not None:
            found.append(f"{name}={value}")
    return tuple(found)


def _labels(args: Args) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for path in args.many("label-file"):
        found.update(options.label_file(Path(path)))
    for item in args.many("label"):
        key, _, value = item.partition("=")
        found[key] = value
    return tuple(found.items())


def _streams(args: Args, *, detach: bool) -> frozenset[str]:
    asked = frozenset(name.lower() for name in args.many("attach"))
    if unknown := asked - {"stdin", "stdout", "stderr"}:
        raise BadOption(f"invalid argument {min(unknown)!r} for --attach", hint="STDIN, STDOUT or STDERR")
    if detach and asked:
        raise BadOption("Conflicting options: -a and -d")
    if detach:
        return frozenset()
    if not asked:
        asked = frozenset({"stdout", "stderr", "stdin"} if args.on("interactive") else {"stdout", "stderr"})
    return asked


def check_terminal(args: Args, *, detach: bool) -> None:
    """A terminal for the container needs one here when input is passed on (RUN-19)."""
    if args.on("tty") and args.on("interactive") and not detach and not is_terminal(0):
        raise UsageError(
            "cannot enable tty mode on non tty input: the input device is not a TTY", code="not-a-tty"
        )


def _log(args: Args) -> LogOptions:
    driver = args.text("log-driver") or "json-file"
    found = dict(item.partition("=")[::2] for item in args.many("log-opt"))
    if driver not in ("json-file", "local", "none"):
        raise BadOption(f"unknown log driver {driver!r}", hint="json-file or none")
    files = found.get("max-file", "1")
    if not files.isdigit():
        raise BadOption(f"invalid log option max-file={files}")
    return LogOptions(
        driver="none" if driver == "none" else "json-file",
        max_size=options.size(found["max-size"]) if "max-size" in found else 0,
        max_files=max(1, int(files)),
    )


def _limits(args: Args) -> Limits:
    period, quota = args.number("cpu-period") or None, args.number("cpu-quota") or None
    if args.text("cpus"):
        if period or quota:
            raise BadOption("Conflicting options: --cpus and --cpu-period or --cpu-quota")
        try:
            period, quota = _CPU_PERIOD_US, int(float(args.text("cpus")) * _CPU_PERIOD_US) or None
        except ValueError:
            raise BadOption(f"invalid number of CPUs {args.text('cpus')!r}") from None
    swappiness = args.number("memory-swappiness")
    return Limits(
        memory_bytes=_size(args, "memory"),
        memory_swap_bytes=_size(args, "memory-swap"),
        memory_reservation_bytes=_size(args, "memory-reservation"),
        memory_swappiness=swappiness if swappiness != -1 else None,
        oom_kill_disable=args.on("oom-kill-disable"),
        cpu_shares=args.number("cpu-shares") or None,
        cpu_period_us=period,
        cpu_quota_us=quota,
        cpuset_cpus=args.text("cpuset-cpus"),
        cpuset_mems=args.text("cpuset-mems"),
        blkio_weight=args.number("blkio-weight") or None,
        pids=args.number("pids-limit") or None,
    )


def _size(args: Args, name: str) -> int | None:
    return (options.size(args.text(name)) or None) if args.text(name) else None
