"""Several platforms in one build and programs for other processors (rows PLT-03, PLT-04, FRM-15, EXE-28)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.build.local import LazyMachine
from builder.cache.store import Store
from builder.errors import SolveError, StepFailed
from builder.exporter.types import OutputSpec
from builder.oci.platform import Platform
from builder.solver.ops.machine import EMULATOR
from runtime import emulation
from tests.support.buildlab import Built, Lab
from tests.support.registryd import RegistryDaemon

pytestmark = pytest.mark.root

CROSS = """
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETARCH
RUN echo for $TARGETARCH > /out
FROM scratch
COPY --from=build /out /out
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def test_cross_compiling_needs_no_emulator(lab: Lab, tmp_path: Path, registry: RegistryDaemon) -> None:
    lab._machine = LazyMachine(search_path=str(tmp_path))
    name = f"{registry.address}/multi:v1"
    result = lab.build(
        lab.context(),
        CROSS,
        platforms=("linux/amd64", "linux/arm64", "linux/s390x"),
        tags=(name,),
        outputs=(
            OutputSpec(type="image", push=True),
            OutputSpec(type="oci", dest=str(tmp_path / "out.tar")),
        ),
    )
    for platform in ("linux/amd64", "linux/arm64", "linux/s390x"):
        built = Built(lab, result, platform)
        assert str(built.config.platform) == platform
        assert built.read("out") == f"for {platform.partition('/')[2]}\n"
    with tarfile.open(tmp_path / "out.tar") as tar:
        listed = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
    assert listed["manifests"][0]["digest"] == result.digest
    with Store.open(tmp_path / "other") as other:
        pulled = images.pull_image(other, name, Platform("linux", "s390x"))
        assert str(pulled.digest) == result.digest
        assert pulled.image.config.platform.architecture == "s390x"
    assert sum("[linux/amd64 build 2/2]" in name for name in lab.steps_run()) == 1


def test_copying_only_needs_no_emulator(lab: Lab, tmp_path: Path) -> None:
    lab._machine = LazyMachine(search_path=str(tmp_path))
    result = lab.build(lab.context({"f": "F"}), "FROM scratch\nCOPY f /\n", platforms=("linux/riscv64",))
    assert Built(lab, result, "linux/riscv64").read("f") == "F"


def test_a_32_bit_program_is_run_by_the_kernel(lab: Lab, tmp_path: Path) -> None:
    if not emulation.is_native(Platform.parse("linux").architecture, "386"):
        pytest.skip("not an amd64 kernel with 32-bit programs")
    lab._machine = LazyMachine(search_path=str(tmp_path))
    context = lab.context()
    (context / "true").write_bytes(emulation.small_program("386"))
    (context / "true").chmod(0o755)
    lab.build(context, 'FROM scratch\nCOPY true /\nRUN ["/true"]\n', platforms=("linux/386",))
    assert lab.fresh()


def test_a_foreign_program_is_run_by_an_emulator_of_the_path(lab: Lab) -> None:
    context = lab.context()
    for name, code in (("true", None), ("seven", bytes.fromhex("e00080d2a80b80d2010000d4"))):
        (context / name).write_bytes(emulation.small_program("arm64", code))
        (context / name).chmod(0o755)
    text = 'FROM scratch\nCOPY true seven /bin/\nRUN ["/bin/true"]\nRUN ["true"]\n'
    result = lab.build(context, text, platforms=("linux/arm64",))
    built = Built(lab, result, "linux/arm64")
    assert not built.has(EMULATOR.strip("/"))
    assert not built.has("dev/.buildkit_qemu_emulator")
    if emulation.is_registered("arm64"):
        return
    with pytest.raises(StepFailed) as caught:
        lab.build(context, text + 'RUN ["seven"]\n', platforms=("linux/arm64",))
    assert caught.value.exit_code == 7
    assert "binfmt_misc" in str(caught.value.hint)


def test_without_an_emulator_the_platform_is_named(lab: Lab, tmp_path: Path) -> None:
    if emulation.is_registered("s390x"):
        pytest.skip("s390x is registered with binfmt_misc")
    lab._machine = LazyMachine(search_path=str(tmp_path))
    with pytest.raises(
        SolveError, match="no support for running processes with linux/s390x platform"
    ) as caught:
        lab.quick('FROM scratch\nRUN ["/x"]\n', platforms=("linux/s390x",))
    assert "qemu-user-static" in str(caught.value.hint)
    assert caught.value.first_line == 2


def test_an_image_for_another_platform_is_adopted_when_it_runs_here_frm_15(lab: Lab) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w"):
        pass
    images.import_(lab.store, io.BytesIO(data.getvalue()), "foreign:1", platform=Platform("linux", "arm64"))
    built = lab.quick("FROM foreign:1\nCOPY f /\n", {"f": ""})
    assert built.config.platform.architecture == "arm64"
