"""What a build that was done depended on, for ``builder.build.memo`` to recognise it by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from builder.build import memo
from builder.build.facts import about, ignores
from builder.build.report import StepReport
from builder.build.request import BuildRequest, BuildWarning
from builder.cache.records import joined
from builder.cache.store import Store
from builder.exporter.types import ExportResult, OutputSpec
from builder.frontend.convert import Conversion
from builder.frontend.redact import redact
from builder.oci.digest import Digest
from builder.solver.solver import Solved
from builder.sources.contexts import PreparedContext

Fact = tuple[str, str | None]
Selection = tuple[str, str, tuple[str, ...], bool, str]


def learn(
    *,
    store: Store,
    request: BuildRequest,
    prepared: PreparedContext,
    bases: Sequence[tuple[str, str]],
    conversion: Conversion,
    solved: Solved,
    selections: Sequence[Selection],
    inputs: str,
    result: ExportResult,
    metadata: dict[str, Any],
    warnings: Sequence[BuildWarning],
) -> None:
    """Keep what a build depended on, if a later one can be answered from it."""
    root = result.root
    if (
        not memo.is_eligible(request)
        or not solved.sure
        or root is None
        or not all(_is_known(step.source) for step in solved.steps)
        or conversion.remote_epoch
    ):
        return
    files = _files(request, prepared)
    if files is None:
        return
    text = prepared.ignore_text or b""
    memo.remember(
        store,
        request,
        {
            "files": files,
            "bases": bases,
            "records": {
                step.key: joined(step.outputs)
                for step in solved.steps
                if step.key and step.outputs is not None
            },
            "selections": [item[1:] for item in selections],
            "ignore": text.decode("utf-8", "surrogateescape"),
            "ignore_key": str(Digest.of(text)) if text else "",
            "shown": [
                (step.digest, step.name, step.inputs, not step.source.startswith("local"), step.group)
                for step in solved.steps
            ],
            "manifest": root.to_json(),
            "image_id": str(result.images[0].config_digest),
            "metadata": metadata,
            "steps": solved.total_steps,
            "warnings": warnings,
            "unused": conversion.unused_build_args,
            "unused_hints": conversion.unused_hints,
            "about": {
                **about(request, (OutputSpec(type="image"),)),
                **_compared(prepared, solved),
                "inputs": inputs,
            },
        },
    )


def _compared(prepared: PreparedContext, solved: Solved) -> dict[str, Any]:
    """What a later build is compared with when a step has to run (``why``)."""
    contexts = {"context": prepared.main} if prepared.main is not None else {}
    steps = (
        StepReport(name=redact(step.name), key=step.key, status="cached")
        for step in solved.steps
        if step.key and not step.source
    )
    return {"ignores": ignores(contexts), "steps": [step.to_json() for step in steps]}


def _is_known(source: str) -> bool:
    """A step, or a source whose content the memo can compare."""
    return not source or source == "local://context" or source.startswith("docker-image://")


def _files(request: BuildRequest, prepared: PreparedContext) -> list[Fact] | None:
    """Facts that decide which Dockerfile and which ignore file hold, and what they say.

    They are taken now and the files were read before, so None when they do not lead to what was read. None
    too for a link that leads elsewhere for the build than for this machine.
    """
    if prepared.dockerfile_path is None:
        return None
    context, path = os.path.abspath(request.context), os.path.abspath(prepared.dockerfile_path)
    main = memo.file_fact(path)
    own = memo.file_fact(f"{path}.dockerignore")
    shared = memo.file_fact(os.path.join(context, ".dockerignore"))
    ignore = own if own[1] is not None else shared
    text = prepared.ignore_text
    if main[1] != _sha256(prepared.dockerfile) or ignore[1] != (None if text is None else _sha256(text)):
        return None
    if any(_leads_out(fact[0], context) for fact in (main, ignore)):
        return None
    facts = [main, own, shared]
    if os.path.basename(path) == "dockerfile":
        facts.append(memo.file_fact(os.path.join(os.path.dirname(path), "Dockerfile")))
    if request.dockerfile and os.path.abspath(request.dockerfile) != path:
        facts.append(memo.file_fact(os.path.abspath(request.dockerfile)))
    return facts


def _leads_out(path: str, context: str) -> bool:
    """A link of the context that this machine would follow to somewhere else."""
    root = os.path.realpath(context)
    inside = os.path.join(os.path.realpath(os.path.dirname(path)), "").startswith(os.path.join(root, ""))
    return inside and not os.path.realpath(path).startswith(os.path.join(root, ""))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
