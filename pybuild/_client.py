"""``pybuild.Client``: a state directory that is open for builds, images and containers."""

from __future__ import annotations

import threading
from pathlib import Path as FilePath
from typing import Unpack

from builder.build.local import LazyMachine
from builder.build.report import BuildReport, find_report, reports
from builder.build.request import BuildResult
from builder.cache.store import Store
from builder.errors import Cancelled
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.progress import Event, OnEvent
from pybuild._build import BuildOptions, Context, Path, request_of
from pybuild._checks import BUILD, check_callable, check_kinds
from pybuild._containers import Containers
from pybuild._images import Images
from pybuild._settings import default_registries, default_root
from runtime.errors import NotPermitted


class Client:
    """One open state directory; a context manager, to be shared by any number of threads.

    ``root`` None means where the command line keeps its state. ``registry`` None means the credentials and
    settings that docker and podman use, read when a registry is first spoken to.
    """

    def __init__(self, root: Path | None = None, *, registry: RegistryConfig | None = None) -> None:
        _check_rights()
        check_kinds(BUILD, {"root": root})
        self._store = Store.open(FilePath(root) if root is not None else default_root())
        self._machine = LazyMachine()
        self._registry = registry
        self._lock = threading.Lock()
        self.images = Images(self._store, self.registries)
        self.containers = Containers(self._store, self.registries)

    @property
    def root(self) -> FilePath:
        """The state directory."""
        return self._store.root

    def close(self) -> None:
        """Release everything; containers go on."""
        self._machine.close()
        self._store.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def registries(self) -> RegistryConfig:
        """How registries are spoken to."""
        with self._lock:
            if self._registry is None:
                self._registry = default_registries()
            return self._registry

    def build(
        self,
        context: Context,
        *,
        on_event: OnEvent | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[BuildOptions],
    ) -> BuildResult:
        """Build an image. Raises PybuildError; StepFailed has the end of the step's output.

        ``context`` is a directory, a git or http(s) URL, or a mapping of relative paths to contents.
        ``on_event`` is told of all progress, from several threads; ``cancel.set()`` stops the build, which
        then raises Cancelled. The options:

        - ``dockerfile``: a path (of this machine, or in the context), or the text: bytes, or several lines
        - ``tags``, ``build_args``, ``labels``, ``target``, ``platforms``
        - ``outputs``: as in ``--output``; none = into the store. ``stdout`` takes those with ``dest=-``
        - ``secrets``: values by id. ``ssh``: agent sockets by id
        - ``build_contexts``: named contexts, as in ``--build-context``, or results of other builds
        - ``cache_from``, ``cache_to``: caches of other machines, as in ``--cache-from`` and ``--cache-to``
        - ``no_cache``: True, or the stages that must run anew; ``pull``: ask for newer bases
        - ``attest``: as ``--attest``; ``squash``, ``reproducible``
        - ``network``: "none" or "host"; ``allow``, ``extra_hosts``, ``limits``, ``ulimits``,
          ``shm_size_bytes``, ``max_parallelism``, ``keep_going``, ``retry`` as their flags;
          ``step_timeout`` in seconds
        - ``source_policies``: rules about which sources may be used, JSON as in ``--source-policy-file``
        - ``space``: limits on the build cache that hold while the build runs (``SpaceLimits``)
        - ``llb``: a definition in BuildKit's protobuf form that takes the place of the Dockerfile
        - ``build_id``: what to call the build in the history
        """
        from builder.build import build

        check_callable("on_event", on_event)
        check_kinds(BUILD, {"cancel": cancel})
        request = request_of(context, options, self.registries)
        cancel = cancel or Cancel()
        try:
            cancel.check()
            return build(
                self._store,
                request,
                on_event=on_event or _ignore,
                machine=self._machine.machine(),
                cancel=cancel,
            )
        except Cancelled:
            raise
        except Exception as error:
            if cancel.is_set:
                raise Cancelled("build cancelled") from error
            raise

    def explain(self, build_id: str = "") -> BuildReport:
        """Why the steps of a build ran: of the newest on record, or by id. Raises UsageError."""
        return find_report(self._store, build_id)

    def builds(self) -> tuple[BuildReport, ...]:
        """The builds on record, newest first."""
        return reports(self._store)


def _ignore(_: Event) -> None:
    pass


def _check_rights() -> None:
    """The command line enters a user namespace by starting anew; a library cannot do that to its user."""
    from runtime import rootless

    if rootless.needed():
        raise NotPermitted(
            "the Python API needs root, or to be root of a user namespace",
            hint="run the program as root, or use the pybuild command, which enters a namespace by itself",
        )
