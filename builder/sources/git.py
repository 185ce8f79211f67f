"""Git repositories as sources: one bare mirror per remote, a commit checked out of it (SGI-01…07).

Mirrors live in ``git/<sha256 of the remote>`` of the state directory, each under a lock. They hold refs of
ours only (``refs/pybuild/…``). Nothing of a repository is executed, submodules are fetched by the same code
under the same rules, and a subdirectory is resolved inside the checkout (CVE-2026-33748).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.cache.mirrors import lock_name, note_use
from builder.errors import Cancelled, InvalidValue, PathNotFound, SourceUnavailable
from builder.llb.gitref import GitRef, check_ref, check_remote, is_commit, split_credentials
from builder.sources.contexttree import ContextTree
from builder.sources.gitcmd import Git, GitFailed, basic
from builder.sources.gitstore import GitStore
from builder.sources.steps import Step
from builder.sources.submodules import Submodule, submodules_of

MAX_SUBMODULES = 100
MAX_DEPTH = 8
_KEPT = "refs/pybuild/commits/"
_SHORT_ID = re.compile("[0-9a-f]{4,39}")


@dataclass(slots=True, kw_only=True)
class GitSource:
    """One repository at one ref.

    ``tokens`` are secrets by name: ``GIT_AUTH_TOKEN``, ``GIT_AUTH_HEADER``, each also with ``.host``
    (SGI-06).
    """

    store: GitStore
    ref: GitRef
    tokens: Mapping[str, str] = field(default_factory=dict)
    proxy_env: tuple[tuple[str, str], ...] = ()
    ssh_socket: str = ""
    known_hosts: Path | None = None
    keep_git_dir: bool = False
    public_key: str = ""
    """The key that the commit must be signed by (SGI-08); empty = any commit is taken."""
    _resolved: tuple[str, str] | None = None
    _count: int = 0

    def resolve(self, step: Step) -> str:
        """The commit that the ref names now; raises SourceUnavailable."""
        return self._resolve(step)[0]

    def checkout(self, commit: str, dest: Path, step: Step) -> Path:
        """Fetch ``commit`` if need be and write its tree to the new directory ``dest``.

        The result is the directory that is wanted: ``dest``, or the subdirectory in it. Files belong to the
        caller's user, the umask is 022.
        """
        remote, git = self._remote(self.ref.remote)
        name = self._resolved[1] if self._resolved and self._resolved[0] == commit else ""
        self._count = 0
        self._take(remote, git, commit, name, dest, step, 0)
        if self.public_key:
            from builder.sources.gitsignature import verify_commit

            verify_commit(git, self._mirror(remote), commit, self.public_key)
        if self.keep_git_dir or self.ref.keep_git_dir:
            self._write_git_dir(remote, git, commit, name, dest, step)
        if self.ref.mtime == "commit":
            _set_times(dest, self.committed_s(commit, step))
        return subdirectory(dest, self.ref.subdir, self.ref.display)

    def committed_s(self, commit: str, step: Step) -> int:
        """When ``commit`` was committed, in Unix seconds; fetches it if need be."""
        remote, git = self._remote(self.ref.remote)
        name = self._resolved[1] if self._resolved and self._resolved[0] == commit else ""
        mirror = self._mirror(remote)
        with self.store.lock(lock_name(mirror.name)):
            self._have(remote, git, commit, name, mirror, step)
            return _committed_s(git, mirror, commit)

    # --- resolving --------------------------------------------------------------------------------------

    def _resolve(self, step: Step) -> tuple[str, str]:
        if self._resolved is not None:
            return self._resolved
        wanted = check_ref(self.ref.ref) or "HEAD"
        if self.ref.fetch_by_commit:
            if not is_commit(self.ref.checksum):
                raise InvalidValue(
                    f"fetch-by-commit of {self.ref.display} needs a whole commit as its checksum"
                )
            wanted = self.ref.checksum
        tag = ""
        if is_commit(wanted):
            found = (wanted, "")
        else:
            commit, name, tag = self._look_up(wanted, step)
            found = (commit, name)
        if self.ref.checksum and not any(name.startswith(self.ref.checksum) for name in (found[0], tag)):
            raise SourceUnavailable(
                f"expected checksum to match {self.ref.checksum}, got {found[0]}", code="checksum-mismatch"
            )
        self._resolved = found
        return found

    def _look_up(self, wanted: str, step: Step) -> tuple[str, str, str]:
        """The commit, the ref that names it, and what that ref holds: the commit or a tag object (SGI-07)."""
        remote, git = self._remote(self.ref.remote)
        try:
            out = git.run(
                ["ls-remote", "--", remote, wanted, f"{wanted}^{{}}"], cwd=self.store.root, step=step
            ).decode("utf-8", "surrogateescape")
        except GitFailed as error:
            private = any(
                text in error.output for text in ("could not read Username", "Authentication failed")
            )
            raise SourceUnavailable(
                f"failed to fetch remote {self.ref.display}",
                hint="does it exist? a private one needs --secret id=GIT_AUTH_TOKEN,…" if private else None,
                code="git-failed",
            ) from error
        refs: dict[str, str] = {}
        for line in out.splitlines():
            value, _, name = line.partition("\t")
            if is_commit(value):
                refs[name] = value
        names = [wanted] if wanted == "HEAD" or wanted.startswith("refs/") else []
        names += [f"refs/{wanted}", f"refs/heads/{wanted}", f"refs/tags/{wanted}"]
        for name in names:
            if name in refs:
                return refs.get(f"{name}^{{}}", refs[name]), name, refs[name]
        raise SourceUnavailable(
            f"repository does not contain ref {wanted}, output: {out[:500]!r}",
            context=(f"in {self.ref.display}",),
            hint="a commit is found by its whole id only" if _SHORT_ID.fullmatch(wanted) else None,
            code="git-no-such-ref",
        )

    def _remote(self, remote: str) -> tuple[str, Git]:
        """The remote as git may get it, and git set up with the credentials for its host."""
        bare, credentials = split_credentials(check_remote(remote))
        authorization = basic(unquote(credentials)) if credentials else ""
        origin = ""
        if bare.startswith(("http://", "https://")):
            parts = urlsplit(bare)
            origin = f"{parts.scheme}://{parts.netloc}/"
            own, credentials = split_credentials(check_remote(self.ref.remote))
            if not authorization and credentials and own.startswith(origin):  # a submodule's
                authorization = basic(unquote(credentials))
            authorization = authorization or self._authorization(parts.hostname or "")
        git = Git(
            authorization=authorization,
            origin=origin,
            ssh_socket=self.ssh_socket,
            known_hosts=self.known_hosts,
            proxy_env=self.proxy_env,
        )
        return bare, git

    def _authorization(self, host: str) -> str:
        own = self.ref.host == host
        for suffix in (f".{host}", "" if own else None):
            if suffix is None:
                continue
            if header := self.tokens.get(f"GIT_AUTH_HEADER{suffix}"):
                return header.strip()
            if token := self.tokens.get(f"GIT_AUTH_TOKEN{suffix}"):
                return basic(f"x-access-token:{token.strip()}")
        return ""

    # --- fetching ---------------------------------------------------------------------------------------

    def _take(
        self, remote: str, git: Git, commit: str, name: str, dest: Path, step: Step, depth: int
    ) -> None:
        mirror = self._mirror(remote)
        with self.store.lock(lock_name(mirror.name)):
            try:
                self._have(remote, git, commit, name, mirror, step)
            except Cancelled:
                _tidy(mirror)
                raise
            _write_tree(git, mirror, commit, dest)
            modules = submodules_of(git, mirror, commit, remote) if self.ref.submodules else ()
        for module in modules:
            self._take_submodule(module, dest, step, depth)

    def _take_submodule(self, module: Submodule, dest: Path, step: Step, depth: int) -> None:
        self._count += 1
        if depth >= MAX_DEPTH or self._count > MAX_SUBMODULES:
            raise SourceUnavailable(f"too many submodules in {self.ref.display}", code="git-refused")
        remote, git = self._remote(module.remote)
        with ContextTree(dest) as tree:
            place = tree.lstat(module.path)
            if place is None or not stat.S_ISDIR(place.st_mode) or tree.scandir(module.path):
                raise SourceUnavailable(
                    f"submodule {module.path!r} has no empty directory to go to", code="git-refused"
                )
        os.rmdir(dest / module.path)
        self._take(remote, git, module.commit, "", dest / module.path, step, depth + 1)

    def _mirror(self, remote: str) -> Path:
        return self.store.root / "git" / hashlib.sha256(remote.encode()).hexdigest()

    def _have(self, remote: str, git: Git, commit: str, name: str, mirror: Path, step: Step) -> None:
        """Make sure that ``commit`` is in the mirror (SGI-03)."""
        if not (mirror / "HEAD").exists():
            mirror.mkdir(parents=True, exist_ok=True)
            form = "sha256" if len(commit) == 64 else "sha1"
            git.run(
                ["init", "-q", "--bare", "--template=", f"--object-format={form}", "--", str(mirror)],
                cwd=mirror,
            )
        note_use(mirror, remote)
        _tidy(mirror)
        if _has(git, mirror, commit):
            git.run(["update-ref", _KEPT + commit, commit], cwd=mirror, git_dir=mirror)
            return
        step.status(f"fetching {self.ref.display}")
        tries = [f"+{name}:refs/pybuild/last"] if name else []
        tries.append(f"+{commit}:refs/pybuild/last")
        said = ""
        for spec in tries:
            said = _fetch(git, mirror, remote, [spec]) or said
            if _has(git, mirror, commit):
                break
        else:
            said = _fetch_all(git, mirror, remote) or said
        if not _has(git, mirror, commit):
            if name:
                raise SourceUnavailable(
                    f"fetched ref {name} does not match expected commit {commit} "
                    "and commit can not be found in the repository",
                    code="git-failed",
                )
            raise SourceUnavailable(
                f"failed to fetch remote {remote}: commit {commit} not found",
                context=(said[-1000:],) if said else (),
                code="git-failed",
            )
        git.run(["update-ref", _KEPT + commit, commit], cwd=mirror, git_dir=mirror)
        step.status(f"fetching {self.ref.display}", done=True)

    # --- afterwards -------------------------------------------------------------------------------------

    def _write_git_dir(
        self, remote: str, remote_git: Git, commit: str, name: str, dest: Path, step: Step
    ) -> None:
        """A ``.git`` of its own: the commit, HEAD on the ref, the origin without credentials (SGI-04)."""
        git = Git()
        mirror = self._mirror(remote)
        inside = dest / ".git"
        form = "sha256" if len(commit) == 64 else "sha1"
        with self.store.lock(lock_name(mirror.name)):
            self._have(remote, remote_git, commit, name, mirror, step)
            git.run(["init", "-q", "--template=", f"--object-format={form}", "--", str(dest)], cwd=dest)
            spec = f"+{_KEPT}{commit}:refs/pybuild"
            fetch = ["fetch", "-q", "--depth=1", "--no-tags", "--", f"file://{mirror}", spec]
            git.run(fetch, cwd=dest, git_dir=inside, step=step, local=True)
        git.run(["config", "remote.origin.url", remote], cwd=dest, git_dir=inside)
        if name.startswith("refs/heads/"):
            git.run(["update-ref", name, commit], cwd=dest, git_dir=inside)
            git.run(["symbolic-ref", "HEAD", name], cwd=dest, git_dir=inside)
        else:
            git.run(["update-ref", "--no-deref", "HEAD", commit], cwd=dest, git_dir=inside)
        git.run(["update-ref", "-d", "refs/pybuild"], cwd=dest, git_dir=inside)
        git.run(["read-tree", commit], cwd=dest, git_dir=inside)
        (inside / "FETCH_HEAD").unlink(missing_ok=True)


def _set_times(dest: Path, when: int) -> None:
    for base, dirs, names in os.walk(dest):
        for one in (*dirs, *names):
            os.utime(os.path.join(base, one), (when, when), follow_symlinks=False)
    os.utime(dest, (when, when))


def subdirectory(root: Path, subdir: str, shown: str) -> Path:
    """The directory ``subdir`` of a checkout, links resolved inside it; raises SourceUnavailable."""
    if not subdir:
        return root
    with ContextTree(root) as tree:
        try:
            inside = tree.resolve(subdir)
            st = tree.lstat(inside)
        except PathNotFound:
            inside, st = subdir, None
    if st is None or not stat.S_ISDIR(st.st_mode):
        raise SourceUnavailable(
            f"subdirectory {subdir!r} not found in {shown}"
            if st is None
            else f"subdirectory {subdir!r} of {shown} is not a directory",
            code="git-no-such-subdir",
        )
    return root / inside if inside else root


def _committed_s(git: Git, mirror: Path, commit: str) -> int:
    out = git.run(["show", "-s", "--format=%ct", commit], cwd=mirror, git_dir=mirror)
    return int(out.split()[-1])


def _has(git: Git, mirror: Path, commit: str) -> bool:
    try:
        git.run(["cat-file", "-e", f"{commit}^{{tree}}"], cwd=mirror, git_dir=mirror)
    except GitFailed:
        return False
    return True


def _tidy(mirror: Path) -> None:
    """Remove what a git that was killed has left; the caller holds the mirror's lock."""
    for stale in ("shallow.lock", "index.lock", "config.lock", "HEAD.lock", "packed-refs.lock"):
        (mirror / stale).unlink(missing_ok=True)
    for begun in mirror.glob("objects/pack/tmp_*"):
        begun.unlink(missing_ok=True)


