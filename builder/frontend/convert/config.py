"""Instructions that change what the image says of itself, and WORKDIR (section 10, ARG and ENV rows)."""

from __future__ import annotations

from builder.frontend.convert.graph import Draft, file_op
from builder.frontend.convert.names import next_name, shown
from builder.frontend.convert.owner import parse_chown
from builder.frontend.convert.ports import container_ports
from builder.frontend.convert.signals import is_signal, similar_signal
from builder.frontend.convert.state import Declared, StageState
from builder.frontend.history import healthcheck_text, plain_list, quoted_list
from builder.frontend.instructions import (
    Arg,
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Maintainer,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.frontend.lint import lint_secret
from builder.frontend.parts import ARGUMENTS, Part, argument
from builder.frontend.parts import text as part_of
from builder.frontend.paths import absolute
from builder.frontend.platformargs import NON_ENV_ARGS
from builder.frontend.words import expand_words, is_plain
from builder.llb.ops import ChownOpt, MkDir


def convert_arg(stage: StageState, instruction: Arg) -> None:
    """Declare build arguments (ARG-02…06)."""
    build, at = stage.build, instruction.at
    shown_pairs: list[str] = []
    for index, (name, default) in enumerate(instruction.items):
        lint_secret(build.linter, "ARG", name, at, index)
        value: str | None
        if name in build.build_args:
            build.used_args.add(name)
            value = build.build_args[name]
            if name == "SOURCE_DATE_EPOCH" and build.epoch is not None:
                value = str(build.epoch)
        elif default is not None:
            value = stage.expand(default, at)
        else:
            value = build.global_env.get(name)
        stage.declared.append(Declared(name, value, default, instruction))
        stage.args[name] = value
        if value is not None and name not in NON_ENV_ARGS:
            stage.env[name] = value
        shown_pairs.append(name if value is None else f"{name}={value}")
    stage.commit(f"ARG {' '.join(shown_pairs)}", empty=True)


def convert_env(stage: StageState, instruction: Env) -> None:
    """ENV-01; every word sees the environment from before (EXP-12)."""
    at = instruction.at
    pairs = [(stage.expand(key, at), stage.expand(value, at)) for key, value in instruction.items]
    for index, (key, value) in enumerate(pairs):
        if not key:
            raise stage.fail("ENV names can not be blank", instruction, part=Part("key", index))
        lint_secret(stage.build.linter, "ENV", key, at, index)
        stage.env[key] = value
        stage.settings.env[key] = value
    stage.commit(" ".join(["ENV", *(f"{key}={value}" for key, value in pairs)]), empty=True)


def convert_label(stage: StageState, instruction: Label) -> None:
    """LBL-01."""
    at = instruction.at
    pairs = [(stage.expand(key, at), stage.expand(value, at)) for key, value in instruction.items]
    for index, (key, value) in enumerate(pairs):
        if not key:
            raise stage.fail("LABEL names can not be blank", instruction, part=Part("key", index))
        stage.settings.labels[key] = value
    stage.commit(" ".join(["LABEL", *(f"{key}={value}" for key, value in pairs)]), empty=True)


def convert_workdir(stage: StageState, instruction: Workdir) -> None:
    """MET-01: changes the working directory and creates it; an empty path is the one that is."""
    path = stage.expand(instruction.path, instruction.at)
    unknown = stage.unknown_base and path.startswith("$")
    slashed = stage.path(path, instruction)
    if not slashed.startswith("/") and not stage.workdir_set and not unknown:
        message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
        stage.build.linter.report("WorkdirRelativePath", instruction.at, message, part=argument(0))
    stage.workdir_set = True
    workdir = absolute(stage.workdir, slashed)
    stage.set_workdir(workdir)
    if workdir == "/":  # counted in the total, but no step (NAM-02)
        stage.commit(f"WORKDIR {workdir}", empty=True)
        return
    name = next_name(stage, shown(stage, instruction.at.text))
    epoch = stage.build.epoch
    owner: ChownOpt | None = parse_chown(stage.settings.user, 0 if stage.tree is not None else -1)
    action = MkDir(
        path=workdir,
        mode=0o755,
        make_parents=True,
        owner=owner,
        timestamp_ns=-1 if epoch is None else epoch * 1_000_000_000,
    )
    op, inputs = file_op(stage.onto(), [(action, None)])
    stage.tree = Draft(op, inputs.tuple(), stage.meta(name, instruction))
    stage.commit(f"WORKDIR {workdir}", empty=False)


def convert_user(stage: StageState, instruction: User) -> None:
    """MET-02."""
    user = stage.expand(instruction.user, instruction.at)
    stage.settings.user = user
    stage.commit(f"USER {user}", empty=True)


def _command(stage: StageState, command: Command) -> tuple[str, ...]:
    return (*stage.shell, " ".join(command.args)) if command.shell else command.args


def _lint_json(stage: StageState, instruction: Cmd | Entrypoint, name: str) -> None:
    """LNT-16."""
    if instruction.command.shell and stage.settings.shell is None:
        message = (
            f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        )
        stage.build.linter.report("JSONArgsRecommended", instruction.at, message, part=ARGUMENTS)


def convert_cmd(stage: StageState, instruction: Cmd) -> None:
    """MET-03."""
    _lint_json(stage, instruction, "CMD")
    args = _command(stage, instruction.command)
    stage.settings.cmd = args or None
    stage.settings.args_escaped = True
    stage.cmd_set = True
    stage.commit(f"CMD {quoted_list(args)}", empty=True)


def convert_entrypoint(stage: StageState, instruction: Entrypoint) -> None:
    """MET-04."""
    _lint_json(stage, instruction, "ENTRYPOINT")
    args = _command(stage, instruction.command)
    stage.settings.entrypoint = args or None
    if not stage.cmd_set:
        stage.settings.cmd = None
    stage.commit(f"ENTRYPOINT {quoted_list(args)}", empty=True)


def convert_shell(stage: StageState, instruction: Shell) -> None:
    """MET-05."""
    stage.settings.shell = instruction.args
    stage.commit(f"SHELL {plain_list(instruction.args)}", empty=True)


def convert_expose(stage: StageState, instruction: Expose) -> None:
    """MET-06."""
    at = instruction.at
    words: list[tuple[str, Part]] = []
    for text in instruction.ports:
        part = part_of(text)
        if is_plain(text, stage.build.escape):
            words.append((text, part))
            continue
        found, expanded = expand_words(text, stage.env, stage.build.escape)
        stage.lint_unmatched(expanded, at)
        words += [(word, part) for word in found]
    ports: list[str] = []
    for word, part in words:
        try:
            ports += container_ports(word, stage.build.linter, at, part)
        except ValueError as error:
            hint = "ports are separated by blanks" if "," in word else None
            raise stage.fail(str(error), instruction, part=part, hint=hint) from error
    ports = list(dict.fromkeys(ports))
    stage.settings.ports.update(dict.fromkeys(ports))
    stage.commit(f"EXPOSE {plain_list(ports)}", empty=True)


def convert_volume(stage: StageState, instruction: Volume) -> None:
    """MET-08."""
    paths = [stage.expand(path, instruction.at) for path in instruction.paths]
    if not all(paths):
        part = argument(paths.index(""))
        raise stage.fail("VOLUME specified can not be an empty string", instruction, part=part)
    stage.settings.volumes.update(dict.fromkeys(paths))
    stage.commit(f"VOLUME {plain_list(paths)}", empty=True)


def convert_stopsignal(stage: StageState, instruction: StopSignal) -> None:
    """MET-10."""
    signal = stage.expand(instruction.signal, instruction.at)
    if not is_signal(signal):
        message = f"invalid signal: {signal[:80]}"
        raise stage.fail(message, instruction, part=argument(0), hint=similar_signal(signal))
    stage.settings.stop_signal = signal
    stage.commit(f"STOPSIGNAL {signal}", empty=True)


def convert_healthcheck(stage: StageState, instruction: Healthcheck) -> None:
    """MET-09."""
    stage.settings.healthcheck = instruction.check
    stage.commit(f"HEALTHCHECK {healthcheck_text(instruction.check)}", empty=True)


def convert_maintainer(stage: StageState, instruction: Maintainer) -> None:
    """MNT-00."""
    stage.settings.author = instruction.name
    stage.commit(f"MAINTAINER {instruction.name}", empty=True)
