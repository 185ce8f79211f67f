"""Warnings: each rule has a name, a page and a message (section 20 of the rows).

``Linter`` collects what the conversion finds, and applies the ``check`` directive. ``lint_text`` holds the
rules that need nothing but the parsed file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from builder.errors import InvalidValue
from builder.frontend.errors import BadOption, LintViolation
from builder.frontend.instructions import Arg, Env, From, Instruction, Label, Maintainer, Onbuild, Origin
from builder.frontend.lintrules import RULES, Rule
from builder.frontend.parser import Dockerfile
from builder.frontend.parts import ARGUMENTS, KEYWORD, Part, argument, directive, value_of, variable
from builder.frontend.source import SourceFile, Span
from builder.frontend.stages import StageTable
from builder.oci.platform import Platform

if TYPE_CHECKING:
    from builder.frontend.positions import Range

_PAGE = "https://docs.docker.com/go/dockerfile/rule/"


class LintWarning(NamedTuple):
    """One finding; ``hint`` says what may have been meant, where the message has no room for it.

    ``part`` names the word that it is about, if it is about one.
    """

    rule: str
    message: str
    span: Span
    hint: str = ""
    part: Part | None = None

    @property
    def url(self) -> str:
        """The rule's page, "" when it has none."""
        page = RULES[self.rule].page
        return f"{_PAGE}{page}/" if page else ""

    @property
    def detail(self) -> str:
        """What the rule is about."""
        return RULES[self.rule].detail

    def range(self, source: SourceFile) -> Range | None:
        """Where that word stands, to line and column."""
        if self.part is None:
            return None
        from builder.frontend.positions import range_of  # for tools only

        return range_of(source, self.span, self.part)

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} (line {self.span.start})"


class LintConfig(NamedTuple):
    """The ``check`` directive (LNT-03)."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    @classmethod
    def parse(cls, text: str, spans: tuple[Span, ...] = ()) -> LintConfig:
        """Read ``skip=A,B;error=true;experimental=all``; raises BadOption, which points at ``spans``."""
        found = cls()
        if not text.strip():
            return found
        parts = text.split(";")
        if len(parts) > 3:
            message = f'invalid check option "{text[:200]}"'
            raise BadOption(message, spans=spans, part=directive(text.strip()))
        for part in parts:
            key, equals, value = part.partition("=")
            match key.strip(), value.strip():
                case "skip", names if equals:
                    rules = frozenset(name.strip() for name in names.split(","))
                    found = found._replace(skip=found.skip | rules, skip_all="all" in rules)
                case "experimental", names if equals:
                    rules = frozenset(name.strip() for name in names.split(","))
                    found = found._replace(experimental=rules, experimental_all="all" in rules)
                case "error", ("true" | "false" | "1" | "0") as flag:
                    found = found._replace(error=flag in ("true", "1"))
                case "", "" if len(parts) > 1:
                    continue
                case _:
                    raise BadOption(
                        f'invalid check option "{part.strip()[:200]}"',
                        spans=spans,
                        part=directive(part.strip()),
                        hint="want skip=Rule,Rule|all; error=true|false; experimental=Rule|all",
                    )
        return found

    def reports(self, rule: Rule) -> bool:
        """Whether findings of ``rule`` count; one that was asked for by name is not skipped with the rest."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skip


