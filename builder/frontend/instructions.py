"""One value per instruction, checked in form but not yet expanded.

These are named tuples rather than dataclasses: a file has hundreds of them, and a build that has nothing to
do should not spend its time on making classes.
"""

from __future__ import annotations

from typing import NamedTuple

from builder.frontend.lines import Heredoc
from builder.frontend.source import Span
from builder.oci.config import HealthCheck

Pairs = tuple[tuple[str, str], ...]

INSTRUCTION_NAMES = (
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
)


class Origin(NamedTuple):
    """Where an instruction stands: its lines, its name as typed, its joined text, the comments above it."""

    span: Span
    typed: str
    text: str
    comments: tuple[str, ...] = ()


class Command(NamedTuple):
    """A command line: ``shell`` form is one text for the current SHELL, exec form an argument list."""

    args: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


class From(NamedTuple):
    """FROM [--platform=P] image [AS stage]; ``stage`` is lower-cased, the ``…_typed`` are not."""

    at: Origin
    image: str
    stage: str = ""
    platform: str | None = None
    as_typed: str = ""
    stage_typed: str = ""


class Arg(NamedTuple):
    """ARG name[=default] …"""

    at: Origin
    items: tuple[tuple[str, str | None], ...]


class Env(NamedTuple):
    """ENV name=value …; ``legacy`` for ``ENV name value``."""

    at: Origin
    items: Pairs
    legacy: bool = False


class Label(NamedTuple):
    """LABEL name=value …"""

    at: Origin
    items: Pairs
    legacy: bool = False


class Run(NamedTuple):
    """RUN; ``mounts`` are texts (see ``mounts``), ``mount_sources`` their ``from`` names, "" for none."""

    at: Origin
    command: Command
    mounts: tuple[str, ...] = ()
    mount_sources: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


class Copy(NamedTuple):
    """COPY; ``sources`` leaves out the here-documents."""

    at: Origin
    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    from_: str = ""
    parents: bool = False


class Add(NamedTuple):
    """ADD; None = the flag is not given."""

    at: Origin
    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    keep_git_dir: bool | None = None
    checksum: str = ""
    unpack: bool | None = None


class Cmd(NamedTuple):
    """CMD"""

    at: Origin
    command: Command


class Entrypoint(NamedTuple):
    """ENTRYPOINT"""

    at: Origin
    command: Command


class Shell(NamedTuple):
    """SHELL ["…", …]"""

    at: Origin
    args: tuple[str, ...]


class Expose(NamedTuple):
    """EXPOSE port …, sorted as typed (MET-06)."""

    at: Origin
    ports: tuple[str, ...]


class Volume(NamedTuple):
    """VOLUME path …"""

    at: Origin
    paths: tuple[str, ...]


class User(NamedTuple):
    """USER user[:group]"""

    at: Origin
    user: str


class Workdir(NamedTuple):
    """WORKDIR path"""

    at: Origin
    path: str


class StopSignal(NamedTuple):
    """STOPSIGNAL name-or-number"""

    at: Origin
    signal: str


class Healthcheck(NamedTuple):
    """HEALTHCHECK"""

    at: Origin
    check: HealthCheck


class Maintainer(NamedTuple):
    """MAINTAINER name"""

    at: Origin
    name: str


class Onbuild(NamedTuple):
    """ONBUILD instruction; ``expression`` is its text, with here-documents attached (HDC-10)."""

    at: Origin
    expression: str
    trigger: Instruction


Instruction = (
    From
    | Arg
    | Env
    | Label
    | Run
    | Copy
    | Add
    | Cmd
    | Entrypoint
    | Shell
    | Expose
    | Volume
    | User
    | Workdir
    | StopSignal
    | Healthcheck
    | Maintainer
    | Onbuild
)
