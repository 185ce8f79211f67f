"""RUN --device, --security and --network with their grants (rows RUN-06…08, EXE-09, EXE-29, ENT-02)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.local import LazyMachine
from builder.errors import SolveError, UsageError
from tests.support.buildlab import Lab

pytestmark = pytest.mark.root


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    (tmp_path / "cdi").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/lib").write_text("library\n")
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "example.com/gpu",
        "devices": [
            {
                "name": "zero",
                "containerEdits": {
                    "env": ["GPU=zero"],
                    "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero", "fileMode": 438}],
                    "mounts": [
                        {"hostPath": f"{tmp_path}/shared", "containerPath": "/gpu", "options": ["ro"]}
                    ],
                },
            },
            {
                "name": "free",
                "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
                "containerEdits": {"env": ["GPU=free"]},
            },
        ],
    }
    (tmp_path / "cdi/gpu.json").write_text(json.dumps(spec))
    made._machine = LazyMachine(cdi_dirs=(str(tmp_path / "cdi"),))
    yield made
    made.close()


USE = "RUN --device={} echo $GPU > /out; head -c 3 /dev/gpu0 | wc -c >> /out; cat /gpu/lib >> /out\n"


@pytest.mark.parametrize(
    ("name", "allow"),
    [
        ("example.com/gpu=zero", ("device",)),
        ("example.com/gpu=zero,required", ("device=example.com/gpu=zero",)),
        ("mine", ("device=example.com/gpu=zero", "alias=mine")),
    ],
)
def test_a_device_with_its_variables_nodes_and_mounts(lab: Lab, name: str, allow: tuple[str, ...]) -> None:
    built = lab.quick("FROM busybox\n" + USE.format(name), allow=allow)
    assert built.read("out") == "zero\n3\nlibrary\n"
    assert not built.has("gpu")


def test_a_device_must_be_granted_before_anything_runs(lab: Lab) -> None:
    text = "FROM busybox\nRUN touch /ran\n" + USE.format("example.com/gpu=zero")
    message = "device example.com/gpu=zero is requested by the build but not allowed"
    with pytest.raises(SolveError, match=message) as caught:
        lab.quick(text)
    assert caught.value.first_line == 3
    assert lab.steps_run() == []
    with pytest.raises(SolveError, match=r"devices a\.b/c=d, e\.f/g=h are requested"):
        lab.quick("FROM busybox\nRUN --device=a.b/c=d --device=e.f/g=h true\n", allow=("device=x.y/z=a",))
    built = lab.quick("FROM busybox\nRUN --device=example.com/gpu=free echo $GPU > /out\n")
    assert built.read("out") == "free\n"


def test_a_device_that_is_not_here(lab: Lab) -> None:
    with pytest.raises(
        SolveError, match=r"required device example\.com/gpu=none is not registered"
    ) as caught:
        lab.quick("FROM busybox\nRUN --device=example.com/gpu=none,required true\n", allow=("device",))
    assert "example.com/gpu=zero" in str(caught.value.hint)
    assert lab.quick("FROM busybox\nRUN --device=example.com/gpu=none echo a > /a\n", allow=("device",)).has(
        "a"
    )


def test_grants_are_asked_for_before_anything_runs(lab: Lab) -> None:
    for flag, name in (("--network=host", "network.host"), ("--security=insecure", "security.insecure")):
        with pytest.raises(SolveError, match=f"failed to load LLB: {name} is not allowed") as caught:
            lab.quick(f"FROM busybox\nRUN touch /first\nRUN {flag} true\n")
        assert (caught.value.first_line, lab.steps_run()) == (3, [])
        assert str(caught.value.hint).endswith(f"--allow {name}")
    with pytest.raises(UsageError, match="unknown entitlement everything"):
        lab.quick("FROM busybox\n", allow=("everything",))


def test_an_insecure_step_has_the_devices_of_the_machine(lab: Lab) -> None:
    text = (
        "FROM busybox\nRUN --security=insecure test -c /dev/kmsg && mount -t tmpfs none /mnt && touch /ok\n"
    )
    assert lab.quick("FROM busybox\nRUN mkdir -p /mnt\n" + text[13:], allow=("security.insecure",)).has("ok")
