"""RUN → an exec op (sections 7 and 8 of the rows, HDC-05…09)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from builder.frontend.convert.graph import Draft, Inputs, Tree, file_op
from builder.frontend.convert.names import next_name, shown
from builder.frontend.convert.runmounts import RunMounts
from builder.frontend.convert.state import StageState
from builder.frontend.history import run_text
from builder.frontend.instructions import Command, Run
from builder.frontend.lines import parse_heredoc, shell_words
from builder.llb.definition import VertexMeta
from builder.llb.ops import ExecMeta, ExecOp, MkFile, Mount

PIPES = "/dev/pipes/"
INLINE = VertexMeta(name="[internal] preparing inline document")


def convert_run(stage: StageState, instruction: Run) -> None:
    """Run a command on the stage's tree; its changes become the stage's next layer."""
    args, script = command_args(stage, instruction.command)
    if not args:
        raise stage.fail("RUN requires at least one argument", instruction)
    if any("\0" in arg for arg in args):
        raise stage.fail("a command cannot hold NUL bytes", instruction)
    inputs = Inputs()
    root = Mount(dest="/", input=inputs.position(stage.onto()), output=0)
    mounts = RunMounts(stage, instruction, inputs)
    for index, text in enumerate(instruction.mounts):
        mounts.add(index, text, instruction.mount_sources[index])
    if script is not None:
        mounts.put(Mount(dest=PIPES, input=inputs.position(script), readonly=True))
    options = stage.build.options
    if options.shm_size_bytes:
        mounts.put(Mount(dest="/dev/shm", type="tmpfs", size_bytes=options.shm_size_bytes))
    meta = ExecMeta(
        args=args,
        env=_environment(stage, mounts),
        cwd=stage.workdir,
        user=stage.settings.user,
        proxy_env=stage.build.proxy_env,
        extra_hosts=tuple((name.lower(), address) for name, address in options.extra_hosts),
        hostname=stage.build.build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or options.hostname,
        ulimits=options.ulimits,
        cgroup_parent=options.cgroup_parent,
    )
    op = ExecOp(
        meta=meta,
        mounts=(root, *mounts.sorted()),
        network=_network(stage, instruction),
        security="insecure" if instruction.security == "insecure" else "sandbox",
        secret_env=tuple(mounts.secret_env),
        devices=(*options.devices, *instruction.devices),
    )
    hidden = tuple(secret.name for secret in mounts.secret_env)
    name = shown(stage, instruction.at.text, for_run=True, hidden=hidden) + _summary(instruction.command)
    made = replace(stage.meta(next_name(stage, name), instruction), arguments=_arguments(stage))
    stage.tree = Draft(op, inputs.tuple(), made, stage.platform)
    values = [(key, stage.env.get(key, value or "")) for key, value in stage.args.items()]
    stage.commit(run_text(args, values), empty=False)


def _arguments(stage: StageState) -> tuple[str, ...]:
    """The arguments that a command sees, unless ENV has given the name another value."""
    return tuple(
        name for name, value in stage.args.items() if value is not None and stage.env.get(name) == value
    )


def _network(stage: StageState, instruction: Run) -> Literal["sandbox", "host", "none"]:
    """RUN-06: without the flag, what the whole build was told."""
    match instruction.network:
        case "":
            return stage.build.options.network_mode or "sandbox"
        case "host":
            return "host"
        case "none":
            return "none"
        case _:
            return "sandbox"


def _environment(stage: StageState, mounts: RunMounts) -> tuple[str, ...]:
    env = [f"{key}={value}" for key, value in stage.env.items()]
    if mounts.agent and "SSH_AUTH_SOCK" not in stage.env:
        env.append(f"SSH_AUTH_SOCK={mounts.agent}")
    return tuple(env)


def command_args(stage: StageState, command: Command) -> tuple[tuple[str, ...], Tree]:
    """The argument list, and for a ``#!`` here-document the tree that holds it (HDC-05, HDC-06)."""
    if not command.shell:
        return command.args, None
    text = " ".join(command.args)
    bodies = command.heredocs
    if not bodies:
        return (*stage.shell, text), None
    if len(bodies) == 1 and is_single(command):
        body = bodies[0].body
        if body.startswith("#!") and stage.platform.os != "windows":
            name = bodies[0].name.replace("/", "_")
            data = body.encode("utf-8", "surrogateescape")
            op, inputs = file_op(None, [(MkFile(path=f"/{name}", data=data, mode=0o755), None)])
            return (PIPES + name,), Draft(op, inputs.tuple(), INLINE)
        return (*stage.shell, body), None
    for heredoc in bodies:
        text += f"\n{heredoc.content}{heredoc.name}"
    return (*stage.shell, text), None


def is_single(command: Command) -> bool:
    """Whether the whole command is one here-document word."""
    words = shell_words(" ".join(command.args))
    return len(words) == 1 and parse_heredoc(words[0]) is not None


def _summary(command: Command) -> str:
    """HDC-09: the first line of a lone here-document."""
    if len(command.heredocs) != 1 or not is_single(command):
        return ""
    first, more, _ = command.heredocs[0].body.strip().partition("\n")
    return f" ({first.rstrip()}{'...' if more else ''})" if first else ""
