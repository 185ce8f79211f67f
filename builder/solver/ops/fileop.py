"""File operations without a process and without a mount (rows FIL-01…FIL-18).

Trees are read through views; changes go through writers straight into upper directories. Every path is
resolved with links followed as if its tree were the root directory, so nothing outside can be named.
"""

from __future__ import annotations

import errno
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from builder.cache.patterns import has_wildcard
from builder.cache.selection import find_sources
from builder.cache.tree import SourceTree, View, clean, split
from builder.errors import GraphError, PathNotFound, PybuildError, SolveError, StoreFull
from builder.llb.ops import EMPTY, Action, Copy, FileOp, MkDir, MkFile, Rm, Symlink
from builder.solver.ops.filecopy import Copier
from builder.solver.ops.owners import find_owner

_PERMISSIONS = 0o777

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.protocols import TreeSink

    Writers = Callable[[int], TreeSink] | Sequence[TreeSink]
    """Makes the writer of a chain of actions, given the position of the input that it starts from (-1: an
    empty tree); or the writers themselves, in the order in which chains start.
    """


class Forks(Protocol):
    """Results that several actions go on from, or that are outputs as well."""

    def freeze(self, writer: TreeSink) -> None:
        """What was written until now stays as it is."""
        ...

    def tree(self, frozen: TreeSink) -> SourceTree:
        """It as a tree to read."""
        ...

    def writer(self, frozen: TreeSink) -> TreeSink:
        """A new writer on top of it."""
        ...


def run_file_op(
    op: FileOp,
    inputs: Sequence[SourceTree | None],
    writers: Writers,
    *,
    check: Callable[[], None] | None = None,
    forks: Forks | None = None,
    remark: Callable[[str], None] | None = None,
) -> tuple[TreeSink, ...]:
    """Carry out the actions; gives the writer of every output.

    ``inputs`` are the op's input trees, None for an empty one. ``check`` is called now and then and may raise
    to stop; ``remark`` is told what copies leave out. Without ``forks`` no two actions can go on from the
    same result (GraphError).
    Raises PathNotFound, SolveError, StoreFull; what was written until then is the caller's to
    discard.
    """
    return _Run(op, inputs, writers, check, forks, remark).run()


class _Run:
    def __init__(
        self,
        op: FileOp,
        inputs: Sequence[SourceTree | None],
        writers: Writers,
        check: Callable[[], None] | None,
        forks: Forks | None,
        remark: Callable[[str], None] | None,
    ) -> None:
        self._op = op
        self._inputs = inputs
        self._given = None if callable(writers) else iter(writers)
        self._make = writers if callable(writers) else None
        self._check = check
        self._remark = remark
        self._results: list[TreeSink] = []
        self._used: set[int] = set()
        self._forks = forks
        self._shared = _used_again(op, len(inputs))

    def run(self) -> tuple[TreeSink, ...]:
        outputs: dict[int, TreeSink] = {}
        for item in self._op.actions:
            if self._check is not None:
                self._check()
            writer = self._writer(item.input)
            try:
                self._act(item.action, item.secondary, writer)
            except OSError as error:
                raise explain(error) from error
            if self._forks is not None and len(self._results) in self._shared:
                self._forks.freeze(writer)
            self._results.append(writer)
            if item.output != EMPTY:
                outputs[item.output] = writer
        return tuple(outputs[number] for number in sorted(outputs))

    def _writer(self, position: int) -> TreeSink:
        """The writer that an action goes on with, or a new one."""
        index = position - len(self._inputs)
        if index < 0:
            if self._given is not None:
                return next(self._given)
            assert self._make is not None
            return self._make(position)
        result = self._results[index]
        if self._forks is not None:
            return self._forks.writer(result) if index in self._shared else result
        if index in self._used or self._op.actions[index].output != EMPTY:
            raise GraphError("file actions that build on the same result twice need snapshots")
        self._used.add(index)
        return result

    def _tree(self, position: int) -> SourceTree | None:
        index = position - len(self._inputs)
        if position < 0:
            return None
        if index < 0:
            return self._inputs[position]
        result = self._results[index]
        return self._forks.tree(result) if self._forks and index in self._shared else result

    def _act(self, action: Copy | MkFile | MkDir | Rm | Symlink, secondary: int, writer: TreeSink) -> None:
        match action:
            case Copy():
                owner = find_owner(action.owner, self._tree)
                source = self._tree(secondary) or View(())
                Copier(action, source, writer, owner, self._check, self._remark).run()
            case MkFile():
                make_file(action, writer, find_owner(action.owner, self._tree) or (0, 0))
            case MkDir():
                make_dir(action, writer, find_owner(action.owner, self._tree, lenient=True) or (0, 0))
            case Rm():
                remove(action, writer)
            case Symlink():
                make_link(action, writer, find_owner(action.owner, self._tree) or (0, 0))
            case _:
                assert_never(action)


