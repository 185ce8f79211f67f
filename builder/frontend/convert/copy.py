"""COPY and ADD → file ops (section 9 of the rows, CMP-03, CMP-04, HDC-07)."""

from __future__ import annotations

import json
from typing import Any

from builder.frontend.convert import remote
from builder.frontend.convert.graph import Draft, Inputs, Tree, file_op
from builder.frontend.convert.names import next_name, shown
from builder.frontend.convert.owner import needs_names, parse_chmod, parse_chown
from builder.frontend.convert.state import LocalInput, StageState
from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import DockerfileError, InvalidInstruction
from builder.frontend.history import copy_text
from builder.frontend.instructions import Add
from builder.frontend.instructions import Copy as CopyInstruction
from builder.frontend.lines import Heredoc
from builder.frontend.parts import Part, argument, value_of
from builder.frontend.parts import text as part_of
from builder.frontend.paths import absolute
from builder.frontend.redact import redact
from builder.frontend.words import expand
from builder.llb.definition import VertexMeta
from builder.llb.ops import Action, ChownOpt, Copy, MergeOp, MkFile

INLINE = VertexMeta(name="[internal] preparing inline document")
_WILDCARDS = frozenset("*?[\\")


class _Job:
    """One instruction, expanded: what its copy actions have in common."""

    def __init__(self, stage: StageState, instruction: CopyInstruction | Add) -> None:
        at = instruction.at
        self.stage = stage
        self.instruction = instruction
        self.is_add = isinstance(instruction, Add)
        self.sources = [stage.expand(source, at) for source in instruction.sources]
        self.typed_dest = stage.expand(instruction.dest, at)
        self.dest = destination(stage.workdir, stage.path(self.typed_dest, instruction))
        self.chown_text = stage.expand(instruction.chown, at)
        self.chmod_text = stage.expand(instruction.chmod, at)
        try:
            self.mode, self.mode_str = parse_chmod(self.chmod_text)
        except ValueError as error:
            raise stage.fail(str(error), instruction, part=value_of("chmod")) from error
        self.excludes = tuple(pattern for pattern in instruction.excludes if pattern.strip())
        self.inputs = Inputs()
        self.link = instruction.link
        self.previous = stage.onto()
        if not self.link:
            self.inputs.position(self.previous)
        lookup = self.inputs.position(self.previous) if needs_names(self.chown_text) else -1
        self.owner: ChownOpt | None = parse_chown(self.chown_text, lookup)
        self.actions: list[tuple[Action, Tree]] = []

    def part(self, source: str) -> Part:
        """The word that ``source`` comes from."""
        return part_of(self.instruction.sources[self.sources.index(source)]).of(self.instruction.at.text)

    def copy(self, tree: Tree, src: str, **more: Any) -> None:
        """Add a copy action."""
        options: dict[str, Any] = {
            "owner": self.owner,
            "mode": self.mode,
            "mode_str": self.mode_str,
            "create_dest_path": True,
            "exclude_patterns": self.excludes,
        }
        self.actions.append((Copy(src=src, dest=self.dest, **{**options, **more}), tree))


def convert_copy(stage: StageState, instruction: CopyInstruction | Add) -> None:
    """Copy sources onto the stage's tree; the result is the stage's next layer."""
    job = _Job(stage, instruction)
    _check_excludes(job)
    if isinstance(instruction, Add):
        _add_sources(job, instruction)
    else:
        _copy_sources(job, instruction)
    for heredoc in instruction.heredocs:
        _inline(job, heredoc)
    _lint_many(job)
    _finish(job)


def destination(workdir: str, dest: str) -> str:
    """CPY-05: absolute, and ending in a slash when it is meant as a directory."""
    path = absolute(workdir, dest)
    directory = dest in ("", ".") or dest.endswith(("/", "/."))
    return path + "/" if directory and path != "/" else path


def _check_excludes(job: _Job) -> None:
    for pattern in job.excludes:
        try:
            IgnoreMatcher((pattern,))
        except InvalidInstruction as error:
            error.part = Part("flag-value", name="exclude", text=pattern)
            raise


def _copy_sources(job: _Job, instruction: CopyInstruction) -> None:
    for source in job.sources:
        kind = _kind(job, source)
        if kind is not None:
            what = "a git ref" if kind == "git" else "a URL"
            raise job.stage.fail(f"source can't be {what} for COPY", instruction, part=job.part(source))
    for source in job.sources:
        _path(job, source, parents=instruction.parents, from_=instruction.from_)


def _kind(job: _Job, source: str) -> remote.Kind | None:
    try:
        return remote.kind_of(source)
    except DockerfileError as error:
        if error.part is None or error.part.text not in job.instruction.sources:
            error.part = job.part(source)
        raise


def _add_sources(job: _Job, instruction: Add) -> None:
    checksum = job.stage.expand(instruction.checksum, instruction.at)
    flag = Part("flag", name="checksum")
    if checksum and len(job.sources) + len(instruction.heredocs) > 1:
        raise job.stage.fail("checksum can't be specified for multiple sources", instruction, part=flag)
    for source in job.sources:
        kind = _kind(job, source)
        if kind == "git":
            tree = remote.git_source(job.stage, instruction, source, checksum)
            job.copy(tree, "/", dir_contents=True)
        elif kind == "http":
            tree, filename = remote.http_source(job.stage, instruction, source, checksum)
            job.copy(tree, f"/{filename}", attempt_unpack=bool(instruction.unpack))
        elif checksum:
            raise job.stage.fail("checksum requires HTTP(S) or Git sources", instruction, part=flag)
        else:
            _path(job, source, unpack=instruction.unpack is not False)


