"""What is said of a RUN step that failed: its status, and what to try when its output tells why (ERR-05)."""

from __future__ import annotations

import errno
import re

from builder.cache import ownership
from builder.errors import PathNotFound, PybuildError, SolveError, StepFailed, StepTimedOut
from builder.frontend.durations import format_duration
from builder.llb.definition import Vertex
from builder.llb.ops import ExecOp
from builder.oci.platform import Platform, host_platform
from builder.solver.env import SolveEnv
from builder.solver.ops.machine import emulation_for
from builder.solver.reporter import Reporter
from runtime.errors import CommandNotExecutable, SetupFailed
from runtime.spec import ExitStatus

_FORMAT = re.compile(
    # A shell that takes such a program for a script reads its first word.
    r"exec format error|cannot execute binary file|\x7fELF",
    re.IGNORECASE,
)
_OTHER_FORMAT = re.compile(r"Invalid ELF image for this architecture", re.IGNORECASE)  # says an emulator
_DENIED = re.compile(r"operation not permitted|permission denied", re.IGNORECASE)
_NO_SUCH_ID = re.compile(
    r"(chown|lchown|setuid|setgid|setgroups|seteuid|chgrp).*invalid argument", re.IGNORECASE
)


def step_failed(
    op: ExecOp,
    status: ExitStatus,
    reporter: Reporter,
    env: SolveEnv,
    *,
    late: bool,
    platform: Platform | None,
) -> StepFailed:
    """The failure of a command that ended with ``status``; ``late``: because its time was over."""
    command = " ".join(op.meta.args)
    if late:
        limit = format_duration(round(env.step_timeout_s * 1e9))
        return StepTimedOut(
            f'process "{command}" did not complete within {limit} and was killed',
            exit_code=status.shell_code,
            log_tail=reporter.tail(),
            hint="raise --step-timeout if the step needs longer; its last output shows where it stood",
        )
    message = f'process "{command}" did not complete successfully: exit code: {status.shell_code}'
    if status.oom_killed:
        message += ": cannot allocate memory"
        hint: str | None = "the step hit its memory limit: raise it with --memory"
    else:
        hint = _hint("\n".join(reporter.tail()), platform, env)
    return StepFailed(message, exit_code=status.shell_code, log_tail=reporter.tail(), hint=hint)


def not_started(op: ExecOp, error: CommandNotExecutable, platform: Platform | None) -> SolveError:
    """The failure of a command that the kernel refused."""
    hint = error.hint
    if _FORMAT.search(error.message):
        hint = _format_hint(platform)
    elif _DENIED.search(error.message):
        hint = f"is {op.meta.args[0]} executable for the user of the step? (RUN chmod +x, COPY --chmod=755)"
    elif "argument list too long" in error.message:
        hint = "one argument can have 128 KiB: begin a long RUN <<EOF with #!, or COPY the text to a file"
    return SolveError(error.message, context=error.context, hint=hint, code=error.code)


def setup_hint(error: SetupFailed) -> str | None:
    """What to try when a mount of the step could not be made."""
    if error.errno == errno.EROFS:
        return f"{error.path} is below a read-only mount: let it exist there already, or add rw to that mount"
    if error.call == "mount" and error.errno in (errno.EINVAL, errno.ENOTDIR):
        return f"is {error.path} a file in the image and the source a directory, or the other way round?"
    return None


def source_missing(vertex: Vertex, error: SetupFailed) -> PybuildError | None:
    """The failure of a mount whose source cannot be had, if ``error`` is that (MNT-19, CHK-08)."""
    op, path = vertex.op, error.path.strip("/")
    assert isinstance(op, ExecOp)
    for mount in op.mounts:
        if error.call != "openat2" or not path or mount.selector.strip("/") != path:
            continue
        loop = error.errno == errno.ELOOP
        if mount.type == "cache":
            return SolveError(
                f'cache mount {mount.dest}: source "{path}": '
                f"{'too many symbolic links' if loop else 'not found in the cache'}",
                code="cache-source-missing",
                hint="source= is a path inside the cache; a link in it is followed with the cache as its "
                "root, so one that leads out of it leads nowhere",
            )
        if mount.type == "bind" and mount.input >= 0 and not loop:
            missing = PathNotFound(f'"/{path}": not found', path=path)
            missing.name_ref(str(vertex.inputs[mount.input].digest))
            missing.hint = f"source= of the mount at {mount.dest} is a path in what from= names"
            return missing
    return None


def _hint(output: str, platform: Platform | None, env: SolveEnv) -> str | None:
    if _OTHER_FORMAT.search(output):
        return _format_hint(platform)
    emulation = emulation_for(platform, env.search_path)
    if emulation is not None and platform is not None:
        return emulation.hint(platform)
    if _FORMAT.search(output):
        return _format_hint(platform)
    if ownership.MODE.nodes:
        return _rootless_hint(output)
    return None


def _format_hint(platform: Platform | None) -> str:
    wanted = platform or host_platform()
    return (
        f"the program is made for another processor than {wanted}, or is a script without a #! line; take "
        "the right one (is the base image for that platform?), or install an emulator (Debian: apt install "
        "qemu-user-static binfmt-support)"
    )


def _rootless_hint(output: str) -> str | None:
    """What a user namespace takes away."""
    if _NO_SUCH_ID.search(output):
        if ownership.MODE.owners:
            return (
                "this user has a single id, so programs cannot change theirs; a range of ids in /etc/subuid "
                "and /etc/subgid allows it: pybuild doctor prints the lines"
            )
        return (
            "that id is beyond the range that /etc/subuid and /etc/subgid grant: "
            "enlarge the range there, or use a smaller id"
        )
    if _DENIED.search(output):
        return (
            "a build without root may not mount, make device nodes or change kernel settings; "
            "if the step needs that, build as root (pybuild doctor says what this machine allows)"
        )
    return None