def branches(op: FileOp, inputs: int) -> bool:
    """Whether a result is used more than once, as an output or by other actions."""
    return bool(_used_again(op, inputs))


def _used_again(op: FileOp, inputs: int) -> set[int]:
    """The actions whose result is used more than once, as an output or by other actions."""
    uses: Counter[int] = Counter()
    for number, item in enumerate(op.actions):
        uses[number] += item.output != EMPTY
        uses.update(
            position - inputs for position in (item.input, item.secondary, *_owner_inputs(item.action))
        )
    return {number for number, count in uses.items() if number >= 0 and count > 1}


def _owner_inputs(action: Action) -> list[int]:
    owner = None if isinstance(action, Rm) else action.owner
    return [part.input for part in (owner.user, owner.group) if part and part.name] if owner else []


def _time(timestamp_ns: int) -> int | None:
    return timestamp_ns if timestamp_ns >= 0 else None


def _need_directory(writer: TreeSink, path: str) -> None:
    st = writer.lstat(path)
    if st is None:
        raise PathNotFound(f'"/{path}": not found', path=f"/{path}")
    if not stat.S_ISDIR(st.st_mode):
        raise SolveError(f'"/{path}": not a directory', code="not-a-directory")


def make_file(action: MkFile, writer: TreeSink, owner: tuple[int, int]) -> None:
    """Create or replace a file; its parent must exist (FIL-03)."""
    path = writer.resolve(action.path)
    st = writer.lstat(path)
    if st is not None and stat.S_ISDIR(st.st_mode):
        raise SolveError(f'"/{path}": is a directory', code="is-a-directory")
    _need_directory(writer, split(path)[0])
    mode = action.mode & _PERMISSIONS
    writer.write_file(path, action.data, mode, *owner, mtime_ns=_time(action.timestamp_ns))


def make_dir(action: MkDir, writer: TreeSink, owner: tuple[int, int]) -> None:
    """Create a directory; one that exists is left as it is (FIL-02)."""
    path = writer.resolve(action.path)
    mode, time = action.mode & _PERMISSIONS, _time(action.timestamp_ns)
    if action.make_parents:
        if writer.lstat(path) is not None:
            _need_directory(writer, path)
        writer.makedirs(path, mode, *owner, mtime_ns=time)
    elif writer.lstat(path) is None:
        _need_directory(writer, split(path)[0])
        writer.mkdir(path, mode, *owner, mtime_ns=time)


def make_link(action: Symlink, writer: TreeSink, owner: tuple[int, int]) -> None:
    """Create a symbolic link; its text is kept verbatim (FIL-05)."""
    path = writer.resolve(action.new_path, follow_final=False)
    if not path or writer.lstat(path) is not None:
        raise SolveError(f'"/{path}": exists', code="file-exists")
    if not action.old_path or "\0" in action.old_path:
        raise SolveError(f"not a possible link text: {action.old_path!r}", code="bad-link")
    _need_directory(writer, split(path)[0])
    writer.symlink(path, action.old_path, *owner, mtime_ns=_time(action.timestamp_ns))


def remove(action: Rm, writer: TreeSink) -> None:
    """Remove a path with all below it; a final link is not followed (FIL-04)."""
    if not clean(action.path):
        raise SolveError("rm: refusing to remove the root directory", code="bad-path")
    wild = action.allow_wildcard and has_wildcard(action.path)
    if not wild:
        path = writer.resolve(action.path, follow_final=False)
        if not path:
            raise SolveError("rm: refusing to remove the root directory", code="bad-path")
        if not writer.remove(path) and not action.allow_not_found:
            raise PathNotFound(f'"/{path}": not found', path=f"/{path}")
        return
    found = find_sources(writer, action.path, wildcards=True, follow=False)
    if not found and not action.allow_not_found:
        raise PathNotFound(f'"{action.path}": not found', path=action.path)
    for source in found:
        writer.remove(source.path)


def explain(error: OSError) -> PybuildError:
    """A system's refusal while writing a tree, as an expected failure without host paths (FIL-17)."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(
            "no space left on the device for the result of this step", hint="pybuild prune frees space"
        )
    name = f' "{error.filename}"' if isinstance(error.filename, str) and "/" not in error.filename else ""
    return SolveError(f"file operation failed{name}: {error.strerror or error}", code="file-op-failed")
