"""What a step takes of this machine beyond its namespaces: devices, and an emulator for foreign programs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from builder.cache.tree import View
from builder.errors import SolveError
from builder.frontend.devices import REQUIRED
from builder.oci.config import DEFAULT_PATH
from builder.oci.platform import Platform, host_platform, normalize
from builder.solver.reporter import Reporter
from runtime import cdi, emulation
from runtime.spec import BindMount, Device, Mount

EMULATOR = "/dev/.buildkit_qemu_emulator"


@dataclass(frozen=True, slots=True)
class Emulation:
    """An emulator of this machine, to be put before a command."""

    path: str

    @property
    def mount(self) -> Mount:
        """The emulator, visible inside."""
        return BindMount(target=EMULATOR, source=self.path, readonly=True, nosuid=True, nodev=True)

    def args(self, args: tuple[str, ...], env: tuple[str, ...], tree: Callable[[], View]) -> tuple[str, ...]:
        """The command line with the emulator; it takes a path, so a bare name is looked up in the root."""
        name = args[0]
        if "/" not in name:
            with tree() as view:
                name = _lookup(name, env, view) or name
        return (EMULATOR, "-0", args[0], name, *args[1:])

    def hint(self, platform: Platform) -> str:
        """What to say when the command failed: only the first program is emulated this way."""
        return (
            f"{platform} was emulated with {self.path}, which runs only the first program of a step; for "
            "those that it starts, register it with binfmt_misc (Debian: apt install binfmt-support)"
        )

    def warning(self, platform: Platform) -> str:
        """What to say before the step: it may well do only half of what it should."""
        return (
            f"RUN: {self.path} runs this step's first program for {platform}, but not those that it starts; "
            "register it with binfmt_misc, or build rootless (Linux 6.7 or later)"
        )


def _lookup(name: str, env: tuple[str, ...], view: View) -> str | None:
    path = next((item.partition("=")[2] for item in env if item.startswith("PATH=")), DEFAULT_PATH)
    for directory in path.split(":"):
        inside = f"{directory.strip('/')}/{name}".lstrip("/")
        found = view.lstat(view.resolve(inside))
        if found is not None and found.st_mode & 0o111:
            return f"/{inside}"
    return None


def emulation_for(platform: Platform | None, search_path: str) -> Emulation | None:
    """How to run programs of ``platform``; None when the kernel does. Raises SolveError when nothing can.

    A rootless build lets the kernel do it with an emulator, for its own steps alone.
    """
    if platform is None or platform.os != "linux":
        return None
    host, wanted = host_platform(), normalize(platform)
    arch = wanted.architecture
    if arch == host.architecture:
        _check_level(wanted)
        return None
    if emulation.is_native(host.architecture, arch) or emulation.is_registered(arch):
        return None
    path = emulation.find_emulator(arch, search_path)
    if path is not None and emulation.is_static(path):
        from runtime.binfmt import register_here

        return None if register_here(arch, path) else Emulation(path)
    hint = "cross-compile in a stage that is FROM --platform=$BUILDPLATFORM"
    if arch in emulation.MACHINES:
        hint = f"install an emulator (Debian: apt install qemu-user-static binfmt-support), or {hint}"
    names = ", ".join(map(str, supported_platforms(search_path, host)))
    raise SolveError(
        f"no support for running processes with {wanted} platform, supported: {names}",
        code="platform-unsupported",
        hint=hint,
    )


def _check_level(wanted: Platform) -> None:
    """amd64/v3 and the like need a processor that is new enough."""
    if wanted.architecture != "amd64" or not wanted.variant.startswith("v"):
        return
    level = emulation.cpu_level()
    if wanted.variant[1:].isdigit() and int(wanted.variant[1:]) > level:
        names = [f"linux/amd64/v{n}" if n > 1 else "linux/amd64" for n in range(level, 0, -1)]
        raise SolveError(
            f"no support for running processes with {wanted} platform, supported: {', '.join(names)}",
            code="platform-unsupported",
        )


def supported_platforms(search_path: str, host: Platform | None = None) -> tuple[Platform, ...]:
    """The platforms whose programs run here, this machine's own first (FRM-15)."""
    host = host or host_platform()
    found = [host]
    for arch in sorted(emulation.MACHINES):
        if arch == host.architecture:
            continue
        if emulation.runs(arch) or emulation.find_emulator(arch, search_path) is not None:
            found.append(normalize(Platform("linux", arch)))
    return tuple(found)


def device_edits(
    requests: tuple[str, ...], aliases: Mapping[str, str], dirs: tuple[str, ...], reporter: Reporter
) -> cdi.Edits:
    """What the requested devices bring (EXE-29). Raises SolveError for one that is needed and not here."""
    if not requests:
        return cdi.Edits()
    registry = cdi.Registry(dirs)
    wanted: dict[str, cdi.CdiDevice] = {}
    for request in requests:
        name = request.removesuffix(REQUIRED)
        found = registry.find(aliases.get(name, name))
        wanted.update((device.name, device) for device in found)
        if not found and request != name:
            raise SolveError(
                f"required device {name} is not registered",
                context=tuple(registry.unread),
                hint=_known_hint(registry, dirs),
                code="device-not-found",
            )
    try:
        edits = registry.edits(wanted.values())
    except ValueError as error:
        raise SolveError(str(error), code="bad-device-spec") from error
    if edits.hooks:
        reporter.warn(f"RUN: {edits.hooks} hooks of {', '.join(wanted)} are not run")
    return edits


def insecure_devices() -> tuple[Device, ...]:
    """What an insecure step finds in /dev beside the standard nodes, if this machine has it (EXE-09)."""
    names = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control", *(f"loop{n}" for n in range(8))]
    found = []
    for name in names:
        path = f"/dev/{name}"
        try:
            info = os.stat(path)
        except OSError:
            continue
        block = stat.S_ISBLK(info.st_mode)
        if not block and not stat.S_ISCHR(info.st_mode):
            continue
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        found.append(Device(path=path, type="b" if block else "c", major=major, minor=minor, mode=0o660))
    return tuple(found)


def _known_hint(registry: cdi.Registry, dirs: tuple[str, ...]) -> str:
    if registry.devices:
        return f"known devices: {', '.join(sorted(registry.devices)[:10])}"
    return f"there is no CDI specification in {' or '.join(dirs)}"
