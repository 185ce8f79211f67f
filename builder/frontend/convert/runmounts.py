"""The mounts of one RUN → mounts of its exec op (section 8 of the rows)."""

from __future__ import annotations

from builder.frontend.convert.graph import Draft, Inputs, Tree, file_op
from builder.frontend.convert.state import StageState, Wanted
from builder.frontend.errors import BadFlag, DockerfileError
from builder.frontend.instructions import Run
from builder.frontend.mounts import MountSpec, locate_mount, parse_mount
from builder.frontend.parts import field
from builder.frontend.paths import absolute, base_name, clean
from builder.llb.definition import VertexMeta
from builder.llb.ops import ChownOpt, MkDir, Mount, SecretEnv, Sharing, UserOpt

CACHE_ROOT = "/cache"


class RunMounts:
    """Collects mounts, and what else they bring: secret variables and the ssh agent's socket."""

    def __init__(self, stage: StageState, instruction: Run, inputs: Inputs) -> None:
        self.stage = stage
        self.instruction = instruction
        self.inputs = inputs
        self.secret_env: list[SecretEnv] = []
        self.agent = ""
        self._agents = 0
        self._mounts: list[Mount] = []

    def add(self, index: int, text: str, source: str) -> None:
        """One ``--mount``, the ``index``-th of its instruction; raises DockerfileError."""
        at = self.instruction.at
        try:
            spec = parse_mount(text, lambda value: self.stage.expand(value, at))
            match spec.type:
                case "secret":
                    self._secret(spec)
                case "ssh":
                    self._ssh(spec)
                case "tmpfs":
                    self.put(Mount(dest=self._target(spec), type="tmpfs", size_bytes=spec.size_bytes))
                case "cache":
                    self._cache(spec, source)
                case _:
                    self._bind(spec, source)
        except DockerfileError as error:
            locate_mount(error, index)
            raise

    def put(self, mount: Mount) -> None:
        """A mount as it is."""
        self._mounts.append(mount)

    def sorted(self) -> tuple[Mount, ...]:
        """By target, so that parents come first (MNT-17)."""
        return tuple(sorted(self._mounts, key=lambda mount: mount.dest))

    def _target(self, spec: MountSpec) -> str:
        """MNT-04."""
        target = absolute(self.stage.workdir, spec.target)
        if target == "/":
            raise BadFlag(f'invalid mount target "{spec.target}"', part=field("target"))
        return target

    def _origin(self, spec: MountSpec, source: str, selector: str) -> Tree:
        """The tree that a bind or cache mount shows; a local one is asked for ``selector`` only."""
        if source:
            found = self.stage.sources[source]
            if found.local is not None and found.tree is found.local.draft:
                found.local.want(selector)
            return found.tree
        if spec.type == "cache":
            return None
        draft, local = self.stage.build.main_context()
        if local is not None:
            local.want(selector)
        return draft

    def _bind(self, spec: MountSpec, source: str) -> None:
        selector = absolute("/", spec.source)
        mount = Mount(
            dest=self._target(spec),
            input=self.inputs.position(self._origin(spec, source, selector)),
            selector="" if selector == "/" else selector,
            readonly=spec.readonly,
        )
        self.put(mount)

    def _cache(self, spec: MountSpec, source: str) -> None:
        """MNT-07…09."""
        target = self._target(spec)
        selector = absolute("/", spec.source)
        tree = self._origin(spec, source, selector)
        if (spec.mode, spec.uid, spec.gid) != (None, None, None) and not spec.source:
            tree, selector = self._cache_root(spec, tree), CACHE_ROOT
        namespace = self.stage.build.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        name = f"{namespace}/{spec.id or clean(spec.target)}"
        sharing: dict[str, Sharing] = {"private": "private", "locked": "locked"}
        mount = Mount(
            dest=target,
            type="cache",
            input=self.inputs.position(tree),
            selector="" if selector == "/" else selector,
            readonly=spec.readonly,
            id=name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
            sharing=sharing.get(spec.sharing, "shared"),
        )
        self.put(mount)

    def _cache_root(self, spec: MountSpec, tree: Tree) -> Tree:
        owner = ChownOpt(user=UserOpt(id=spec.uid or 0), group=UserOpt(id=spec.gid or 0))
        action = MkDir(path=CACHE_ROOT, mode=0o755 if spec.mode is None else spec.mode, owner=owner)
        op, inputs = file_op(tree, [(action, None)])
        meta = VertexMeta(name="[internal] setting cache mount permissions")
        return Draft(op, inputs.tuple(), meta)

    def _secret(self, spec: MountSpec) -> None:
        """MNT-12."""
        optional = not spec.required
        name = spec.id or base_name(spec.target)
        if not name:
            raise BadFlag("invalid secret mount. one of source, target required")
        self.stage.wanted.append(Wanted("secret", name, spec.required, self.instruction.at.span))
        if spec.env is not None:
            self.secret_env.append(SecretEnv(id=name, name=spec.env or name, optional=optional))
            if not spec.target:
                return
        target = spec.target or f"/run/secrets/{base_name(name)}"
        mount = Mount(
            dest=absolute(self.stage.workdir, target),
            type="secret",
            readonly=True,
            id=name,
            uid=spec.uid or 0,
            gid=spec.gid or 0,
            mode=0o400 if spec.mode is None else spec.mode,
            optional=optional,
        )
        self.put(mount)

    def _ssh(self, spec: MountSpec) -> None:
        """MNT-15."""
        target = spec.target or f"/run/buildkit/ssh_agent.{self._agents}"
        self._agents += 1
        target = absolute(self.stage.workdir, target)
        self.agent = self.agent or target
        span = self.instruction.at.span
        self.stage.wanted.append(Wanted("ssh", spec.id or "default", spec.required, span))
        mount = Mount(
            dest=target,
            type="ssh",
            readonly=True,
            id=spec.id or "default",
            uid=spec.uid or 0,
            gid=spec.gid or 0,
            mode=0o600 if spec.mode is None else spec.mode,
            optional=not spec.required,
        )
        self.put(mount)
