"""Which stages are needed, what each is built on, and what it copies from (sections 5 and 11 of the rows).

Only what the target reaches is looked at, so an image that nobody needs is never asked for (FRM-06). Triggers
of base images can name further stages and images, so the search goes on until nothing new turns up (ONB-05).
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import InvalidValue, PybuildError
from builder.frontend.convert.order import check_cycles, check_order
from builder.frontend.convert.state import BuildState, StageState, locate
from builder.frontend.convert.types import NamedContext
from builder.frontend.declared import no_value_hint, undeclared_in_from_hint
from builder.frontend.errors import (
    BadOption,
    DockerfileError,
    ExpansionProblem,
    InvalidInstruction,
    UnknownStage,
    suggestion,
)
from builder.frontend.instructions import Copy, From, Instruction, Onbuild, Run
from builder.frontend.parser import parse_instruction
from builder.frontend.parts import Part, argument, value_of
from builder.frontend.source import Span
from builder.frontend.stages import Stage
from builder.frontend.words import Expanded, expand
from builder.oci.config import ImageConfig
from builder.oci.platform import Platform
from builder.oci.reference import Reference

WELL_KNOWN_IMAGES = (
    "alpine",
    "busybox",
    "centos",
    "debian",
    "golang",
    "ubuntu",
    "fedora",
    "python",
    "node",
    "nginx",
    "redis",
)


class Plan:
    """The stages found so far."""

    def __init__(self, build: BuildState) -> None:
        self.build = build
        self.stages: dict[int, StageState] = {}
        self.autos: dict[str, StageState] = {}
        self.order: list[StageState] = []
        self._waiting: list[StageState] = []

    def need(self, targets: Iterable[Stage]) -> None:
        """Find everything that ``targets`` need; a FROM line must name something also if nobody needs it."""
        for one in self.build.table.stages:
            self._base_name(one.base)
            self._platform(one.base)
        for target in targets:
            self._stage(target)
        while self._waiting:
            found = self._closure()
            self._resolve_images(found)
            for stage in found:
                self._triggers(stage)
                self._sources(stage, stage.triggers)
        check_cycles(self.order)
        check_order(self.order)
        self.order.sort(key=lambda stage: (not stage.auto, stage.stage.number))

    def _closure(self) -> list[StageState]:
        """All that the waiting stages name in their own instructions, so that images resolve together."""
        found: list[StageState] = []
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for stage in waiting:
                self._sources(stage, stage.stage.instructions)
            found += waiting
        return found

    def _stage(self, stage: Stage) -> StageState:
        """The state of ``stage``, with its base; both are then waiting for their images."""
        chain: list[Stage] = []
        current: Stage | None = stage
        while current is not None and current.number not in self.stages:
            chain.append(current)
            current = self._base_stage(current)
        for item in reversed(chain):
            self._add(item)
        return self.stages[stage.number]

    def _base_stage(self, stage: Stage) -> Stage | None:
        if stage.name and self._replacement(stage, self._platform(stage.base)) is not None:
            return None
        return self.build.table.earlier(self._base_name(stage.base), stage.number)

    def _add(self, stage: Stage) -> None:
        found = StageState(self.build, stage, self._platform(stage.base))
        self.stages[stage.number] = found
        self.order.append(found)
        self._waiting.append(found)
        found.replaced = self._replacement(stage, found.platform) if stage.name else None
        if found.replaced is not None:
            self._name_context(found, found.replaced)
            return
        found.base_name = self._base_name(stage.base)
        base = self.build.table.earlier(found.base_name, stage.number)
        if base is not None:
            found.base = self.stages[base.number]
            found.platform = found.base.platform
            return
        self._outside(found)

    def _replacement(self, stage: Stage, platform: Platform) -> NamedContext | None:
        """FRM-03 (1)."""
        return self._context(stage.name, platform, stage.base)

    def _context(self, name: str, platform: Platform, at: From) -> NamedContext | None:
        """The named context that a line asks for; what is wrong with it is told with the line."""
        try:
            return self.build.context(name, platform)
        except PybuildError as error:
            locate(error, at, _image_part(at))
            raise

    def _outside(self, stage: StageState) -> None:
        """A base that is no stage: scratch, a named context, or an image (FRM-03)."""
        if stage.base_name == "scratch":
            return
        base = stage.stage.base
        name = context_name(stage.base_name)
        found = self._context(name, stage.platform, base)
        if found is not None:
            stage.base_context = found
            self._name_context(stage, found)
            return
        try:
            stage.image_ref = str(Reference.parse(stage.base_name).with_default_tag())
        except InvalidValue as error:
            raise InvalidInstruction(
                f'failed to parse stage name "{stage.base_name}": {error.message}',
                at=base.at,
                part=_image_part(base),
                hint=self._from_hint(base) or error.hint,
            ) from error

    def _name_context(self, stage: StageState, context: NamedContext) -> None:
        """An image as named context is resolved like a base."""
        if context.kind != "image" or context.image is not None:
            return
        ref = context.identifier.removeprefix("docker-image://")
        try:
            stage.image_ref = str(Reference.parse(ref).with_default_tag())
        except InvalidValue as error:
            raise BadOption(f"invalid context specifier {ref} for {context.name}: {error.message}") from error

    def _expand_from(self, text: str, base: From) -> Expanded:
        try:
            return expand(text, self.build.global_env, self.build.escape)
        except ExpansionProblem as error:
            error.locate(base.at)
            raise

    def _base_name(self, base: From) -> str:
        found = self._expand_from(base.image, base)
        if not found.text:
            message = f"base name ({base.image}) should not be blank"
            raise self._bad_from(message, base, found, _image_part(base))
        return found.text

    def _bad_from(
        self, message: str, base: From, found: Expanded, part: Part, hint: str | None = None
    ) -> DockerfileError:
        """The error for what a FROM line's variables came to; says which of them may have been meant."""
        for name in sorted(found.unmatched - self.build.global_names):
            meant = suggestion(name, self.build.global_names)
            if meant:
                message += meant
                break
        return InvalidInstruction(message, at=base.at, part=part, hint=self._from_hint(base) or hint)

    def _from_hint(self, base: From) -> str:
        """Which variable of a FROM line is not what it was meant to be (ARG-01); "" for none."""
        build = self.build
        for text in (base.image, base.platform or ""):
            found = self._expand_from(text, base)
            for name in sorted(found.unmatched):
                if name in build.global_names:
                    return no_value_hint(name)
                hint = undeclared_in_from_hint(build.table, name)
                return hint or f"ARG {name} is not declared before the first FROM"
            for name in sorted(found.matched & build.global_hints.keys()):
                return build.global_hints[name]
        return ""

    def _platform(self, base: From) -> Platform:
        if base.platform is None:
            return self.build.options.platform
        found = self._expand_from(base.platform, base)
        if not found.text:
            message = f"empty platform value from expression {base.platform}"
            raise self._bad_from(message, base, found, value_of("platform"))
        try:
            return Platform.parse(found.text)
        except InvalidValue as error:
            message = f"failed to parse platform {base.platform}: {error.message}"
            raise self._bad_from(message, base, found, value_of("platform"), error.hint) from error

    def _resolve_images(self, stages: list[StageState]) -> None:
        wanted = [(stage.image_ref, stage.platform) for stage in stages if stage.image_ref is not None]
        new = [key for key in dict.fromkeys(wanted) if key not in self.build.images]
        if len(new) > 1:
            self.build.resolver.prefetch(new)
        for stage in stages:
            if stage.image_ref is None:
                continue
            try:
                stage.image = self.build.image(stage.image_ref, stage.platform)
            except PybuildError as error:
                self._explain(error, stage)
                raise

    def _explain(self, error: PybuildError, stage: StageState) -> None:
        """FRM-10: name the image as typed, and what may have been meant."""
        name = stage.base_name or stage.image_ref or ""
        hint = self._from_hint(stage.stage.base)
        if hint:
            error.hint = f"{hint}; {error.hint}" if error.hint else hint
        elif "/" not in name and ":" not in name and not error.hint:
            meant = suggestion(name, (*self.build.table.names, *WELL_KNOWN_IMAGES)).strip(" ()")
            error.hint = meant or None
        error.context = (*error.context, f"failed to resolve source metadata for {stage.image_ref}")
        locate(error, stage.stage.base, _image_part(stage.stage.base))

    def _triggers(self, stage: StageState) -> None:
        """ONB-02: from the parent stage of this file, or from the base image's config."""
        if stage.replaced is not None or stage.auto:
            return
        span = stage.stage.base.at.span
        if stage.base is not None and stage.base.replaced is None:
            found = [item for item in stage.base.stage.instructions if isinstance(item, Onbuild)]
            stage.triggers = tuple(_at(item.trigger, span) for item in found)
            return
        config = base_config(stage.base or stage)
        if config is not None:
            stage.triggers = tuple(self._trigger(text, span) for text in config.on_build)

    def _trigger(self, text: str, span: Span) -> Instruction:
        nodes = self.build.options.trigger_nodes
        found = parse_instruction(text, "\\", span.filename, span.start, span.end, nodes)
        if isinstance(found, From | Onbuild):  # an image can say so, a Dockerfile cannot (ONB-03)
            name = found.at.typed.upper()
            message = f"{name} isn't allowed as an ONBUILD trigger"
            raise InvalidInstruction(message, spans=(span,), part=argument(0))
        return found

    def _sources(self, stage: StageState, instructions: tuple[Instruction, ...]) -> None:
        """Stages and images that COPY --from and RUN --mount name."""
        if stage.replaced is not None:
            return
        for instruction in instructions:
            match instruction:
                case Copy() if instruction.from_:
                    self._source(stage, instruction.from_, instruction, copy=True)
                case Run():
                    for name in instruction.mount_sources:
                        if name:
                            self._source(stage, name, instruction, copy=False)
                case _:
                    pass

    def _source(self, stage: StageState, name: str, instruction: Instruction, *, copy: bool) -> None:
        if name in stage.sources:
            return
        table = self.build.table
        if copy and name.isascii() and name.isdigit():
            index = int(name[:9])
            if index >= len(table.stages):
                raise UnknownStage(f"invalid stage index {index}", at=instruction.at, part=value_of("from"))
            stage.sources[name] = self._stage(table.stages[index])
            return
        found = table.earlier(name, stage.stage.number) or table.later(name, stage.stage.number)
        stage.sources[name] = self._stage(found) if found else self._auto(name, instruction)

    def _auto(self, name: str, instruction: Instruction) -> StageState:
        """A stage made for an image or named context that an instruction names."""
        found = self.autos.get(name)
        if found is None:
            base = From(instruction.at, name)
            stage = Stage(-1, "", name, base, ())
            found = StageState(self.build, stage, self.build.options.platform, auto=True)
            found.base_name = name
            self.autos[name] = found
            self.order.append(found)
            self._waiting.append(found)
            self._outside(found)
        return found


def _image_part(base: From) -> Part:
    """Where a FROM line names its image, or what an instruction other than FROM has in its place."""
    match base.at.typed.lower():
        case "from":
            return argument(0)
        case "run":
            return Part("field-value", -1, "from", text=base.image)
        case _:
            return value_of("from")


def _at(instruction: Instruction, span: Span) -> Instruction:
    """A trigger, seen from the FROM line that runs it (ONB-04)."""
    return instruction._replace(at=instruction.at._replace(span=span, comments=()))


def base_config(stage: StageState) -> ImageConfig | None:
    """The config of the image or named context that a stage starts from."""
    if stage.image is not None:
        return stage.image.config
    context = stage.replaced or stage.base_context
    return context.image.config if context is not None and context.image is not None else None


def context_name(name: str) -> str:
    """How a named context is looked up: familiar form without ``:latest``, or in lower case (CTX-07)."""
    try:
        return Reference.parse(name).familiar.removesuffix(":latest")
    except InvalidValue:
        return name.lower()
