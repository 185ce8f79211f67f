"""Global scope: ARGs before the first FROM, and how FROM lines use them (rows ARG-01, LNT-18, LNT-26)."""

from __future__ import annotations

from builder.errors import InvalidValue
from builder.frontend.convert.state import BuildState
from builder.frontend.declared import late_global_hint, undeclared_in_from_hint
from builder.frontend.errors import ExpansionProblem
from builder.frontend.parts import argument, variable
from builder.frontend.platformargs import platform_args
from builder.frontend.stages import Stage
from builder.frontend.words import expand
from builder.oci.reference import Reference


def set_globals(build: BuildState, target: Stage) -> None:
    """Fill the build's global environment; raises ExpansionProblem."""
    options = build.options
    last_unnamed = "" if target.name else "default"
    predefined = platform_args(options.build_platform, options.platform, target.name or last_unnamed)
    for name in predefined:
        if name in build.build_args:
            build.used_args.add(name)
            predefined[name] = build.build_args[name]
    build.global_env.update(predefined)
    build.global_names.update(predefined)
    defaults = dict(build.global_env)
    for instruction in build.table.global_args:
        for name, default in instruction.items:
            build.global_names.add(name)
            if name in build.build_args:
                build.used_args.add(name)
                build.global_env[name] = build.build_args[name]
            elif default is not None:
                try:
                    found = expand(default, build.global_env, build.escape)
                except ExpansionProblem as error:
                    error.locate(instruction.at)
                    raise
                for unknown in sorted(found.unmatched - build.global_names):
                    hint = late_global_hint(build.table, unknown, instruction.at.span)
                    similar = build.similar(unknown, build.global_names)
                    build.linter.undefined_variable(unknown, similar, instruction.at, hint)
                    if hint:
                        build.global_hints[name] = hint
                build.global_env[name] = found.text
            if default is not None:
                defaults[name] = _quietly(default, defaults, build.escape)
    _lint_from(build, defaults)


def _quietly(text: str, env: dict[str, str], escape: str) -> str:
    try:
        return expand(text, env, escape).text
    except ExpansionProblem:
        return ""


def _lint_from(build: BuildState, defaults: dict[str, str]) -> None:
    names = {stage.name for stage in build.table.stages if stage.name}
    for stage in build.table.stages:
        base, at = stage.base, stage.base.at
        if "$" not in base.image and "$" not in (base.platform or ""):
            continue
        for text in (base.image, base.platform or ""):
            try:
                found = expand(text, build.global_env, build.escape)
            except ExpansionProblem:
                continue  # reported when the stage is needed
            for name in sorted(found.unmatched - build.global_names):
                hint = build.similar(name, build.global_names)
                late = undeclared_in_from_hint(build.table, name)
                message = f"FROM argument '{name}' is not declared{hint}"
                build.linter.report("UndefinedArgInFrom", at, message, late, variable(name))
        name = _quietly(base.image, defaults, build.escape)
        if "$" in base.image and name.lower() not in names and not _is_reference(name):
            message = f"Default value for ARG {base.image} results in empty or invalid base image name"
            build.linter.report("InvalidDefaultArgInFrom", at, message, part=argument(0))


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidValue:
        return False
    return True
