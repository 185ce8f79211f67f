"""What a scanner is shown besides the result: stages and the build context (ARG-11, CMP-09)."""

from __future__ import annotations

from builder.frontend.convert.graph import Tree
from builder.frontend.convert.plan import Plan
from builder.frontend.convert.state import BuildState, StageState

CONTEXT = "context"
_STAGE_ARG = "BUILDKIT_SBOM_SCAN_STAGE"
_CONTEXT_ARG = "BUILDKIT_SBOM_SCAN_CONTEXT"
_TRUE = frozenset({"1", "t", "true"})


def scan_trees(build: BuildState, plan: Plan, target: StageState) -> tuple[tuple[str, Tree], ...]:
    """The trees to scan by name: stages that the target needs and that ask for it, and the context.

    Each of the two arguments is a boolean or a list of stages; a stage's own ARG wins over the global one.
    """
    stages = [stage for stage in plan.order if not stage.auto]
    found: dict[str, Tree] = {}
    if any(_asks(build, stage, _CONTEXT_ARG) for stage in stages):
        draft, local = build.main_context()
        found[CONTEXT] = draft if local is None else local.whole()
    for stage in stages:
        if stage is not target and _asks(build, stage, _STAGE_ARG):
            found[stage.stage.label] = stage.onto()
    return tuple(found.items())


def _asks(build: BuildState, stage: StageState, name: str) -> bool:
    value = stage.args.get(name)
    if value is None:
        value = build.global_env.get(name, build.build_args.get(name, ""))
    if value.lower() in _TRUE:
        return True
    return stage.stage.label in [item.strip().lower() for item in value.split(",")]
