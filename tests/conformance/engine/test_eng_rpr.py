"""Reproducibility (RPR-01…RPR-04), ``--reproducible`` (BET-08) and ``--squash``."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ExportError, UsageError
from builder.exporter.rewrite import rewrite_layers
from builder.exporter.types import LayerRef, OutputSpec
from builder.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from builder.oci.digest import DiffId, Digest
from builder.solver.progress import StatusEvent
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = pytest.mark.root
EPOCH = 1_600_000_000
EARLY = "2020-09-13T12:26:40Z"
DOCKERFILE = "FROM busybox\nCOPY a /a\nRUN mkdir /d && echo x > /d/x && rm /etc/group\nENV A=b\n"


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": DOCKERFILE, "a": "a"})


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Lab]:
    """Another machine, as far as a store makes one."""
    found = Lab(tmp_path / "other")
    yield found
    found.close()


def members(lab: Lab, built: Built) -> list[tarfile.TarInfo]:
    """The entries of the layers that a build added."""
    found: list[tarfile.TarInfo] = []
    for layer in built.found.manifest.layers[1:]:
        with lab.store.blobs.open(layer.digest) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            found += tar.getmembers()
    return found


def image(spec: str) -> tuple[OutputSpec, ...]:
    return (OutputSpec.parse(f"type=image{spec}"),)


@row("RPR-01")
def test_where_the_epoch_comes_from(lab: Lab, context: Path) -> None:
    args = (("SOURCE_DATE_EPOCH", str(EPOCH)),)
    for outputs, wanted in ((image(",source-date-epoch=5"), "1970-01-01T00:00:05Z"), (image(""), EARLY)):
        built = Built(lab, lab.build(context, outputs=outputs, build_args=args))
        assert built.config.created == wanted
        base, *own = built.config.history
        assert {entry.created for entry in own} == {wanted}
        assert base.created is not None and base.created > EARLY, "the base's history is left alone"
    text = f"ARG SOURCE_DATE_EPOCH={EPOCH}\n{DOCKERFILE}"
    assert Built(lab, lab.build(context, dockerfile_data=text.encode())).config.created == EARLY
    later = Built(lab, lab.build(context, outputs=image(",source-date-epoch=4102444800")))
    assert later.config.created is not None and later.config.created < "2100", "clamped, not set"


@row("RPR-02")
def test_times_of_files(lab: Lab, context: Path) -> None:
    kept = Built(lab, lab.build(context, outputs=image(f",source-date-epoch={EPOCH}")))
    times = {member.name: member.mtime for member in members(lab, kept)}
    assert times["d/x"] > EPOCH, "as built"
    said = f"rewriting layers with source-date-epoch {EPOCH} ({EARLY})"
    assert said not in {event.id for event in lab.watcher.events if isinstance(event, StatusEvent)}
    spec = f",source-date-epoch={EPOCH},rewrite-timestamp=true"
    clamped = Built(lab, lab.build(context, outputs=image(spec)))
    assert said in {event.id for event in lab.watcher.events if isinstance(event, StatusEvent)}
    found = members(lab, clamped)
    assert max(member.mtime for member in found) == EPOCH
    assert not any({"atime", "ctime"} & set(member.pax_headers) for member in found)
    assert kept.found.manifest.layers[0] == clamped.found.manifest.layers[0], "the base's layer is left alone"
    old = lab.context({"Dockerfile": "FROM scratch\nCOPY --link a /a\n", "a": "a"})
    os.utime(old / "a", (5, 5))
    older = Built(lab, lab.build(old, outputs=image(spec)))
    with (
        lab.store.blobs.open(older.found.manifest.layers[0].digest) as file,
        tarfile.open(fileobj=file, mode="r:gz") as tar,
    ):
        assert tar.getmember("a").mtime == 5, "only newer ones"


@row("RPR-02", "BET-08")
def test_a_layer_that_cannot_be_rewritten_fails(lab: Lab) -> None:
    data = gzip.compress(b"\1" * 700)
    (digest,) = lab.store.blobs.put_many((data,))
    layer = LayerRef(
        diff_id=DiffId(Digest.of(b"")),
        descriptor=Descriptor(media_type=OCI_LAYER_GZIP, digest=digest, size=len(data)),
    )
    with pytest.raises(ExportError):
        rewrite_layers(lab.store, (layer,), EPOCH)


@row("RPR-03")
def test_two_machines(lab: Lab, other: Lab, context: Path) -> None:
    """Layers are equal to the byte; with the same base and config, so is the image."""
    spec = image(f",rewrite-timestamp=true,source-date-epoch={EPOCH}")
    results = [lab.build(context, outputs=spec, no_cache=True) for _ in range(2)]
    assert results[0].digest == results[1].digest
    one, two = Built(lab, results[0]), Built(other, other.build(context, outputs=spec))
    assert one.found.manifest.layers[1:] == two.found.manifest.layers[1:]
    for layer in two.found.manifest.layers[1:]:
        with other.store.blobs.open(layer.digest) as file:
            assert file.read(10)[4:8] == bytes(4), "gzip names no time"
    found = members(other, two)
    assert all((member.uname, member.gname) == ("", "") for member in found)
    run = [member.name for member in found[1:]]
    assert run == sorted(run)
    assert [member.mtime for member in found if ".wh." in member.name] == [0]


@row("RPR-04", "BET-08")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("RUN cat /proc/sys/kernel/random/uuid > /d/when", "/d/when (content)"),
        ("RUN touch /d/$(cat /proc/sys/kernel/random/uuid)", ", which only one has"),
    ],
)
def test_a_step_that_varies_is_found(lab: Lab, context: Path, line: str, told: str) -> None:
    with pytest.raises(ExportError) as caught:
        lab.build(
            context, dockerfile_data=f"{DOCKERFILE}{line}\nRUN echo y > /y\n".encode(), reproducible=True
        )
    assert caught.value.code == "not-reproducible"
    assert (
        f"layer 4 of 5 ({line.replace('RUN ', 'RUN /bin/sh -c ')} # buildkit) differs" in caught.value.message
    )
    assert told in caught.value.message


@row("BET-08")
def test_reproducible(lab: Lab, context: Path, tmp_path: Path) -> None:
    before = set((lab.store.root / "tmp").iterdir())
    result = lab.build(context, tags=("same",), reproducible=True)
    assert Built(lab, result).config.created == "1970-01-01T00:00:00Z"
    assert {member.mtime for member in members(lab, Built(lab, result))} == {0}
    with_epoch = lab.build(context, reproducible=True, build_args=(("SOURCE_DATE_EPOCH", str(EPOCH)),))
    assert Built(lab, with_epoch).config.created == EARLY
    spec = OutputSpec.parse(f"type=oci,dest={tmp_path / 'o.tar'}")
    lab.build(context, outputs=(spec,), reproducible=True, attest=("type=provenance",))
    base = lab.store.images.resolve("busybox")
    assert base is not None
    pinned = f"FROM busybox@{base.manifest.digest}\nRUN true\n"
    lab.build(context, dockerfile_data=pinned.encode(), reproducible=True)
    left = {
        path for path in set((lab.store.root / "tmp").iterdir()) - before if path.name.startswith("stage-")
    }
    assert not left
    for more in ({"context": "-"}, {"outputs": (OutputSpec.parse(f"type=local,dest={tmp_path / 'p'}"),)}):
        with pytest.raises(UsageError, match="--reproducible"):
            lab.build(**{"context": context, "reproducible": True, **more})


def test_the_flag(command: Runner, context: Path) -> None:
    assert "[internal] build again and compare" in command.build(context, "--reproducible").err


def test_squash(lab: Lab, context: Path) -> None:
    plain, squashed = (Built(lab, lab.build(context, squash=squash)) for squash in (False, True))
    assert (plain.layers, squashed.layers) == (3, 2)
    assert squashed.found.manifest.layers[0] == plain.found.manifest.layers[0]
    assert (squashed.read("a"), squashed.read("d/x"), squashed.has("etc/group")) == ("a", "x\n", False)
    assert squashed.config.env == plain.config.env
    assert squashed.config.history[-1].comment == "merge of 2 layers"
    assert [entry.empty_layer for entry in squashed.config.history] == [False, True, True, True, False]
    assert lab.build(context, squash=True).digest == squashed.result.digest
    assert lab.build(context).digest == plain.result.digest
    single: dict[str, Any] = {"dockerfile_data": b"FROM busybox\nRUN true\n"}
    assert lab.build(context, squash=True, **single).digest == lab.build(context, **single).digest
