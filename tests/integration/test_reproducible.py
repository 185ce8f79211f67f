"""The same input gives the same bytes (build-engine section 24)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.images import Archive, layer_names, read_oci

pytestmark = pytest.mark.root
EPOCH = "1700000000"
DOCKERFILE = """\
FROM busybox AS made
RUN mkdir -p /out/d && for n in 3 1 2; do echo $n > /out/d/f$n; done && ln -s f1 /out/d/link
FROM busybox
COPY --from=made /out /out
COPY . /ctx/
RUN echo x > /x && echo someone:x:9:9::: >> /etc/passwd
ENV A=1
"""


def context(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    for name in ("b", "a", "sub/c", "z-file", "z.file"):
        (path / name).write_text(name)
        os.utime(path / name, (1600000000, 1600000000))
    for name in ("sub", "."):
        os.utime(path / name, (1600000000, 1600000000))
    (path / "Dockerfile").write_text(DOCKERFILE)
    os.utime(path / "Dockerfile", (1600000000, 1600000000))
    os.utime(path, (1600000000, 1600000000))
    return path


def once(runner: Runner, busybox: Path, ctx: Path, out: Path, *flags: str, **env: str) -> Archive:
    runner.load(busybox)
    runner.build(ctx, *flags, env=env)
    return read_oci(out)


def test_two_machines_give_the_same_image(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    output = "type=oci,dest={},rewrite-timestamp=true"
    one = once(
        pybuild,
        busybox,
        context(tmp_path / "a"),
        first,
        "--output",
        output.format(first),
        SOURCE_DATE_EPOCH=EPOCH,
    )
    other = Runner(tmp_path / "elsewhere" / "root")
    old = os.umask(0o077)
    try:
        copied = tmp_path / "other" / "place"
        shutil.copytree(tmp_path / "a", copied)
        for base, dirs, names in os.walk(copied):
            for name in (*dirs, *names):
                os.utime(Path(base, name), (1600000000, 1600000000))
        flags = ("--no-cache", "--output", output.format(second))
        two = once(other, busybox, copied, second, *flags, SOURCE_DATE_EPOCH=EPOCH)
    finally:
        os.umask(old)
        other.clean()
    assert one.config == two.config
    assert one.layers == two.layers
    assert one.manifest_digest == two.manifest_digest
    assert first.read_bytes() == second.read_bytes()


def test_copied_layers_do_not_depend_on_when(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "a")
    (ctx / "Dockerfile").write_text("FROM scratch\nCOPY sub /sub\nCOPY a b /\n")
    found = []
    for name in ("1", "2"):
        out = tmp_path / f"{name}.tar"
        pybuild.build(ctx, "--no-cache", "--output", f"type=oci,dest={out}")
        found.append(read_oci(out))
    assert found[0].layers == found[1].layers


def test_entries_are_sorted(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "a")
    (ctx / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    out = tmp_path / "o.tar"
    pybuild.build(ctx, "--output", f"type=oci,dest={out}")
    (layer,) = read_oci(out).layers
    names = [name.strip("/") for name in layer_names(layer)]
    assert names == sorted(names, key=lambda name: name.split("/"))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_compression_is_repeatable(pybuild: Runner, busybox: Path, tmp_path: Path, compression: str) -> None:
    pybuild.load(busybox)
    ctx = context(tmp_path / "a")
    found = []
    for name in ("1", "2"):
        out = tmp_path / f"{name}.tar"
        runner = Runner(tmp_path / name / "root")
        runner.load(busybox)
        output = (
            f"type=oci,dest={out},compression={compression},rewrite-timestamp=true,force-compression=true"
        )
        runner.build(ctx, "--output", output, env={"SOURCE_DATE_EPOCH": EPOCH})
        found.append(read_oci(out).manifest_digest)
        runner.clean()
    assert found[0] == found[1]
