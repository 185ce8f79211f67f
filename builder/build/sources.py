"""Sources of a build: contexts read in place, base images, git repositories and URLs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from builder.cache import keys
from builder.cache.contenthash import ContentHasher
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.cache.tree import SourceTree
from builder.errors import PathNotFound, SourceUnavailable
from builder.frontend.redact import redact
from builder.llb.ops import Copy, SourceOp
from builder.oci.canonical import canonical_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, DiffId, Digest, chain_ids
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.solver.cancel import Cancel
from builder.solver.reporter import Reporter
from builder.sources.local import LocalContext

_TRIES = 5
SELECTION_KIND = "selection-3"
"""Documents that list the entries of a selection, NUL between them: digest, mode (octal), size and path. Its
content does not say at which path of the context it was: the document's name does.
"""


class BaseImage(Protocol):
    """A base image that was resolved: its chain of layers is known, its layers may not be here yet."""

    @property
    def chain_id(self) -> ChainId | None:
        """Chain id of all its layers; None without any."""
        ...

    @property
    def layers(self) -> tuple[tuple[Descriptor, ...], tuple[DiffId, ...]]:
        """Its layers and their diff ids, lowest first."""
        ...

    def unpack(self, reporter: Reporter, cancel: Cancel, *, lazy: bool = False) -> str | None:
        """The committed snapshot of its tree, fetched if need be, and unpacked unless ``lazy``."""
        ...

    def missing_from(self) -> Reference | None:
        """The name by which a registry has its layers; None when all are here, or come from elsewhere."""
        ...

    def fetch_layer(self, layer: Descriptor, on_bytes: Callable[[int], None]) -> None:
        """Bring one layer into the store. Raises RegistryError, DigestMismatch."""
        ...

    def narrowed(self, op: SourceOp) -> BaseImage:
        """The image as the attributes of ``op`` want it (SIM-06). Raises SourceUnavailable."""
        ...


class RemoteSource(Protocol):
    """A git or http source."""

    def identity(self, reporter: Reporter) -> str:
        """What names its content for good: a commit, a content digest."""
        ...

    def pin(self) -> str:
        """``algorithm:hex`` of its commit or content once ``identity`` was asked; "" before."""
        ...

    def cache_key(self, reporter: Reporter) -> str:
        """What names its content in exported caches (CKY-08)."""
        ...

    def fetch(self, reporter: Reporter, cancel: Cancel) -> str:
        """The committed snapshot of its tree."""
        ...


@dataclass(slots=True)
class BuildSources:
    """The sources of one build (the solver's ``Sources``)."""

    store: Store
    hold: Hold
    locals: Mapping[str, LocalContext]
    images: Mapping[str, BaseImage]
    remote: Callable[[SourceOp], RemoteSource]
    selections: list[tuple[str, str, tuple[str, ...], bool, str]] = field(default_factory=list)
    """What was selected from local contexts: source, selector, prefixes, wildcard, content digest."""
    late: frozenset[tuple[SourceOp, Platform | None]] = frozenset()
    """Images that are empty trees for this build: their layers go below its result (see ``late``)."""
    _remotes: dict[SourceOp, RemoteSource] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tree(self, op: SourceOp) -> SourceTree | None:
        """The tree of ``local://NAME``."""
        return self._local(op) if op.identifier.startswith("local://") else None

    def _local(self, op: SourceOp) -> LocalContext:
        found = self.locals.get(op.identifier.removeprefix("local://"))
        if found is None:
            raise SourceUnavailable(
                "there is no build context to take files from: only a Dockerfile was given",
                hint="give a directory: pybuild build -f - DIRECTORY",
                code="context-not-found",
            )
        return found

    def select(
        self, op: SourceOp, copies: tuple[Copy, ...], on_read: Callable[[int], None] | None = None
    ) -> str:
        """Content digest of what ``copies`` select; an unchanged context costs a stat walk (CTX-13)."""
        tree = self._local(op)
        wildcard = any(_has_wildcard(copy) for copy in copies)

        def compute() -> bytes:
            selection = ContentHasher(tree, on_read=on_read).select(copies)
            self._remember_entries(tree, selection_name(selection.key, copies), selection.entries)
            return selection.key.encode()

        selector = _selectors(copies)
        prefixes = tuple(_literal_prefix(copy) for copy in copies)
        try:
            value = tree.remembered(selector, prefixes, compute, wildcard=wildcard).decode()
        except PathNotFound as error:
            error.hint = error.hint or _ignored_hint(tree, error.path.strip("/"))
            error.name_ref(op.identifier)
            raise
        self.selections.append((op.identifier, selector, prefixes, wildcard, value))
        return value

    def changed(self, op: SourceOp) -> tuple[str, ...]:
        """Files that were read and are not what they were when the context was looked at."""
        return self._local(op).changed()

    def key(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> str:
        """An image's chain id, a commit, a content digest: never a name that can move."""
        image = self._image(op, platform)
        if image is not None:
            reporter.status(f"resolve {op.identifier.partition('://')[2]}", done=True)
            kind = "layers-above" if (op, platform) in self.late else "image"
            return keys.source_key(kind, str(image.chain_id or "scratch"))
        return keys.source_key("remote", self._remote(op).identity(reporter))

    def base_digests(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> tuple[str, ...]:
        """The names of a source in exported caches (CKY-08)."""
        if op.identifier.startswith("local://"):
            return ()
        from builder.cache.basekeys import image_keys, source_digest

        image = self._image(op, platform)
        if image is None:
            return (source_digest(self._remote(op).cache_key(reporter)),)
        _, at, digest = op.identifier.rpartition("@")
        known = image_keys(Digest.parse(digest) if at else None, image.chain_id, platform)
        return tuple(map(source_digest, known or ("scratch",)))

    def fetch(
        self,
        op: SourceOp,
        platform: Platform | None,
        reporter: Reporter,
        cancel: Cancel,
        *,
        lazy: bool = False,
    ) -> str | None:
        """Unpack an image, check out a repository, download a file; None for an image without layers, and for
        a late one.
        """
        if (op, platform) in self.late:
            return None
        image = self._image(op, platform)
        for _ in range(_TRIES):
            snapshot = (
                image.unpack(reporter, cancel, lazy=lazy)
                if image is not None
                else self._remote(op).fetch(reporter, cancel)
            )
            if not snapshot or self.hold.snapshot(snapshot):
                return snapshot
        raise SourceUnavailable(
            f"{redact(op.identifier)}: its tree is pruned as soon as it is there",
            hint="another process removes build cache at the same time; try again when it is done",
        )

    def pin(self, op: SourceOp) -> str:
        """What a git or http source was when this build used it, as ``algorithm:hex``; "" = it did not."""
        with self._lock:
            remote = self._remotes.get(op)
        return remote.pin() if remote is not None else ""

    def _image(self, op: SourceOp, platform: Platform | None) -> BaseImage | None:
        if not op.identifier.startswith(("docker-image://", "oci-layout://")):
            return None
        found = self.images.get(image_key(op.identifier, platform))
        if found is None:
            raise SourceUnavailable(f"{op.identifier}: not resolved before the build")
        return found.narrowed(op) if op.attrs else found

    def _remote(self, op: SourceOp) -> RemoteSource:
        with self._lock:
            if op not in self._remotes:
                self._remotes[op] = self.remote(op)
            return self._remotes[op]

    def _remember_entries(self, tree: SourceTree, name: str, entries: tuple[tuple[str, str], ...]) -> None:
        """Keep what was selected, so that a later miss can be explained by path."""
        import zlib

        lines = []
        for path, value in entries:
            st = tree.lstat(path)
            lines.append(f"{value} {st.st_mode if st else 0:o} {st.st_size if st else 0} {path}")
        text = "\0".join(lines).encode("utf-8", "surrogateescape")
        self.store.put_doc(SELECTION_KIND, name, zlib.compress(text, 1))


def selection_name(digest: str, copies: tuple[Copy, ...]) -> str:
    """Names what ``copies`` selected when it had this content digest."""
    return f"{digest} {Digest.of(_selectors(copies).encode()).hex[:16]}"


def selected_files(store: Store, name: str) -> dict[str, tuple[str, int, int]] | None:
    """What a selection of this name held: path to digest, mode and size; None = not known."""
    import zlib

    data = store.doc(SELECTION_KIND, name)
    if data is None:
        return None
    found: dict[str, tuple[str, int, int]] = {}
    try:
        for line in zlib.decompress(data).decode("utf-8", "surrogateescape").split("\0"):
            if line:
                value, mode, size, path = line.split(" ", 3)
                found[path] = (value, int(mode, 8), int(size))
    except (zlib.error, ValueError):
        return None
    return found


def image_key(identifier: str, platform: Platform | None) -> str:
    """How a resolved image is filed: its identifier and platform."""
    return f"{identifier} {platform or ''}"


def chain_id_of(diff_ids: tuple[Digest, ...]) -> ChainId | None:
    """The chain id of a whole image."""
    return chain_ids(diff_ids)[-1] if diff_ids else None  # type: ignore[arg-type]


def _ignored_hint(tree: LocalContext, path: str) -> str | None:
    """ERR-03: the file is there, but a rule leaves it out."""
    if not tree.is_ignored(path):
        return _similar_hint(tree, path)
    from builder.frontend.ignorerule import deciding_rule

    name, text = tree.ignore_file
    rule = deciding_rule(text, path)
    if rule is None:
        return f"{path} exists, but {name} leaves it out"
    return f"{path} exists, but line {rule[0]} of {name} leaves it out: {rule[1]}"


def _similar_hint(tree: LocalContext, path: str) -> str | None:
    """The name beside the missing one that was probably meant (DIA-03)."""
    from builder.errors import PybuildError
    from builder.frontend.errors import suggestion

    above, _, name = path.rpartition("/")
    try:
        names = [entry for entry, _ in tree.scandir(above)]
    except (OSError, PybuildError):
        return None
    found = suggestion(name, names).removeprefix(" (did you mean ").removesuffix("?)")
    return f"did you mean {above}/{found}?".replace("mean /", "mean ") if found else None


def _selectors(copies: tuple[Copy, ...]) -> str:
    return canonical_json([keys.KEY_VERSION, *map(_selector, copies)]).decode()


def _selector(copy: Copy) -> list[object]:
    return [
        copy.src,
        copy.dir_contents,
        copy.follow_symlink,
        copy.allow_wildcard,
        copy.attempt_unpack,
        list(copy.include_patterns),
        list(copy.exclude_patterns),
        list(copy.required_paths),
    ]


def _has_wildcard(copy: Copy) -> bool:
    return bool(copy.include_patterns) or (copy.allow_wildcard and any(c in copy.src for c in "*?[\\"))


def _literal_prefix(copy: Copy) -> str:
    """The deepest directory that all matches of a copy's source are below."""
    if copy.include_patterns:
        return ""
    parts: list[str] = []
    for part in copy.src.strip("/").split("/"):
        if copy.allow_wildcard and any(c in part for c in "*?[\\"):
            break
        parts.append(part)
    return "/".join(parts)
