"""Step names as people see them (section 16 of the rows), and history texts' small helpers."""

from __future__ import annotations

from builder.errors import InvalidValue
from builder.frontend.convert.state import StageState
from builder.frontend.errors import ExpansionProblem
from builder.frontend.instructions import Add, Copy, Run, Workdir
from builder.frontend.words import expand, is_plain
from builder.oci.platform import Platform, normalize


def count_steps(stage: StageState) -> int:
    """NAM-02."""
    total = 1 if stage.base is None and stage.base_name != "scratch" else 0
    return total + sum(isinstance(item, (Run, Copy, Add, Workdir)) for item in stage.instructions)


def next_name(stage: StageState, text: str) -> str:
    """``text`` with the next step number: ``[build 2/3] RUN make`` (NAM-01)."""
    if stage.steps == 0 or stage.auto:
        return text
    stage.step += 1
    parts: list[str] = []
    if stage.build.options.multi_platform:
        parts.append(str(stage.platform) + _cross(stage))
    if len(stage.build.table.stages) > 1:
        parts.append(stage.stage.label)
    width = len(str(stage.steps))
    parts.append(f"{stage.step:>{width}}/{stage.steps}")
    return f"[{' '.join(parts)}] {text}"


def _cross(stage: StageState) -> str:
    """NAM-03: what a stage that runs on another platform builds for."""
    target = _target(stage)
    if (target.os, target.architecture) == (stage.platform.os, stage.platform.architecture):
        return ""
    if target.os == stage.platform.os:
        return "->" + "/".join(part for part in (target.architecture, target.variant) if part)
    return f"->{target}"


def _target(stage: StageState) -> Platform:
    """What the TARGET* variables name; what they leave out is the stage's own."""
    env = stage.env
    if "TARGETPLATFORM" in env:
        try:
            return Platform.parse(env["TARGETPLATFORM"])
        except InvalidValue:
            pass
    os_name = env.get("TARGETOS") or stage.platform.os
    arch = env.get("TARGETARCH") or stage.platform.architecture
    return normalize(Platform(os_name, arch, env.get("TARGETVARIANT", "")))


def shown(stage: StageState, text: str, *, for_run: bool = False, hidden: tuple[str, ...] = ()) -> str:
    """An instruction's text for display: name upper-cased, variables expanded (NAM-04)."""
    if not is_plain(text, stage.build.escape):
        env = stage.env
        if hidden:
            env = {**env, **dict.fromkeys(hidden, "****")}
        try:
            text = expand(
                text, env, stage.build.escape, raw_quotes=for_run, skip_unset=for_run, raw_escapes=for_run
            ).text
        except ExpansionProblem:
            pass  # a name is only a name
    keyword = text.split(None, 1)[0]
    name = keyword.upper() + text[len(keyword) :]
    return f"ONBUILD {name}" if stage.in_trigger else name
