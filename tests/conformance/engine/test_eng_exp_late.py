"""Builds that only push leave the layers of base images in their registry (EXP-14, SLV-09)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.build import history
from builder.build.request import BuildResult
from builder.cache.fsck import check
from builder.cache.store import Store
from builder.errors import SourceUnavailable
from builder.exporter.types import ImageResult, OutputSpec
from builder.oci.config import ImageConfig
from builder.oci.platform import Platform, host_platform
from builder.registry.hosts import RegistryConfig
from builder.remotecache.spec import parse_all
from builder.solver.progress import StatusEvent
from tests.support.buildlab import Built, Lab
from tests.support.machine import tool
from tests.support.registry import Fault, Registry, running_registry
from tests.support.registryd import RegistryDaemon
from tests.support.rows import row
from tests.support.storeimages import make_image

pytestmark = pytest.mark.root
BUSYBOX = Path("/bin/busybox").read_bytes()
EPOCH = (("SOURCE_DATE_EPOCH", "1700000000"),)
PLAIN = "FROM {}\nENV A=1\nLABEL b=2\nCMD true\n"
LINKED = "FROM {}\nCOPY --link f /f\nENV A=1\nCOPY --link g /g\n"
Base = Callable[..., ImageResult]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("late"))
    yield made
    assert check(made.store.root) == ()
    made.close()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    """Pushes an image of two layers, which only its registry has."""
    with Store.open(tmp_path / "publisher") as store:

        def pushed(name: str, **more: Any) -> ImageResult:
            layers = ({"bin/busybox": BUSYBOX, "etc/name": name.encode()}, {"etc/second": name.encode()})
            config = ImageConfig(platform=host_platform(), env=("PATH=/bin",))
            made = make_image(store, tmp_path, name, layers=layers, config=config, **more)
            images.push(store, name)
            return made

        yield pushed


@pytest.fixture
def memory() -> Iterator[Registry]:
    with running_registry() as running:
        running.host = running.host.replace("127.0.0.1", "localhost")
        yield running


@pytest.fixture
def other() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


def push(lab: Lab, text: str, target: str, attrs: str = "", **more: Any) -> BuildResult:
    more.setdefault("build_args", EPOCH)
    output = OutputSpec.parse(f'type=registry,"name={target}",store=false{attrs}')
    return lab.build(lab.context({"f": "linked", "g": "too"}), text, outputs=(output,), **more)


def layers(made: ImageResult) -> list[str]:
    return [str(layer.descriptor.digest) for layer in made.layers]


def fetched(registry: Registry, made: ImageResult) -> list[str]:
    """Which of the layers were asked for."""
    return [name for name in layers(made) if registry.count("GET", f"/blobs/{name}")]


def here(lab: Lab, made: ImageResult) -> int:
    return sum(lab.store.blobs.has(layer.descriptor.digest) for layer in made.layers)


def document(registry: Registry, repository: str, tag: str = "1") -> Any:
    return json.loads(registry.manifests[repository, registry.tags[repository, tag]][1])


def shown(lab: Lab) -> list[StatusEvent]:
    return [event for event in lab.watcher.events if isinstance(event, StatusEvent)]


@row("EXP-14", "SLV-09")
@pytest.mark.parametrize("text", [PLAIN, LINKED], ids=["metadata", "linked"])
def test_layers_that_the_target_mounts_are_not_downloaded(
    lab: Lab, registry: RegistryDaemon, base: Base, tmp_path: Path, text: str
) -> None:
    name = f"{registry.address}/late/{tmp_path.name}"
    made = base(f"{name}/base:1")
    before = len(registry.requests())
    result = push(lab, text.format(f"{name}/base:1"), f"{name}/app:1")
    asked = registry.requests()[before:]
    assert [line for line in asked if line.startswith("GET") and any(d in line for d in layers(made))] == []
    assert any(line.startswith("GET") for line in asked), "the log says what was asked"
    assert here(lab, made) == 0
    # others find the image as it should be
    kept = ("--src-tls-verify=false", f"docker://{name}/app:1", f"dir:{tmp_path}/copied")
    subprocess.run([tool("skopeo"), "--insecure-policy", "copy", *kept], check=True, capture_output=True)
    found = json.loads((tmp_path / "copied/manifest.json").read_bytes())
    digests = [layer["digest"] for layer in found["layers"]]
    assert digests[:2] == layers(made)
    assert len(digests) == (4 if text is LINKED else 2)
    # the same again: steps are cached, nothing comes and nothing goes
    before = len(registry.requests())
    assert push(lab, text.format(f"{name}/base:1"), f"{name}/app:1").digest == result.digest
    assert lab.steps_run() == []
    assert {line.split()[0] for line in registry.requests()[before:]} <= {"GET", "HEAD", "PUT"}
    assert not [line for line in registry.requests()[before:] if "/uploads/" in line]
    # and it is the image that comes of a base that is here
    images.pull(lab.store, f"{name}/base:1")
    assert push(lab, text.format(f"{name}/base:1"), f"{name}/again:1").digest == result.digest


@row("EXP-14", "SLV-09")
def test_what_is_shown_of_it(lab: Lab, memory: Registry, base: Base) -> None:
    name = f"{memory.host}/shown"
    made = base(f"{name}:1")
    push(lab, LINKED.format(f"{name}:1"), f"{memory.host}/app:1")
    (source,) = [event.vertex for event in shown(lab) if event.id.startswith(f"resolve {name}:1@")][:1]
    assert {event.id.split()[0] for event in shown(lab) if event.vertex == source} == {"resolve"}
    notes = {event.id: event.name for event in shown(lab) if event.completed_ns is not None}
    assert [notes[layer] for layer in layers(made)] == ["mounted from shown"] * 2
    assert fetched(memory, made) == []


@row("EXP-14")
def test_another_registry_gets_them_from_us(lab: Lab, memory: Registry, other: Registry, base: Base) -> None:
    name = f"{memory.host}/base:1"
    made = base(name)
    result = push(lab, LINKED.format(name), f"{other.host}/app:1,{other.host}/twin:1")
    assert [memory.count("GET", layer) for layer in layers(made)] == [1, 1]
    assert [layer["digest"] for layer in document(other, "app")["layers"]][:2] == layers(made)
    assert other.tags["app", "1"] == other.tags["twin", "1"] == result.digest
    assert [event.id for event in shown(lab) if event.id == f"fetching {layers(made)[0]}"]
    push(lab, LINKED.format(name), f"{other.host}/app:1")
    assert [memory.count("GET", layer) for layer in layers(made)] == [1, 1], "not again"
    with Store.open(lab.tmp / "puller") as store:
        pulled = images.pull(store, f"{other.host}/app:1")
        with store.hold() as hold:
            assert images.unpack(store, pulled, hold)


@row("EXP-14")
def test_a_registry_that_does_not_mount(lab: Lab, memory: Registry, base: Base) -> None:
    made = base(f"{memory.host}/base:1")
    memory.support_mount = False
    push(lab, PLAIN.format(f"{memory.host}/base:1"), f"{memory.host}/app:1")
    assert fetched(memory, made) == layers(made)
    assert [layer["digest"] for layer in document(memory, "app")["layers"]] == layers(made)


@row("SLV-09")
def test_who_needs_the_tree_later_gets_it(lab: Lab, memory: Registry, base: Base) -> None:
    """After a build that left it out: a RUN, a WORKDIR, a build into the store, a stage that is read."""
    shell = 'RUN --mount=from=busybox,src=/bin,dst=/bin ["/bin/sh", "-c", "cat /f /etc/second > /h"]\n'
    for number, text in enumerate((shell, "WORKDIR /w\n")):
        name = f"{memory.host}/tree{number}:1"
        made = base(name)
        push(lab, LINKED.format(name), f"{memory.host}/app{number}:1")
        assert fetched(memory, made) == []
        push(lab, LINKED.format(name) + text, f"{memory.host}/app{number}:2")
        assert fetched(memory, made) == layers(made)
    name = f"{memory.host}/stored:1"
    made = base(name)
    push(lab, LINKED.format(name), f"{memory.host}/stored-app:1")
    built = lab.quick(LINKED.format(name) + shell, {"f": "linked", "g": "too"})
    assert fetched(memory, made) == layers(made)
    assert (built.layers, built.read("h"), built.read("g")) == (5, f"linked{name}", "too")
    name = f"{memory.host}/read:1"
    made = base(name)
    push(lab, f"FROM {name} AS a\nCOPY --link f /f\nFROM a\nCOPY --from=a /etc/second /s\n", f"{name}-app")
    assert fetched(memory, made) == layers(made)
    assert len(document(memory, "read", "1-app")["layers"]) == 4


@row("EXP-14")
@pytest.mark.parametrize("attrs", [",store=true", ",force-compression=true,compression=zstd"])
def test_outputs_that_have_to_have_them(lab: Lab, memory: Registry, base: Base, attrs: str) -> None:
    name = f"{memory.host}/{'zstd' if 'zstd' in attrs else 'store'}:1"
    made = base(name)
    push(lab, PLAIN.format(name), f"{memory.host}/app:1", attrs)
    assert fetched(memory, made) == layers(made)


@row("EXP-14")
def test_other_outputs_and_caches_beside_the_push(
    lab: Lab, memory: Registry, base: Base, tmp_path: Path
) -> None:
    name = f"{memory.host}/beside:1"
    made = base(name)
    both = (
        OutputSpec.parse(f"type=registry,name={memory.host}/app:1,store=false"),
        OutputSpec.parse(f"type=oci,dest={tmp_path}/o.tar"),
    )
    lab.build(lab.context(), PLAIN.format(name), outputs=both)
    assert fetched(memory, made) == layers(made)
    name = f"{memory.host}/cached:1"
    made = base(name)
    cache = parse_all((f"type=local,dest={tmp_path}/cache,mode=max",))
    push(lab, LINKED.format(name), f"{memory.host}/app:2", cache_to=cache)
    assert fetched(memory, made) == layers(made)


@row("EXP-14")
def test_provenance_and_platforms(lab: Lab, memory: Registry, tmp_path: Path) -> None:
    arm = Platform("linux", "arm64")
    with Store.open(tmp_path / "publisher") as store:
        from builder.exporter.image import assemble_index

        made = [
            make_image(store, tmp_path, platform=platform, layers=({"name": str(platform).encode()},))
            for platform in (host_platform(), arm)
        ]
        store.images.tag(f"{memory.host}/multi:1", assemble_index(store, made))
        images.push(store, f"{memory.host}/multi:1")
    push(
        lab, LINKED.format(f"{memory.host}/multi:1"), f"{memory.host}/app:1",
        platforms=(str(host_platform()), "linux/arm64"), attest=("type=provenance,mode=min",),
    )  # fmt: skip
    assert [fetched(memory, item) for item in made] == [[], []]
    entries = document(memory, "app")["manifests"]
    assert len(entries) == 4
    for entry, item in zip(entries, made, strict=False):
        found = json.loads(memory.manifests["app", entry["digest"]][1])
        assert [layer["digest"] for layer in found["layers"]][:1] == layers(item)
        assert len(found["layers"]) == 3
    for mode in ("min", "max"):  # steps by layers are told of in the second only
        text = PLAIN.format(f"{memory.host}/multi:1")
        push(lab, text, f"{memory.host}/{mode}:1", attest=(f"type=provenance,mode={mode}",))
        assert fetched(memory, made[0]) == (layers(made[0]) if mode == "max" else [])


@row("SLV-09")
def test_a_tree_that_another_platform_reads(lab: Lab, memory: Registry, base: Base) -> None:
    """What is the image of one platform is read for the other: both have all of it."""
    made = base(f"{memory.host}/shared:1")
    first = f"FROM --platform=$BUILDPLATFORM {memory.host}/shared:1 AS"
    text = (
        f"{first} s-amd64\nCOPY --link f /f\n"
        "FROM --platform=$BUILDPLATFORM busybox AS mid\nCOPY --from=s-amd64 /etc/second /s\n"
        f"{first} s-arm64\nCOPY --link --from=mid /s /s\nFROM s-$TARGETARCH\n"
    )
    push(lab, text, f"{memory.host}/app:1", platforms=("linux/amd64", "linux/arm64"))
    assert fetched(memory, made) == layers(made)
    for entry in document(memory, "app")["manifests"]:
        found = [
            layer["digest"] for layer in json.loads(memory.manifests["app", entry["digest"]][1])["layers"]
        ]
        assert (found[:2], len(found)) == (layers(made), 3)


@row("EXP-14")
def test_a_base_by_digest_and_a_fresh_look(lab: Lab, memory: Registry, base: Base) -> None:
    name = f"{memory.host}/pinned"
    made = base(f"{name}:1")
    for number, (ref, more) in enumerate(
        ((f"{name}@{made.manifest.digest}", {}), (f"{name}:1", {"pull": True}))
    ):
        push(lab, PLAIN.format(ref), f"{memory.host}/app:{number}", **more)
        assert fetched(memory, made) == []


@row("EXP-14")
def test_a_layer_that_cannot_be_had_after_all(
    lab: Lab, memory: Registry, other: Registry, base: Base
) -> None:
    made = base(f"{memory.host}/gone:1")
    memory.faults.append(Fault(match=f"GET .*{layers(made)[0]}", status=404, times=9))
    with pytest.raises(SourceUnavailable, match=rf"{memory.host}/gone:1: ") as caught:
        push(lab, "ARG A=1\n" + PLAIN.format(f"{memory.host}/gone:1"), f"{other.host}/app:1")
    assert caught.value.first_line == 2
    assert caught.value.source_lines[1].startswith("FROM ")
    assert caught.value.code == "base-image-unavailable"
    assert "no layer" in " ".join(caught.value.context)
    assert not other.tags
    memory.faults.clear()
    push(lab, PLAIN.format(f"{memory.host}/gone:1"), f"{other.host}/app:1")
    assert "1" in dict(other.tags)["app", "1"]
    memory.auth = "basic"
    with pytest.raises(SourceUnavailable):
        push(lab, PLAIN.format(f"{memory.host}/secret:1"), f"{other.host}/app:2", registry=RegistryConfig)


@row("SLV-09")
def test_nothing_of_it_is_kept(lab: Lab, memory: Registry, base: Base) -> None:
    name = f"{memory.host}/kept:1"
    base(name)
    lab.store.prune(all=True)
    before = {info.id for info in lab.store.snapshots.list()}
    push(lab, PLAIN.format(name), f"{memory.host}/app:1")
    assert {info.id for info in lab.store.snapshots.list()} == before
    assert lab.store.images.resolve(name) is None
    push(lab, LINKED.format(name), f"{memory.host}/app:1")
    assert check(lab.store.root) == ()
    result = lab.build(lab.context({"f": "linked", "g": "too"}), LINKED.format(name))
    assert Built(lab, result).read("f") == "linked"
    (cause,) = next(step for step in result.steps if step.name.startswith("LINK COPY --link f")).causes
    assert cause.text == f"base image {name} was not downloaded, or is not now"
    lab.store.prune(all=True)
    assert check(lab.store.root) == ()


@row("HSY-02", "ATT-08")
def test_the_record_names_the_layers_of_a_base_that_was_not_fetched(
    lab: Lab, base: Base, memory: Registry
) -> None:
    name = f"{memory.host}/b/recorded:1"
    made = base(name)
    push(lab, LINKED.format(name), f"{memory.host}/t/recorded:1")
    record = history.finalized(lab.store, history.find(lab.store))
    (item,) = [item for item in history.attachments(lab.store, record) if item.predicate]
    found = json.loads(history.attachment_bytes(lab.store, item))
    told = found["runDetails"]["metadata"]["buildkit_metadata"]["layers"].values()
    depths = sorted(len(layers) for ((layers),) in told)
    assert depths[0] == 2
    assert depths[-1] == 4
    below = [str(layer.descriptor.digest) for layer in made.layers]
    assert all([layer["digest"] for layer in layers[:2]] == below for ((layers),) in told)
