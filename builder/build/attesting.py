"""Gathers what is to be said about a build's images: the facts for provenance, and scans for SBOMs."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, cast

from builder import __version__
from builder.attest.materials import Captured, Material, capture, image_material, remote_material, whole
from builder.attest.provenance import Facts, predicate
from builder.attest.request import AttestRequest, ProvenanceOptions
from builder.attest.statement import SLSA_V02, SLSA_V1
from builder.attest.types import Attestation
from builder.build.inputs import context_of, depths_of, file_of, from_context, frontend_args, vcs_of
from builder.build.request import BuildRequest
from builder.build.resolver import BuildResolver
from builder.build.sampling import sample, step_sample
from builder.build.scanning import LayerFinder, Scanner, scan
from builder.build.sources import BuildSources
from builder.cache.store import Store
from builder.errors import SolveError
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage
from builder.frontend.convert import Conversion
from builder.llb.definition import Definition, Vertex
from builder.oci.digest import Digest
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.solver.env import SolveEnv
from builder.solver.solver import Solved, solve
from builder.sources.contexts import PreparedContext


class Attesting:
    """The attestations of one build; made before anything runs."""

    def __init__(
        self,
        asked: AttestRequest,
        store: Store,
        request: BuildRequest,
        prepared: PreparedContext,
        resolver: BuildResolver,
        invocation_id: str,
    ) -> None:
        """Raises SolveError when the scanner cannot be had."""
        self._asked = asked
        self._store = store
        self._request = request
        self._prepared = prepared
        self._invocation_id = invocation_id
        self._started = rfc3339(time.time_ns())
        usage = asked.provenance is not None and asked.provenance.capture_usage
        self._samples = [sample()] if usage else []
        self._step_samples: dict[Digest, list[dict[str, Any]]] = {}
        self.on_usage = self._used if usage else None
        """What wants to know of every step what it used up."""
        self._scanner = self._find_scanner(resolver)

    def _used(self, vertex: Vertex, figures: tuple[tuple[str, int], ...]) -> None:
        if figures:
            self._step_samples.setdefault(vertex.digest, []).append(step_sample(figures))

    def _find_scanner(self, resolver: BuildResolver) -> Scanner | None:
        options, request = self._asked.sbom, self._request
        if options is None:
            return None
        ref = str(Reference.parse(options.generator).with_default_tag())
        return Scanner(
            name=options.generator,
            image=resolver.image(ref, host_platform(), mode="pull" if request.pull else "default"),
            options=options,
            network=request.network != "none",
            anew=request.no_cache,
        )

    def add(self, image: BuiltImage, conversion: Conversion, solved: Solved, env: SolveEnv) -> BuiltImage:
        """``image`` with its attestations. Raises SolveError."""
        found: tuple[Attestation, ...] = ()
        if self._scanner is not None:
            finder = LayerFinder(self._store, image.snapshot)
            extras = [(name, _snapshot_of(tree, solved, env)) for name, tree in conversion.scans]
            found = scan(self._scanner, image.platform, image.snapshot, extras, env, finder)
        if self._asked.provenance is not None:
            facts = self._facts(image, conversion, solved, cast("BuildSources", env.sources))
            found = (_provenance(facts, self._asked.provenance), *found)
        return replace(image, attestations=found)

    def _facts(
        self, image: BuiltImage, conversion: Conversion, solved: Solved, sources: BuildSources
    ) -> Facts:
        prepared = self._prepared
        remote = context_of(self._request, prepared)
        context = remote_material(*remote) if remote is not None else None
        options = self._asked.provenance
        captured = self._captured(conversion, sources, context)
        if options is not None and options.complete_materials and not captured.complete:
            raise SolveError(
                "provenance: the materials are not complete: the build uses "
                + (f"local sources: {', '.join(captured.locals)}" if captured.locals else "unpinned sources"),
                code="incomplete-materials",
                hint="build from a git or http(s) URL, or leave complete-materials out",
            )
        if self._samples:
            self._samples.append(sample())
        return Facts(
            definition=conversion.definition,
            captured=captured,
            args=frontend_args(self._request, prepared),
            context=context,
            path=file_of(prepared),
            dockerfile=prepared.dockerfile,
            dockerfile_version=__version__,
            origin=prepared.source if from_context(self._request, prepared) else "local://dockerfile",
            platform=str(host_platform()),
            invocation_id=self._invocation_id,
            started=self._started,
            finished=rfc3339(time.time_ns()),
            vcs=vcs_of(self._request, prepared),
            depths={} if self._request.squash else depths_of(self._store, image, conversion, solved, sources),
            usage=tuple(self._samples),
            step_usage=self._step_samples,
        )

    def _captured(self, conversion: Conversion, sources: BuildSources, context: Material | None) -> Captured:
        """What the definition takes, the context, the Dockerfile, every base image and the scanner."""
        images = list(conversion.bases)
        images += [self._scanner.image] if self._scanner is not None else []
        return whole(
            capture(conversion.definition, sources.pin),
            (image_material(base.ref, base.digest, base.platform) for base in images),
            context,
            own_dockerfile=not from_context(self._request, self._prepared),
        )


def _provenance(facts: Facts, options: ProvenanceOptions) -> Attestation:
    return Attestation(
        name=options.filename,
        predicate_type=SLSA_V1 if options.version == "v1" else SLSA_V02,
        predicate=partial(predicate, facts, options),
        inline_only=options.inline_only,
    )


def _snapshot_of(definition: Definition, solved: Solved, env: SolveEnv) -> str | None:
    """The tree of a definition that the build has made already, or makes now."""
    head = definition.head
    if head is None:
        return None
    for step in solved.steps:
        if step.digest == str(head.digest) and step.outputs is not None:
            return step.outputs[head.index]
    return solve(definition, replace(env, on_planned=None, on_snapshot=None, direct=None)).snapshot