def lint_config(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> LintConfig:
    """What the file, or the build argument in its place, says of linting (LNT-03); raises BadOption."""
    if "BUILDKIT_DOCKERFILE_CHECK" in build_args:
        return LintConfig.parse(build_args["BUILDKIT_DOCKERFILE_CHECK"])
    for name, value, line in dockerfile.nodes.directives:
        if name == "check":
            return LintConfig.parse(value, (dockerfile.source.span(line, line),))
    return LintConfig()


class Linter:
    """Collects findings, once each, as the configuration allows."""

    def __init__(self, config: LintConfig, instructions: Iterable[Instruction] = ()) -> None:
        self.config = config
        self._found: dict[LintWarning, LintWarning] = {}
        self._local: dict[int, LintConfig] = {}
        for instruction in instructions:
            for comment in instruction.at.comments:
                key, equals, value = comment.partition("=")
                if equals and key.strip().lower() == "check":
                    span = instruction.at.span
                    self._local[span.start] = LintConfig.parse(value.strip(), (span,))

    @property
    def warnings(self) -> tuple[LintWarning, ...]:
        """What was found, in file order."""
        return tuple(sorted(self._found.values(), key=lambda found: found.span.start))

    def report(
        self, name: str, at: Origin | Span, message: str, hint: str = "", part: Part | None = None
    ) -> None:
        """Add a finding of rule ``name`` about an instruction, or ``part`` of it."""
        rule = RULES[name]
        span = at.span if isinstance(at, Origin) else at
        reports = self.config.reports(rule)
        local = self._local.get(span.start)
        if local is not None:  # LNT-05
            reports = reports or (rule.experimental and local.reports(rule))
            reports = reports and local.reports(rule._replace(experimental=False))
        if reports:
            if part is not None and isinstance(at, Origin):
                part = part.of(at.text)
            found = LintWarning(name, message, span, hint)
            self._found.setdefault(found, found._replace(part=part))

    def undefined_variable(self, name: str, similar: str, at: Origin, hint: str = "") -> None:
        """LNT-20; ``similar`` is what ``suggestion`` says."""
        message = f"Usage of undefined variable '${name}'{similar.replace('mean ', 'mean $')}"
        self.report("UndefinedVar", at, message, hint, variable(name))

    def raise_if_error(self) -> None:
        """LNT-04: with ``error=true`` findings fail the build."""
        if self.config.error and self._found:
            names = ", ".join(sorted({found.rule for found in self._found}))
            spans = tuple(found.span for found in self.warnings)
            raise LintViolation(
                f"lint violation found for rules: {names}",
                spans=spans,
                part=self.warnings[0].part,
                context=tuple(map(str, self.warnings)),
            )


def lint_text(linter: Linter, dockerfile: Dockerfile, table: StageTable) -> None:
    """The rules about how the file is written."""
    source = dockerfile.source
    for warning in dockerfile.warnings:
        span = source.span(warning.line, warning.line)
        linter.report("NoEmptyContinuation", span, "Empty continuation line")
    _casing(linter, dockerfile.instructions)
    _stage_names(linter, table)
    for instruction in dockerfile.instructions:
        _instruction(linter, instruction)


def _casing(linter: Linter, instructions: tuple[Instruction, ...]) -> None:
    lower = sum(item.at.typed.islower() for item in instructions)
    upper = sum(item.at.typed.isupper() for item in instructions)
    majority = "lowercase" if lower > upper else "uppercase"
    for item in instructions:
        typed = item.at.typed
        if not (typed.islower() if lower > upper else typed.isupper()):
            message = f"Command '{typed}' should match the case of the command majority ({majority})"
            linter.report("ConsistentInstructionCasing", item.at, message, part=KEYWORD)


def _stage_names(linter: Linter, table: StageTable) -> None:
    seen: set[str] = set()
    for stage in table.stages:
        base, at, name = stage.base, stage.base.at, argument(2)
        if not stage.name:
            continue
        if base.stage_typed != stage.name:
            message = f"Stage name '{base.stage_typed}' should be lowercase"
            linter.report("StageNameCasing", at, message, part=name)
        word, keyword = base.as_typed, base.at.typed
        if (word.isupper() or word.islower()) and (keyword.isupper() or keyword.islower()):
            if word.isupper() != keyword.isupper():
                message = f"'{word}' and '{keyword}' keywords' casing do not match"
                linter.report("FromAsCasing", at, message, part=argument(1))
        if stage.name in seen:
            message = f'Duplicate stage name "{stage.name}", stage names should be unique'
            linter.report("DuplicateStageName", at, message, part=name)
        seen.add(stage.name)
        if stage.name in ("context", "scratch"):
            message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            linter.report("ReservedStageName", at, message, part=name)


def _instruction(linter: Linter, instruction: Instruction) -> None:
    at = instruction.at
    match instruction:
        case From():
            _platform(linter, instruction)
            _description(linter, instruction, "FROM", (instruction.stage,) if instruction.stage else ())
        case Arg():
            _description(linter, instruction, "ARG", tuple(name for name, _ in instruction.items))
        case Maintainer():
            message = "Maintainer instruction is deprecated in favor of using label"
            linter.report("MaintainerDeprecated", at, message, part=KEYWORD)
        case Env() | Label() if instruction.legacy:
            name = "ENV" if isinstance(instruction, Env) else "LABEL"
            message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
            linter.report("LegacyKeyValueFormat", at, message, part=ARGUMENTS)
        case Onbuild():
            _instruction(linter, instruction.trigger)
        case _:
            pass


def _platform(linter: Linter, instruction: From) -> None:
    """LNT-24, LNT-27."""
    text, at = instruction.platform, instruction.at
    if text is None:
        return
    if text in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        message = (
            f"Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        )
        linter.report("RedundantTargetPlatform", at, message, part=value_of("platform"))
    elif "$" not in text:
        if not (instruction.stage and any(part in instruction.stage for part in _parts(text))):
            message = f'FROM --platform flag should not use constant value "{text}"'
            linter.report("FromPlatformFlagConstDisallowed", at, message, part=value_of("platform"))


def _parts(text: str) -> set[str]:
    """Operating system and architecture of a platform, as typed and by their usual names."""
    parts = set(text.lower().split("/")[:2])
    try:
        known = Platform.parse(text)
    except InvalidValue:
        return parts - {""}
    return (parts | {known.os, known.architecture}) - {""}


def _description(linter: Linter, instruction: Instruction, keyword: str, names: tuple[str, ...]) -> None:
    """LNT-29: one of the comment lines above a stage or an ARG begins with its name."""
    comments = [text for text in instruction.at.comments if not text.lower().startswith("check=")]
    if (
        not comments
        or not names
        or any(text.startswith(tuple(f"{name} " for name in names)) for text in comments)
    ):
        return
    name = names[0] if len(names) == 1 else "<arg_key>"
    message = f"Comment for {keyword} should follow the format: `# {name} <description>`"
    linter.report("InvalidDefinitionDescription", instruction.at, message)


@cache
def _secret_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    words = "apikey|auth|credentials?|key|password|pword|passwd|secret|token"
    return (
        re.compile(rf"(?:_|^)(?:{words})(?:_|$)", re.IGNORECASE),
        re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE),
    )


def names_secret(key: str) -> bool:
    """Whether a variable of this name looks as if its value were secret."""
    secret, harmless = _secret_patterns()
    return bool(secret.search(key)) and not harmless.search(key)


def lint_secret(linter: Linter, instruction: str, key: str, at: Origin, index: int) -> None:
    """LNT-25, about the ``index``-th name."""
    if names_secret(key):
        message = f'Do not use ARG or ENV instructions for sensitive data ({instruction} "{key}")'
        linter.report("SecretsUsedInArgOrEnv", at, message, part=Part("key", index))


def lint_base_platform(linter: Linter, name: str, actual: Platform, wanted: Platform, at: Origin) -> None:
    """LNT-23, FRM-16."""
    if (actual.os, actual.architecture) != (wanted.os, wanted.architecture):
        message = (
            f'Base image {name} was pulled with platform "{actual}", expected "{wanted}" for current build'
        )
        linter.report("InvalidBaseImagePlatform", at, message, part=argument(0))
