"""Caches on other machines: the document, its order, modes, and how results get from one machine to another."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from builder.errors import PybuildError, UsageError
from builder.oci.digest import Digest
from tests.support.machines import LayoutCache, Machines, cache, ran, statuses, warned
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]

TEXT = """\
FROM busybox AS one
RUN echo one > /one; touch /more
FROM busybox
COPY src /app
RUN cat /app > /out
COPY --from=one /one /one
ENV COLOR=red
"""
FILES = {"src": "hello", "other": "x"}


@row("RCH-03")
def test_two_exports_of_one_build_are_equal(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    for name in ("a", "b"):
        lab.build(context, TEXT, cache_to=cache(f"type=local,dest={tmp_path / name}"))
    assert LayoutCache(tmp_path / "a").config_digest == LayoutCache(tmp_path / "b").config_digest


@row("RCH-04")
def test_min_keeps_the_layers_of_the_result_only(many: Machines, tmp_path: Path) -> None:
    lab, context = many.new(), None
    context = lab.context(FILES)
    lab.build(
        context,
        TEXT,
        cache_to=cache(*(f"type=local,dest={tmp_path / mode},mode={mode}" for mode in ("min", "max"))),
    )
    small, large = LayoutCache(tmp_path / "min"), LayoutCache(tmp_path / "max")
    assert len(small.results()) == 3
    assert len(large.results()) == 4
    assert len(small.config["records"]) == len(large.config["records"]), "intermediate steps stay as keys"
    changed = TEXT.replace("COPY --from=one /one /one", "COPY --from=one /one /two")
    for mode, expected in (("min", ["RUN echo one > /one; touch /more"]), ("max", [])):
        other = many.new()
        other.build(other.context(FILES), changed, cache_from=cache(f"type=local,src={tmp_path / mode}"))
        assert ran(other) == [*expected, "COPY --from=one /one /two"], mode


@row("RCH-05")
def test_both_forms_of_the_manifest(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    forms = {"image": "", "index": ",image-manifest=false", "docker": ",oci-mediatypes=false"}
    lab.build(
        context, TEXT, cache_to=cache(*(f"type=local,dest={tmp_path / k}{v}" for k, v in forms.items()))
    )
    image, index, docker = (LayoutCache(tmp_path / name).manifest for name in forms)
    assert image["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert image["config"]["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    assert set(image["layers"][0]["annotations"]) >= {"containerd.io/uncompressed", "buildkit/createdat"}
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["manifests"][-1]["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    assert docker["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert docker["manifests"][0]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    for name in forms:
        other = many.new()
        other.build(other.context(FILES), TEXT, cache_from=cache(f"type=local,src={tmp_path / name}"))
        assert ran(other) == [], name
    wrong = "type=local,dest=x,oci-mediatypes=false,image-manifest=true"
    with pytest.raises(UsageError, match="OCI mediatypes are required for image-manifest cache format"):
        lab.build(context, TEXT, cache_to=cache(wrong))


@row("RCH-16")
def test_a_file_copied_twice(many: Machines, tmp_path: Path) -> None:
    """From the context and, with the same operation, from a stage that copied it: equal by content."""
    text = "FROM scratch AS a\nCOPY f /f\nFROM scratch AS b\nCOPY --from=a f /f\nFROM busybox\nCOPY --from=b f /g\n"
    lab, other = many.new(), many.new()
    lab.build(lab.context({"f": "x"}), text, cache_to=cache(f"type=local,dest={tmp_path / 'c'},mode=max"))
    other.build(other.context({"f": "x"}), text, cache_from=cache(f"type=local,src={tmp_path / 'c'}"))
    assert ran(other) == []


@row("RCH-09")
def test_local_caches_by_tag_and_digest(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    place = tmp_path / "cache"
    lab.build(context, TEXT, cache_to=cache(f"type=local,dest={place}"))
    lab.build(context, TEXT + "RUN echo two\n", cache_to=cache(f"type=local,dest={place},tag=two"))
    assert len(json.loads((place / "index.json").read_text())["manifests"]) == 2
    with_digest = json.loads((place / "index.json").read_text())["manifests"][1]["digest"]
    for where in ("tag=two", f"digest={with_digest}"):
        other = many.new()
        other.build(
            other.context(FILES), TEXT + "RUN echo two\n", cache_from=cache(f"type=local,src={place},{where}")
        )
        assert ran(other) == []
    other = many.new()
    other.build(
        other.context(FILES),
        TEXT,
        cache_from=cache(f"type=local,src={place},tag=none", f"type=local,src={tmp_path / 'no'}"),
    )
    assert len(ran(other)) == 4
    assert warned(other).count("there is no cache in") == 2
    for spec in ("type=local,tag=x", "type=local,src="):
        with pytest.raises(UsageError, match="local cache requires"):
            lab.build(context, TEXT, cache_from=cache(spec))


@row("RCH-09")
def test_reset_drops_what_nothing_leads_to(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    place = tmp_path / "cache"
    lab.build(context, "FROM busybox\nRUN echo gone > /gone\n", cache_to=cache(f"type=local,dest={place}"))
    before = {path.name for path in (place / "blobs/sha256").iterdir()}
    lab.build(context, TEXT, cache_to=cache(f"type=local,dest={place},reset=true"))
    after = {path.name for path in (place / "blobs/sha256").iterdir()}
    found = LayoutCache(place)
    assert len(before - after) >= 3, "the manifest, the document and the layer of the old step"
    assert {layer["digest"][7:] for layer in found.manifest["layers"]} < after
    assert len(after) == len(found.manifest["layers"]) + 2


@row("RCH-13", "SLV-08")
def test_failures(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    (tmp_path / "file").write_text("")
    there = tmp_path / "file" / "cache"
    built = lab.build(context, TEXT, cache_to=cache(f"type=local,dest={there},ignore-error=true"))
    assert built.image_id
    assert "exporting cache to client directory failed" in warned(lab)
    with pytest.raises(PybuildError, match=r"cannot write .*is not a directory"):
        lab.build(context, TEXT, cache_to=cache(f"type=local,dest={there}"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "index.json").write_text("{")
    unreachable = "type=registry,ref=localhost:1/no/cache"
    lab.build(context, TEXT + "RUN true\n", cache_from=cache(f"type=local,src={broken}", unreachable))
    assert ran(lab) == ["RUN true"]
    assert warned(lab).count("cannot import the cache of") == 2
    failed = [event.name for event in lab.watcher.events if getattr(event, "error", "")]
    assert failed == ["importing cache manifest from localhost:1/no/cache:latest"] or len(failed) == 2


@row("RCH-14", "SLV-09")
def test_layers_stay_until_they_are_needed(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    place = tmp_path / "cache"
    lab.build(lab.context(FILES), TEXT, cache_to=cache(f"type=local,dest={place},mode=max"))
    from builder.exporter.types import OutputSpec

    nothing = (OutputSpec(type="cacheonly"),)
    imports = cache(f"type=local,src={place}")
    layers = [Digest.parse(layer["digest"]) for layer in LayoutCache(place).manifest["layers"]]
    here = sum(other.store.blobs.has(layer) for layer in layers)
    result = other.build(other.context(FILES), TEXT, cache_from=imports, outputs=nothing)
    assert ran(other) == []
    assert result.cached_steps == 4
    assert sum(other.store.blobs.has(layer) for layer in layers) == here, "nothing was fetched"
    changed = TEXT.replace("ENV COLOR=red", "RUN echo more")
    other.build(other.context(FILES), changed, cache_from=imports)
    assert ran(other) == ["RUN echo more"]
    stage = LayoutCache(place).manifest["layers"]
    one = next(
        x
        for x in stage
        if x["annotations"].get("buildkit/description", "").endswith("RUN echo one > /one; touch /more")
    )
    assert not other.store.blobs.has(Digest.parse(one["digest"])), "what only fed a matched step stays there"


@row("SLV-06", "RCH-14")
@pytest.mark.parametrize("damage", ["missing", "corrupt", "short", "swapped", "diffid"])
def test_layers_that_cannot_be_had(many: Machines, tmp_path: Path, damage: str) -> None:
    """The step runs instead, and nothing wrong is kept."""
    lab, other = many.new(), many.new()
    place = tmp_path / "cache"
    lab.build(lab.context(FILES), TEXT, cache_to=cache(f"type=local,dest={place}"))
    found = LayoutCache(place)
    layers = [
        x for x in found.manifest["layers"] if "RUN cat" in x["annotations"].get("buildkit/description", "")
    ]
    path = place / "blobs" / layers[0]["digest"].replace(":", "/")
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "diffid":
        _lie_about(place, layers[0]["annotations"]["containerd.io/uncompressed"], str(Digest.of(b"lie")))
    else:
        path.write_bytes(
            {"corrupt": data[:-3] + b"abc", "short": data[:20], "swapped": b"x" * len(data)}[damage]
        )
    second = other.build(other.context(FILES), TEXT, cache_from=cache(f"type=local,src={place}"))
    assert "RUN cat /app > /out" in ran(other)
    assert "COPY src /app" not in ran(other), "what could be had was taken"
    assert second.image_id
    assert "cannot be used" in warned(other)


def _lie_about(place: Path, old: str, new: str) -> None:
    """Rewrite the manifest so that a layer claims another diff id."""
    index = json.loads((place / "index.json").read_text())
    path = place / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    data = path.read_bytes().replace(old.encode(), new.encode())
    name = hashlib.sha256(data).hexdigest()
    (place / "blobs/sha256" / name).write_bytes(data)
    index["manifests"][0].update(digest=f"sha256:{name}", size=len(data))
    (place / "index.json").write_text(json.dumps(index))


@row("RCH-15", "BET-07")
def test_a_second_export_is_added_to_the_first(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    two = "FROM busybox\nRUN echo second > /two\n"
    place, alone = tmp_path / "cache", tmp_path / "alone"
    for text in (TEXT, two):
        lab.build(lab.context(FILES), text, cache_to=cache(f"type=local,dest={place}"))
        lab.build(lab.context(FILES), text, cache_to=cache(f"type=local,dest={alone},merge=false"))
    for text in (TEXT, two):
        other.build(other.context(FILES), text, cache_from=cache(f"type=local,src={place}"))
        assert ran(other) == []
    third = many.new()
    third.build(third.context(FILES), two, cache_from=cache(f"type=local,src={alone}"))
    assert ran(third) == []
    third.build(third.context(FILES), TEXT, cache_from=cache(f"type=local,src={alone}"))
    assert len(ran(third)) == 4, "the last one replaced the first"


@row("RCH-15")
def test_several_platforms_make_one_cache(many: Machines, tmp_path: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY src /$TARGETARCH\n"
    lab, other = many.new(), many.new()
    place, both = tmp_path / "cache", ("linux/amd64", "linux/arm64")
    first = lab.build(lab.context(FILES), text, platforms=both, cache_to=cache(f"type=local,dest={place}"))
    assert len(LayoutCache(place).results()) == 2
    second = other.build(
        other.context(FILES), text, platforms=both, cache_from=cache(f"type=local,src={place}")
    )
    assert ran(other) == []
    assert first.digest == second.digest


@row("RCH-18", "RCH-08")
def test_several_exports_and_what_they_are_called(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    context = lab.context(FILES)
    wanted = cache(f"type=local,dest={tmp_path / 'a'}", f"type=local,dest={tmp_path / 'b'}", "type=inline")
    result = lab.build(context, TEXT, cache_to=wanted)
    name = "exporting cache to client directory"
    order = [
        event.name
        for event in lab.watcher.events
        if getattr(event, "completed_ns", None) and hasattr(event, "name")
    ]
    assert order.count(name) == 2
    assert order.index(name) > order.index("exporting to image")
    shown = statuses(lab, name)
    found = LayoutCache(tmp_path / "a")
    manifest = result.metadata["cache.manifest"]
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert (tmp_path / "a/blobs" / manifest["digest"].replace(":", "/")).stat().st_size == manifest["size"]
    assert "preparing build cache for export" in shown
    assert f"writing layer {found.manifest['layers'][0]['digest']}" in shown
    assert f"writing config {found.config_digest}" in shown
    assert f"writing cache image manifest {manifest['digest']}" in shown
    assert "sending cache export" in shown
    lab.build(lab.context(), "FROM busybox\nENV A=b\n", cache_to=cache(f"type=local,dest={tmp_path / 'c'}"))
    assert "skipping cache export for empty result" in statuses(lab, name)
    assert not (tmp_path / "c").exists()


@row("BET-07")
def test_cache_mounts_travel(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    mount = "--mount=type=cache,target=/c,id=kept"
    text = f"FROM busybox\nRUN {mount} echo warm > /c/f && ln -s f /c/l && chown 7:8 /c/f\n"
    place = tmp_path / "cache"
    lab.build(lab.context(), text, cache_to=cache(f"type=local,dest={place},mounts=true"))
    annotated = [x["annotations"].get("pybuild/cachemount") for x in LayoutCache(place).manifest["layers"]]
    assert "/kept" in annotated
    look = f"FROM busybox\nRUN {mount} stat -c '%u:%g' /c/f > /seen; cat /c/l >> /seen\n"
    from tests.support.buildlab import Built

    built = Built(other, other.build(other.context(), look, cache_from=cache(f"type=local,src={place}")))
    assert built.read("seen") == "7:8\nwarm\n"
    other.build(other.context(), f"FROM busybox\nRUN {mount} echo own > /c/f\n")
    built = Built(other, other.build(other.context(), look, no_cache=False, build_args=(("X", "1"),)))
    third = many.new()
    third.build(third.context(), f"FROM busybox\nRUN {mount} echo own > /c/f\n")
    built = Built(
        third,
        third.build(
            third.context(),
            f"FROM busybox\nRUN {mount} cat /c/f > /seen\n",
            cache_from=cache(f"type=local,src={place}"),
        ),
    )
    assert built.read("seen") == "own\n", "a mount that is here is not touched"
    assert os.path.exists(place)


@row("RCH-18", "SLV-08")
def test_a_build_that_is_recognised_is_still_exported(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    context = lab.context({**FILES, "Dockerfile": TEXT})
    time.sleep(0.1)  # files that are that young are looked at again
    lab.build(context)
    assert lab.build(context).steps == (), "answered from the build before it"
    lab.build(context, cache_to=cache(f"type=local,dest={tmp_path / 'cache'}"))
    imports = cache(f"type=local,src={tmp_path / 'cache'}")
    other.build(other.context(FILES), TEXT, cache_from=imports)
    assert ran(other) == []
    assert lab.build(context, cache_from=imports).steps == (), "imports change no result"
