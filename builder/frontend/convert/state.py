"""What is known while converting: of the whole build, and of one stage."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, NamedTuple

from builder.errors import PybuildError, SolveError
from builder.frontend.convert.graph import Draft, Tree, file_op
from builder.frontend.convert.types import ConvertOptions, NamedContext, ResolvedImage, Resolver
from builder.frontend.declared import no_value_hint, undeclared_hint
from builder.frontend.errors import DockerfileError, InvalidInstruction, suggestion
from builder.frontend.instructions import Add, Arg, Instruction, Origin
from builder.frontend.lint import Linter
from builder.frontend.parser import Dockerfile
from builder.frontend.parts import Part
from builder.frontend.parts import text as part_of
from builder.frontend.paths import for_platform
from builder.frontend.platformargs import NON_ENV_ARGS, proxy_env
from builder.frontend.redact import redact
from builder.frontend.source import Span
from builder.frontend.stages import Stage, StageTable
from builder.frontend.words import Expanded, expand, is_plain
from builder.llb.definition import VertexMeta
from builder.llb.ops import Copy, SourceOp
from builder.oci.canonical import canonical_json
from builder.oci.config import History, ImageConfig
from builder.oci.platform import Platform

HISTORY_COMMENT = "buildkit.dockerfile.v0"
DEFAULT_SHELL = ("/bin/sh", "-c")
WINDOWS_SHELL = ("cmd", "/S", "/C")
MAX_COMPARED = 150_000
"""How many names of variables are compared in search of what was meant: about half a second."""


class LocalInput:
    """A local source whose wanted paths are gathered while converting (CPY-25, CTX-12)."""

    __slots__ = ("_whole", "draft", "name", "paths")

    def __init__(self, name: str, label: str) -> None:
        self.name = name
        self.draft = Draft(None, meta=VertexMeta(name=label))
        self.paths: set[str] | None = set()
        self._whole: Draft | None = None

    def want(self, path: str) -> None:
        """Note that ``path`` (clean, absolute) is needed; the root means everything."""
        if path == "/":
            self.paths = None
        elif self.paths is not None:
            self.paths.add(path)

    def whole(self) -> Draft:
        """All of it as a tree that can be built on: a context is read in place, and never written to."""
        self.want("/")
        if self._whole is None:
            action = Copy(src="/", dest="/", dir_contents=True, create_dest_path=True)
            op, inputs = file_op(None, [(action, self.draft)])
            place, _, _ = self.draft.meta.name.partition("]")
            self._whole = Draft(op, inputs.tuple(), VertexMeta(name=f"{place}] copy files"))
        return self._whole


class BuildState:
    """One conversion: options, answers so far, and what is collected for the end."""

    def __init__(
        self, dockerfile: Dockerfile, options: ConvertOptions, resolver: Resolver, linter: Linter
    ) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.resolver = resolver
        self.linter = linter
        self.table = StageTable.of(dockerfile)
        self.escape = dockerfile.escape
        self.build_args = dict(options.build_args)
        self.used_args: set[str] = set()
        self.proxy_env = proxy_env(self.build_args)
        self.global_env: dict[str, str] = {}
        self.global_names: set[str] = set()
        self.global_hints: dict[str, str] = {}
        self.unset: dict[Span, str] = {}
        self.epoch: int | None = options.epoch
        self.remote_epoch = False
        self.created: str | None = None
        self.images: dict[tuple[str, Platform], ResolvedImage] = {}
        self.contexts: dict[str, NamedContext] = {}
        self.locals: dict[str, LocalInput] = {}
        self._asked: dict[tuple[str, Platform], NamedContext | None] = {}
        self._main: Draft | None = None
        self._compared = 0

    def local(self, name: str, label: str) -> LocalInput:
        """The local input called ``name``."""
        found = self.locals.get(name)
        if found is None:
            found = self.locals[name] = LocalInput(name, label)
        return found

    def main_context(self) -> tuple[Draft, LocalInput | None]:
        """The build context: a local input, or the source that stands in for it."""
        label = "[internal] load build context"
        if self.options.context is None:
            found = self.local(self.options.context_name, label)
            return found.draft, found
        if self._main is None:
            self._main = Draft(self.options.context, meta=VertexMeta(name=label))
        return self._main, None

    def image(self, ref: str, platform: Platform) -> ResolvedImage:
        """The image called ``ref``, asked for once."""
        key = (ref, platform)
        found = self.images.get(key)
        if found is None:
            found = self.images[key] = self.resolver.image(ref, platform, mode=self.options.resolve_mode)
        return found

    def context(self, name: str, platform: Platform) -> NamedContext | None:
        """The named context called ``name``; scratch and context are never replaced (CTX-07)."""
        if name in ("scratch", "context"):
            return None
        key = (name, platform)
        if key not in self._asked:
            self._asked[key] = self.resolver.context(name, platform)
        found = self._asked[key]
        if found is not None:
            self.contexts[name] = found
        return found

    def similar(self, name: str, known: Collection[str]) -> str:
        """What an unknown variable may have meant; a file with thousands of them gets no more guesses."""
        self._compared += len(known)
        return suggestion(name, known) if self._compared <= MAX_COMPARED else ""

    def finish_locals(self) -> None:
        """Give the local inputs their ops (CMP-07)."""
        for found in self.locals.values():
            attrs: tuple[tuple[str, str], ...] = ()
            if found.paths:
                wanted = sorted(path.lstrip("/") for path in found.paths)
                attrs = (("local.followpaths", canonical_json(wanted).decode("ascii")),)
            found.draft.op = SourceOp(identifier=f"local://{found.name}", attrs=attrs)


class Settings:
    """An image's run settings while a stage changes them; ``freeze`` gives the config."""

    def __init__(self, config: ImageConfig) -> None:
        self.base = config
        self.env: dict[str, str | None] = {}
        for item in config.env:
            key, equals, value = item.partition("=")
            self.env[key] = value if equals else None
        self.labels = dict(config.labels)
        self.ports = dict.fromkeys(config.exposed_ports)
        self.volumes = dict.fromkeys(config.volumes)
        self.user = config.user
        self.workdir = config.workdir
        self.cmd = config.cmd
        self.entrypoint = config.entrypoint
        self.shell = config.shell
        self.stop_signal = config.stop_signal
        self.healthcheck = config.healthcheck
        self.on_build = config.on_build
        self.author = config.author
        self.args_escaped = config.args_escaped
        self.history = list(config.history)

    def freeze(self, platform: Platform) -> ImageConfig:
        """The config as it is now."""
        return replace(
            self.base,
            platform=platform,
            created=None,
            author=self.author,
            user=self.user,
            exposed_ports=tuple(self.ports),
            env=tuple(key if value is None else f"{key}={value}" for key, value in self.env.items()),
            entrypoint=self.entrypoint,
            cmd=self.cmd,
            volumes=tuple(self.volumes),
            workdir=self.workdir,
            labels=tuple(self.labels.items()),
            stop_signal=self.stop_signal,
            args_escaped=self.args_escaped,
            healthcheck=self.healthcheck,
            on_build=self.on_build,
            shell=self.shell,
            history=tuple(self.history),
        )