def _fetch(git: Git, mirror: Path, remote: str, specs: list[str]) -> str:
    """Fetch shallowly, or whole where the server cannot do that; "" or what git complained about."""
    try:
        git.run(["fetch", "-q", "--depth=1", *_common(remote, specs)], cwd=mirror, git_dir=mirror)
    except GitFailed as error:
        if "shallow" not in error.output:
            return error.output
    else:
        return ""
    try:
        git.run(["fetch", "-q", *_common(remote, specs)], cwd=mirror, git_dir=mirror)
    except GitFailed as error:
        return error.output
    return ""


def _fetch_all(git: Git, mirror: Path, remote: str) -> str:
    """All branches and tags with their history: for a commit that the server does not give by name."""
    specs = ["+refs/heads/*:refs/pybuild/heads/*", "+refs/tags/*:refs/pybuild/tags/*"]
    deepen = ["--unshallow"] if (mirror / "shallow").exists() else []
    try:
        git.run(["fetch", "-q", *deepen, *_common(remote, specs)], cwd=mirror, git_dir=mirror)
    except GitFailed as error:
        return error.output
    return ""


def _common(remote: str, specs: list[str]) -> list[str]:
    options = ["--no-tags", "--force", "--no-write-fetch-head", "--no-recurse-submodules"]
    return [*options, "--", remote, *specs]


def _write_tree(git: Git, mirror: Path, commit: str, dest: Path) -> None:
    """The files of a commit, without a repository around them."""
    if not is_commit(commit):
        raise InvalidValue(f"invalid git commit {commit[:100]!r}")
    dest.mkdir(mode=0o755)
    dest.chmod(0o755)
    index = mirror / f"index-{os.getpid()}-{os.urandom(4).hex()}"
    env = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(dest)}
    try:
        git.run(["read-tree", f"{commit}^{{tree}}"], cwd=dest, git_dir=mirror, env=env)
        git.run(["checkout-index", "-q", "--all", "--force"], cwd=dest, git_dir=mirror, env=env)
    finally:
        index.unlink(missing_ok=True)
        Path(f"{index}.lock").unlink(missing_ok=True)
