"""Step names as people see them (section 16 of the rows), and history texts' small helpers."""

from __future__ import annotations

from builder.frontend.convert.state import StageState
from builder.frontend.errors import ExpansionProblem
from builder.frontend.instructions import Add, Copy, Run, Workdir
from builder.frontend.words import expand, is_plain
from builder.oci.platform import Platform


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
    os_name, arch = stage.env.get("TARGETOS", ""), stage.env.get("TARGETARCH", "")
    if not os_name or not arch:
        return ""
    target = Platform(os_name, arch, stage.env.get("TARGETVARIANT", ""))
    if (target.os, target.architecture, target.variant) == (
        stage.platform.os,
        stage.platform.architecture,
        stage.platform.variant,
    ):
        return ""
    if target.os == stage.platform.os:
        return "->" + "/".join(part for part in (target.architecture, target.variant) if part)
    return f"->{target}"


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
    keyword, blank, rest = text.partition(" ")
    name = f"{keyword.upper()}{blank}{rest}"
    return f"ONBUILD {name}" if stage.in_trigger else name