class Declared(NamedTuple):
    """An ARG carried out: its value, and its default as typed (None = none, the value may be global)."""

    name: str
    value: str | None
    default: str | None
    instruction: Arg


class Wanted(NamedTuple):
    """A secret or an ssh agent that a RUN asks for."""

    kind: Literal["secret", "ssh"]
    id: str
    required: bool
    span: Span


class StageState:
    """One stage: first what it is built on and needs (set by ``plan``), then its tree and settings.

    A stage made only because an instruction names an image has ``auto`` set.
    """

    def __init__(self, build: BuildState, stage: Stage, platform: Platform, *, auto: bool = False) -> None:
        self.build = build
        self.stage = stage
        self.auto = auto
        self.platform = platform
        # Planned
        self.base: StageState | None = None
        self.base_name = ""
        self.replaced: NamedContext | None = None
        self.base_context: NamedContext | None = None
        self.image_ref: str | None = None
        self.image: ResolvedImage | None = None
        self.triggers: tuple[Instruction, ...] = ()
        self.sources: dict[str, StageState] = {}
        # Converted
        self.done = False
        self.tree: Tree = None
        self.local: LocalInput | None = None
        self.env: dict[str, str] = {}
        self.args: dict[str, str | None] = {}
        self.settings = Settings(ImageConfig.scratch(platform))
        self.base_config: ImageConfig | None = None
        self.ignore_cache = False
        self.cmd_set = False
        self.workdir_set = False
        self.unknown_base = False
        self.declared: list[Declared] = []
        self.wanted: list[Wanted] = []
        self.steps = 0
        self.step = 0
        self.in_trigger = False

    @property
    def workdir(self) -> str:
        """The current working directory with slashes, "/" at first."""
        found = self.settings.workdir or "/"
        if self.platform.os != "windows":
            return found
        try:
            return for_platform(found, "windows")
        except ValueError:
            return found.replace("\\", "/")

    def set_workdir(self, path: str) -> None:
        """Go to ``path``, which has slashes; a Windows image's config has backslashes."""
        self.settings.workdir = path.replace("/", "\\") if self.platform.os == "windows" else path

    def path(self, text: str, instruction: Instruction) -> str:
        """A path as an instruction of this stage means it; raises InvalidInstruction."""
        try:
            return for_platform(text, self.platform.os)
        except ValueError as error:
            raise self.fail(str(error), instruction, part=part_of(text)) from error

    @property
    def shell(self) -> tuple[str, ...]:
        """The shell of shell-form commands."""
        return self.settings.shell or (WINDOWS_SHELL if self.platform.os == "windows" else DEFAULT_SHELL)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """Triggers of the base first, then the stage's own (ONB-02)."""
        return (*self.triggers, *self.stage.instructions)

    def expand(self, text: str, at: Origin, **modes: bool) -> str:
        """Expand one word with the stage's environment; unknown variables are linted.

        What an unknown base may have set stays as typed. Raises ExpansionProblem.
        """
        if is_plain(text, self.build.escape):
            return text
        if self.unknown_base:
            modes["skip_unset"] = True
        found = expand(text, self.env, self.build.escape, **modes)
        if found.unmatched:
            self.lint_unmatched(found, at)
        return found.text

    def lint_unmatched(self, found: Expanded, at: Origin) -> None:
        """LNT-20: declared arguments without a value are fine; so is all that an unknown base may set.

        What each of them may be the reason for is kept for errors (``BuildState.unset``).
        """
        known, span = self.args.keys(), at.span
        reasons = [no_value_hint(name) for name in sorted(found.unmatched & known)]
        for name in sorted(found.unmatched - known - NON_ENV_ARGS):
            hint = undeclared_hint(self.build.table, name, span, self.stage)
            if self.unknown_base and not hint:
                continue
            similar = self.build.similar(name, (*self.env, *known))
            reasons.append(hint or f"${name} is not set here{similar}")
            self.build.linter.undefined_variable(name, similar, at, hint)
        if reasons:
            before = self.build.unset.get(span)
            self.build.unset[span] = "; ".join(dict.fromkeys([before, *reasons] if before else reasons))

    def onto(self) -> Tree:
        """The current tree, to be built on: a local input is then needed whole."""
        if self.local is not None and self.tree is self.local.draft:
            self.tree = self.local.whole()
        return self.tree

    def commit(self, created_by: str, *, empty: bool) -> None:
        """Add a history entry (HIS-01)."""
        self.settings.history.append(
            History(
                created=self.build.created,
                created_by=created_by,
                comment=HISTORY_COMMENT,
                empty_layer=empty,
            )
        )

    def meta(self, name: str, instruction: Instruction, *, group: str = "", weak: bool = False) -> VertexMeta:
        """What a vertex of this stage says of itself (NAM-07)."""
        at = instruction.at
        command = redact(at.text) if isinstance(instruction, Add) else at.text
        return VertexMeta(
            name=displayable(name),
            command=displayable(command),
            ignore_cache=self.ignore_cache,
            progress_group=group,
            progress_weak=weak,
            source=at.span,
            resources=self.build.options.resources,
        )

    def fail(
        self, message: str, instruction: Instruction, *, part: Part | None = None, hint: str | None = None
    ) -> InvalidInstruction:
        """The error to raise when an instruction cannot be carried out, for ``part`` of it."""
        return InvalidInstruction(message, at=instruction.at, part=part, hint=hint)


def displayable(text: str) -> str:
    """Text that may hold bytes that are no UTF-8, as it can be printed and stored."""
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def locate(error: PybuildError, instruction: Instruction, part: Part) -> None:
    """Say in ``error`` which instruction it belongs to, and which part of it, if it does not know."""
    span = instruction.at.span
    if isinstance(error, DockerfileError):
        error.part = error.part or part
        error.locate(instruction.at)
    elif isinstance(error, SolveError):
        if not error.filename:
            error.filename, error.first_line, error.last_line = span.filename, span.start, span.end
    else:
        error.context = (*error.context, f"{span.filename}:{span.start}: {instruction.at.text[:200]}")
