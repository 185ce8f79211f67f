"""Dockerfile → definition and image config; one module per family of instructions, dispatched here.

Pure: what the file's names mean comes in through a ``Resolver``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builder.errors import SolveError
from builder.frontend.convert import config
from builder.frontend.convert.base import begin
from builder.frontend.convert.copy import convert_copy
from builder.frontend.convert.epoch import resolve_epoch
from builder.frontend.convert.globals import set_globals
from builder.frontend.convert.graph import marshal
from builder.frontend.convert.outline import Outline, outline_of
from builder.frontend.convert.plan import Plan
from builder.frontend.convert.run import convert_run
from builder.frontend.convert.scans import scan_trees
from builder.frontend.convert.state import BuildState, StageState
from builder.frontend.convert.types import (
    RESOLVE_MODES,
    Conversion,
    ConvertOptions,
    NamedContext,
    ResolvedImage,
    Resolver,
)
from builder.frontend.declared import unused_hint
from builder.frontend.errors import BadOption, DockerfileError, removed_switch
from builder.frontend.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.frontend.lint import Linter, lint_config, lint_text
from builder.frontend.parser import Dockerfile
from builder.frontend.parts import KEYWORD
from builder.frontend.platformargs import needs_no_declaration
from builder.frontend.stages import Stage
from builder.frontend.syntax import check_frontend, check_syntax
from builder.oci.config import ImageConfig
from builder.oci.platform import normalize

__all__ = [
    "Conversion",
    "ConvertOptions",
    "NamedContext",
    "Outline",
    "ResolvedImage",
    "Resolver",
    "convert",
    "outline",
]


def convert(
    dockerfile: Dockerfile, options: ConvertOptions, resolver: Resolver, *, all_stages: bool = False
) -> Conversion:
    """The graph and config of the target stage for one platform; raises DockerfileError.

    ``all_stages`` also converts stages that the target does not need, for their warnings (FRM-06).
    """
    try:
        return _convert(dockerfile, options, resolver, all_stages)
    except DockerfileError as error:
        error.source, error.parsed = error.source or dockerfile.source, True
        raise


def outline(dockerfile: Dockerfile, options: ConvertOptions, resolver: Resolver) -> Outline:
    """What the target stage takes: arguments, secrets, agents (SUB-04); raises DockerfileError."""
    try:
        build = _start(dockerfile, options, resolver)
        plan, target = _stages(build, all_stages=False)
        return outline_of(build, plan.stages[target.number])
    except DockerfileError as error:
        error.source = error.source or dockerfile.source
        raise


def _start(dockerfile: Dockerfile, options: ConvertOptions, resolver: Resolver) -> BuildState:
    """A conversion about to begin: the file is for this frontend, its lint rules are known."""
    args = dict(options.build_args)
    if options.resolve_mode not in RESOLVE_MODES:
        raise BadOption(f"invalid image-resolve-mode: {options.resolve_mode}")  # OPT-09
    if options.frontend or args.get("BUILDKIT_SYNTAX"):
        check_frontend(options.frontend or args["BUILDKIT_SYNTAX"])
    else:
        check_syntax(dockerfile.source)
    if args.get("BUILDKIT_DISABLE_FILEOP", "").lower() in ("1", "t", "true"):
        raise removed_switch("BUILDKIT_DISABLE_FILEOP")
    linter = Linter(lint_config(dockerfile, args), dockerfile.instructions)
    return BuildState(dockerfile, options, resolver, linter)


def _stages(build: BuildState, *, all_stages: bool) -> tuple[Plan, Stage]:
    """Convert what the target needs, or everything; gives the plan and the target."""
    lint_text(build.linter, build.dockerfile, build.table)
    target = build.table.target(build.options.target)
    set_globals(build, target)
    resolve_epoch(build)
    plan = Plan(build)
    plan.need([*build.table.stages, target] if all_stages else [target])
    for stage in plan.order:
        convert_stage(stage)
    return plan, target


def _convert(
    dockerfile: Dockerfile, options: ConvertOptions, resolver: Resolver, all_stages: bool
) -> Conversion:
    build = _start(dockerfile, options, resolver)
    linter = build.linter
    try:
        plan, target = _stages(build, all_stages=all_stages)
        linter.raise_if_error()
    except (DockerfileError, SolveError) as error:
        error.warnings = linter.warnings
        raise
    found = plan.stages[target.number]
    build_head = found.onto()
    scans = scan_trees(build, plan, found) if options.scans else ()
    build.finish_locals()
    used = build.used_args
    unused = tuple(name for name in build.build_args if name not in used and not needs_no_declaration(name))
    return Conversion(
        definition=marshal(build_head),
        config=_final_config(found, options),
        base_config=found.base_config,
        platform=found.platform,
        epoch=build.epoch,
        remote_epoch=build.remote_epoch,
        target=target.label,
        warnings=linter.warnings,
        unset=tuple(build.unset.items()),
        unused_build_args=unused,
        unused_hints=tuple(filter(None, (unused_hint(build.table, name) for name in unused))),
        local_sources=tuple(build.locals),
        contexts=tuple(build.contexts),
        bases=tuple(build.images.values()),
        stages=tuple(stage.stage.label for stage in plan.order if not stage.auto),
        scans=tuple((name, marshal(tree)) for name, tree in scans),
    )


def _final_config(stage: StageState, options: ConvertOptions) -> ImageConfig:
    """IMG-02, LBL-01; the layers so far are those of the base."""
    found = stage.settings.freeze(stage.platform)
    platform = found.platform
    base = stage.settings.base.platform
    if options.platform_explicit:
        wanted = normalize(options.platform)
        same = (base.os, base.architecture) == (wanted.os, wanted.architecture)
        platform = replace(
            wanted,
            variant=wanted.variant or (base.variant if same else ""),
            os_version=wanted.os_version or (base.os_version if same else ""),
            os_features=wanted.os_features or (base.os_features if same else ()),
        )
    labels = {**dict(found.labels), **dict(options.labels)}
    return replace(found, platform=normalize(platform), labels=tuple(labels.items()))


def convert_stage(stage: StageState) -> None:
    """Bring a planned stage from its base to its last instruction."""
    begin(stage)
    if stage.replaced is None:
        triggers = len(stage.triggers)
        seen: dict[type, Instruction] = {}
        for index, instruction in enumerate(stage.instructions):
            stage.in_trigger = index < triggers
            _lint_repeated(stage, instruction, seen)
            dispatch(stage, instruction)
    stage.done = True


def dispatch(stage: StageState, instruction: Instruction) -> None:
    """Convert one instruction."""
    handler = _HANDLERS[type(instruction)]
    try:
        handler(stage, instruction)
    except DockerfileError as error:
        error.locate(instruction.at)
        error.hint = error.hint or stage.build.unset.get(instruction.at.span)
        raise


def _lint_repeated(stage: StageState, instruction: Instruction, seen: dict[type, Instruction]) -> None:
    """LNT-21: the earlier one is of no use."""
    kind = type(instruction)
    if kind not in (Cmd, Entrypoint, Healthcheck):
        return
    earlier = seen.get(kind)
    if earlier is not None:
        message = (
            f"Multiple {kind.__name__.upper()} instructions should not be used in the same stage "
            "because only the last one will be used"
        )
        stage.build.linter.report("MultipleInstructionsDisallowed", earlier.at, message, part=KEYWORD)
    seen[kind] = instruction


def _convert_onbuild(stage: StageState, instruction: Onbuild) -> None:
    """ONB-01."""
    stage.settings.on_build = (*stage.settings.on_build, instruction.expression)


_HANDLERS: dict[type, Callable[[StageState, Any], None]] = {
    Add: convert_copy,
    Arg: config.convert_arg,
    Cmd: config.convert_cmd,
    Copy: convert_copy,
    Entrypoint: config.convert_entrypoint,
    Env: config.convert_env,
    Expose: config.convert_expose,
    Healthcheck: config.convert_healthcheck,
    Label: config.convert_label,
    Maintainer: config.convert_maintainer,
    Onbuild: _convert_onbuild,
    Run: convert_run,
    Shell: config.convert_shell,
    StopSignal: config.convert_stopsignal,
    User: config.convert_user,
    Volume: config.convert_volume,
    Workdir: config.convert_workdir,
}
