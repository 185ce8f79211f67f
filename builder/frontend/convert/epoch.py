"""SOURCE_DATE_EPOCH (section 18 of the rows)."""

from __future__ import annotations

import re
import time

from builder.frontend.convert import remote
from builder.frontend.convert.base import remote_op
from builder.frontend.convert.state import BuildState
from builder.frontend.errors import BadOption
from builder.frontend.instructions import Add, Arg
from builder.frontend.parts import KEYWORD, argument
from builder.frontend.stages import Stage
from builder.frontend.words import expand
from builder.llb.ops import SourceOp

NAME = "SOURCE_DATE_EPOCH"
MAIN_CONTEXT = "local://context"
"""The source that stands for the build's main context, wherever that came from."""


def resolve_epoch(build: BuildState) -> None:
    """Set the build's epoch from the options, the build argument or the global ARG (EPO-01, EPO-02)."""
    if build.epoch is None:
        text = build.build_args.get(NAME, build.global_env.get(NAME, ""))
        if NAME in build.build_args:
            build.used_args.add(NAME)
        if text:
            build.epoch = _value(build, text)
            if build.epoch is None:
                # What has no time of its own leaves the epoch unset, for the file's ARGs too.
                build.build_args.pop(NAME, None)
                build.global_env.pop(NAME, None)
    if build.epoch is None:
        return
    if not 0 <= build.epoch < 253_402_300_800:
        raise BadOption(f"invalid SOURCE_DATE_EPOCH: {build.epoch}")
    build.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(build.epoch))
    if NAME in build.global_env:
        build.global_env[NAME] = str(build.epoch)  # EPO-04


def _value(build: BuildState, text: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    build.remote_epoch = True
    if text == "context":
        return build.resolver.source_epoch(build.options.context or SourceOp(identifier=MAIN_CONTEXT))
    context = build.context(text, build.options.platform)
    if context is not None:
        if context.kind not in ("git", "http"):
            return None
        return build.resolver.source_epoch(remote_op(context))
    stage = build.table.earlier(text, len(build.table.stages))
    if stage is not None:
        return build.resolver.source_epoch(_stage_source(build, stage))
    raise BadOption(
        f"invalid SOURCE_DATE_EPOCH: {text[:80]}", hint="want seconds since 1970, or a context or stage name"
    )


def _stage_source(build: BuildState, stage: Stage) -> SourceOp:
    """The one remote ADD of a stage that is only a source (EPO-03)."""
    at = stage.base.at
    if stage.base.image != "scratch":
        raise BadOption("SOURCE_DATE_EPOCH stage must use FROM scratch", at=at, part=argument(0))
    env = dict(build.global_env)
    found: list[SourceOp] = []
    for instruction in stage.instructions:
        if isinstance(instruction, Arg):
            for name, default in instruction.items:
                value = build.build_args.get(name, default)
                if value is not None:
                    env[name] = expand(value, env, build.escape).text
        elif isinstance(instruction, Add):
            sources = [expand(source, env, build.escape).text for source in instruction.sources]
            found += [op for op in map(remote.source_op, sources) if op is not None]
        else:
            name = instruction.at.typed.upper()
            raise BadOption(
                "SOURCE_DATE_EPOCH stage does not meet source-only requirements: "
                f"unsupported {name} instruction",
                at=instruction.at,
                part=KEYWORD,
            )
    if len(found) != 1:
        raise BadOption("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD", at=at)
    return found[0]
