"""Gathers what is to be said about a build's images: the facts for provenance, and scans for SBOMs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from builder.attest.materials import Captured, Material, capture, commit_pin, image_material, remote_material
from builder.attest.provenance import Facts, predicate
from builder.attest.request import AttestRequest, ProvenanceOptions
from builder.attest.statement import SLSA_V02, SLSA_V1
from builder.attest.types import Attestation
from builder.build.request import BuildRequest
from builder.build.resolver import BuildResolver
from builder.build.sampling import sample, step_sample
from builder.build.scanning import LayerFinder, Scanner, scan
from builder.build.sources import BuildSources, image_key
from builder.build.vcs import checkout_of
from builder.cache.store import Store
from builder.errors import SolveError
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage
from builder.frontend.convert import Conversion
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import SourceOp
from builder.oci.digest import Digest
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.solver.env import SolveEnv
from builder.solver.solver import Solved, solve
from builder.sources.contexts import PreparedContext

Pairs = tuple[tuple[str, str], ...]


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
        context = None
        if prepared.source:
            pin = prepared.revision if ":" in prepared.revision else commit_pin(prepared.revision)
            context = remote_material(_with_fragment(prepared.source, self._request.context), pin)
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
            path=prepared.dockerfile_name.rpartition("/")[2]
            if prepared.dockerfile_name.startswith("/")
            else prepared.dockerfile_name,
            dockerfile=prepared.dockerfile,
            dockerfile_version=_own_version(),
            origin=prepared.source if self._from_context else "local://dockerfile",
            platform=str(host_platform()),
            invocation_id=self._invocation_id,
            started=self._started,
            finished=rfc3339(time.time_ns()),
            vcs=checkout_of(self._request.context) if not prepared.source and prepared.main else (),
            depths={}
            if self._request.squash
            else _depths(self._store, image.snapshot, conversion, solved, sources),
            usage=tuple(self._samples),
            step_usage=self._step_samples,
        )

    @property
    def _from_context(self) -> bool:
        """Whether the Dockerfile is the one of a remote context."""
        request, prepared = self._request, self._prepared
        given = request.dockerfile == "-" or request.dockerfile_data is not None
        return bool(prepared.source) and not given and prepared.dockerfile_path is None

    def _captured(self, conversion: Conversion, sources: BuildSources, context: Material | None) -> Captured:
        """What the definition takes, the context, the Dockerfile, every base image and the scanner."""
        found = capture(conversion.definition, sources.pin)
        images = list(conversion.bases)
        images += [self._scanner.image] if self._scanner is not None else []
        materials = {item.uri: item for item in found.materials}
        for base in images:
            item = image_material(base.ref, base.digest, base.platform)
            materials.setdefault(item.uri, item)
        locals_ = set(found.locals)
        if context is not None:
            materials = {context.uri: context, **materials}
            locals_.discard("context")
        if not self._from_context:
            locals_.add("dockerfile")
        return replace(
            found,
            materials=tuple(materials.values()),
            locals=tuple(sorted(locals_)),
            complete=found.complete and not locals_,
        )


def frontend_args(request: BuildRequest, prepared: PreparedContext) -> Pairs:
    """The options of a build by their names in BuildKit's protocol."""
    found = [(f"build-arg:{name}", value) for name, value in request.build_args]
    found += [(f"label:{name}", value) for name, value in request.labels]
    for name, source in prepared.named.items():
        hidden = source.path is not None
        found.append((f"context:{name}", f"{source.kind}:{source.name}" if hidden else source.identifier))
    single = {
        "target": request.target or "",
        "no-cache": ",".join(request.no_cache_filter),
        "add-hosts": ",".join(f"{name}={address}" for name, address in request.extra_hosts),
        "force-network-mode": request.network,
        "shm-size": str(request.shm_size_bytes or ""),
        "ulimit": ",".join(f"{item.name}={item.soft}:{item.hard}" for item in request.ulimits),
        "hostname": request.hostname,
        "cgroup-parent": request.cgroup_parent,
        "platform": ",".join(request.platforms),
    }
    found += [(name, value) for name, value in single.items() if value]
    if request.no_cache:
        found.append(("no-cache", ""))
    return tuple(found)


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


def _depths(
    store: Store, snapshot: str | None, conversion: Conversion, solved: Solved, sources: BuildSources
) -> Mapping[Digest, Mapping[int, int]]:
    """Of how many of the image's layers the result of each step is made, for those that lead to it."""
    if snapshot is None:
        return {}
    chain = [info.id for info in reversed(store.snapshots.chain(snapshot))]
    depth = {name: number + 1 for number, name in enumerate(chain)}
    outputs = {step.digest: step.outputs or () for step in solved.steps}
    found: dict[Digest, dict[int, int]] = {}
    for vertex in conversion.definition.vertices:
        made = outputs.get(str(vertex.digest), ())
        if isinstance(vertex.op, SourceOp):
            image = sources.images.get(image_key(vertex.op.identifier, vertex.platform))
            base = store.snapshots.by_chain(image.chain_id) if image is not None and image.chain_id else None
            made = (base.id,) if base is not None else ()
        held = {index: depth[name] for index, name in enumerate(made) if name in depth}
        if held:
            found[vertex.digest] = held
    return found


def _with_fragment(url: str, text: str) -> str:
    """The context's URL with the branch and directory that were asked for."""
    fragment = text.partition("#")[2]
    return f"{url}#{fragment}" if fragment and "#" not in url else url


def _own_version() -> str:
    """The version of this frontend, if it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pybuild")
    except PackageNotFoundError:
        return ""
