"""Extra privileges: what the user grants with ``--allow``, what the steps of a build ask for (ENT-01…03)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from builder.errors import SolveError, UsageError
from builder.frontend.devices import REQUIRED
from builder.frontend.errors import suggestion
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import ExecOp
from builder.solver.planning import attribute
from runtime.cdi import AUTO_ALLOW, CdiDevice, Registry

NAMES = ("network.host", "security.insecure", "device")
_WITHOUT_EFFECT = ("fs", "fs.read", "fs.write", "ssh")
"""Known to other builders; nothing is restricted that they would grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """``names`` are entitlements; ``devices`` the devices granted one by one, by what a step may call them.

    A granted ``device`` without a name grants all.
    """

    names: frozenset[str] = frozenset()
    devices: dict[str, str] = field(default_factory=dict)

    def real_name(self, device: str) -> str:
        """The device that a step means (``--allow device=NAME,alias=OTHER``)."""
        return self.devices.get(device, device)


def granted(items: Iterable[str], *, network: str = "", forbidden: Iterable[str] = ()) -> Granted:
    """Read ``--allow`` values, cut at commas or not; raises UsageError.

    A build that is told to use the host's network has the right to. What is ``forbidden`` by this machine's
    configuration cannot be granted: an entitlement, all devices (``device``) or one (``device=NAME``).
    """
    names = {"network.host"} if network == "host" else set()
    devices: dict[str, str] = {}
    last = ""
    for item in (part.strip() for text in items for part in text.split(",")):
        name, equals, value = item.partition("=")
        if name == "alias" and equals and last:
            devices[value] = last
        elif name == "device" and value:
            devices[value], last = value, value
        elif name in NAMES and not equals:
            names.add(name)
        elif name not in _WITHOUT_EFFECT:
            hint = suggestion(name, NAMES).strip(" ()")
            raise UsageError(f"unknown entitlement {item}", hint=hint or f"known are {', '.join(NAMES)}")
    _check_forbidden(names, devices, frozenset(forbidden))
    return Granted(names=frozenset(names), devices=devices)


def _check_forbidden(names: set[str], devices: dict[str, str], forbidden: frozenset[str]) -> None:
    asked = [*sorted(names), *(f"device={real}" for real in devices.values())]
    for item in asked:
        if item in forbidden or item.partition("=")[0] in forbidden:
            raise UsageError(
                f"granting entitlement {item} is not allowed by build daemon configuration",
                hint="entitlements.deny of the configuration file says so",
                code="entitlement-forbidden",
            )


def check(definitions: Iterable[Definition], grant: Granted, cdi_dirs: Iterable[str]) -> None:
    """Raise SolveError for the first step that asks for more than was granted (ENT-02)."""
    registry: Registry | None = None
    for definition in definitions:
        for vertex in definition.vertices:
            op = vertex.op
            if not isinstance(op, ExecOp):
                continue
            if op.network == "host" and "network.host" not in grant.names:
                raise _refused("network.host", vertex)
            if op.security == "insecure" and "security.insecure" not in grant.names:
                raise _refused("security.insecure", vertex)
            if op.devices and "device" not in grant.names:
                registry = registry or Registry(cdi_dirs)
                _check_devices(op.devices, grant, registry, vertex)


def _refused(name: str, vertex: Vertex) -> SolveError:
    error = SolveError(
        f"failed to load LLB: {name} is not allowed",
        code="entitlement-needed",
        hint=f"grant it for this build with --allow {name}",
    )
    return attribute(error, vertex)


def _is_granted(device: CdiDevice, grant: Granted) -> bool:
    return device.name in grant.devices or device.note(AUTO_ALLOW).lower() in ("1", "true")


def _check_devices(requests: tuple[str, ...], grant: Granted, registry: Registry, vertex: Vertex) -> None:
    """A device that is not on this machine is no question of rights."""
    refused: list[str] = []
    for request in requests:
        name = request.removesuffix(REQUIRED)
        found = registry.find(name)
        if name not in grant.devices and not (found and all(_is_granted(item, grant) for item in found)):
            refused.append(name)
    if not refused:
        return
    said = f"devices {', '.join(refused)} are" if len(refused) > 1 else f"device {refused[0]} is"
    raise attribute(
        SolveError(
            f"{said} requested by the build but not allowed",
            code="entitlement-needed",
            hint="grant it for this build with " + " ".join(f"--allow device={name}" for name in refused),
        ),
        vertex,
    )