def _path(job: _Job, source: str, *, unpack: bool = False, parents: bool = False, from_: str = "") -> None:
    """A path in the context or in another stage (CPY-04, CPY-10, CPY-17)."""
    tree, local = _tree(job.stage, from_)
    path = job.stage.path(source, job.instruction)
    pattern, base = "", path
    if parents:
        before, pivot, after = path.partition("/./")
        base, pattern = (before, after) if pivot else ("/", path)
        pattern = absolute("/", pattern).lstrip("/")
    src = absolute("/", base)
    if parents and not pattern:
        pattern, parents = "", False
    if local is not None:
        wanted = absolute(src, pattern) if parents else src
        local.want(_without_deep_wildcard(wanted))
        if not from_ and local.name == job.stage.build.options.context_name:
            _lint_ignored(job, source)
    more: dict[str, Any] = {}
    if parents:
        more["include_patterns"] = (pattern,)
        if not _WILDCARDS.intersection(base + pattern):
            more["required_paths"] = (pattern,)
    job.copy(
        tree,
        src,
        follow_symlink=True,
        dir_contents=True,
        attempt_unpack=unpack,
        allow_wildcard=True,
        allow_empty_wildcard=True,
        **more,
    )


def _without_deep_wildcard(path: str) -> str:
    """``**`` is known to patterns only: ask for the directory above it."""
    return path if "**" not in path else path[: path.index("**")].rpartition("/")[0] or "/"


def _tree(stage: StageState, from_: str) -> tuple[Tree, LocalInput | None]:
    if not from_:
        return stage.build.main_context()
    source = stage.sources[from_]
    local = source.local if source.local is not None and source.tree is source.local.draft else None
    return source.tree, local


def _lint_ignored(job: _Job, source: str) -> None:
    """LNT-28."""
    ignore = job.stage.build.options.ignore
    if ignore is None or ignore.has_exceptions or _WILDCARDS.intersection(source):
        return
    path = absolute("/", source).lstrip("/")
    hit = ignore.excludes(path) if path else bool({"*", "**", "**/*"}.intersection(ignore.patterns))
    if hit:
        verb = "Add" if job.is_add else "Copy"
        message = f'Attempting to {verb} file "{source}" that is excluded by .dockerignore'
        job.stage.build.linter.report("CopyIgnoredFile", job.instruction.at, message, part=job.part(source))


def _lint_many(job: _Job) -> None:
    """CPY-09: several sources to what is surely meant as a directory, and is one only by luck."""
    literal = [source for source in job.sources if not _WILDCARDS.intersection(source)]
    count = len(literal) + len(job.instruction.heredocs)
    if count < 2 or job.dest.endswith("/"):
        return
    if job.stage.workdir.startswith(job.dest + "/") or job.stage.workdir == job.dest:
        return
    message = (
        f"{'ADD' if job.is_add else 'COPY'} of several sources to {json.dumps(job.typed_dest)}, which does "
        "not end with a slash: unless it is a directory, each source replaces the one before"
    )
    job.stage.build.linter.report("MultipleSourcesToFile", job.instruction.at, message, part=argument(-1))


def _inline(job: _Job, heredoc: Heredoc) -> None:
    """A here-document as a source file (HDC-04, HDC-07)."""
    stage = job.stage
    body = heredoc.body
    if heredoc.expand:
        body = _expand_body(stage, body, job.instruction)
    name = heredoc.name.rpartition("/")[2] or heredoc.name.replace("/", "_")
    data = body.encode("utf-8", "surrogateescape")
    op, inputs = file_op(None, [(MkFile(path=f"/{name}", data=data), None)])
    job.copy(Draft(op, inputs.tuple(), INLINE), f"/{name}", exclude_patterns=())


def _expand_body(stage: StageState, body: str, instruction: CopyInstruction | Add) -> str:
    found = expand(body, stage.env, "\\", no_quotes=True)
    stage.lint_unmatched(found, instruction.at)
    return found.text


def _finish(job: _Job) -> None:
    stage, instruction = job.stage, job.instruction
    name = "ADD" if job.is_add else "COPY"
    visible = redact(shown(stage, instruction.at.text))
    step = next_name(stage, visible)
    op, inputs = file_op(None if job.link else job.previous, job.actions, job.inputs)
    if job.link and job.previous is not None:
        copied = Draft(op, inputs.tuple(), stage.meta(step, instruction, group=step, weak=True))
        merge = MergeOp(inputs=(0, 1))
        label = f"LINK {visible}"
        meta = stage.meta(label, instruction, group=step)
        stage.tree = Draft(merge, (job.previous, copied), meta)
    else:
        stage.tree = Draft(op, inputs.tuple(), stage.meta(step, instruction))
    heredocs = [f"<<{heredoc.name}" for heredoc in instruction.heredocs]
    text = copy_text(
        name,
        [*map(redact, job.sources), *heredocs],
        job.typed_dest,
        parents=isinstance(instruction, CopyInstruction) and instruction.parents,
        chown=job.chown_text,
        chmod=job.chmod_text,
    )
    stage.commit(text, empty=False)
