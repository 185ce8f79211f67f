"""What exporters say, name, annotate and refuse (EXP rows)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from builder.build.export import export_all
from builder.build.layers import LayerMaker, LayerOptions
from builder.errors import ExportError, PybuildError, RegistryError, UsageError
from builder.exporter.run import export
from builder.exporter.types import BuiltImage, OutputSpec
from builder.oci.config import ImageConfig
from builder.oci.digest import Digest, chain_ids
from builder.oci.platform import Platform, host_platform
from builder.registry.hosts import RegistryConfig
from builder.remotecache.spec import parse_all
from builder.solver.cancel import Cancel
from builder.solver.progress import Event, StatusEvent, VertexEvent, WarningEvent
from tests.support import protohand
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.registry import Fault, Registry, running_registry
from tests.support.rows import row

pytestmark = pytest.mark.root
TEXT = "FROM busybox\nCOPY f /f\nENV A=1\n"
CROSS = "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n"
BOTH = ("linux/amd64", "linux/arm64")
PROVENANCE = ("type=provenance,mode=max",)


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": TEXT, "f": "text"})


def outputs(*texts: str) -> tuple[OutputSpec, ...]:
    return tuple(OutputSpec.parse(text) for text in texts)


def build(lab: Lab, context: Path, *texts: str, **more: Any) -> Any:
    return lab.build(context, outputs=outputs(*texts), **more)


def document(lab: Lab, digest: str) -> Any:
    return json.loads(lab.store.blobs.read(Digest.parse(digest), 1 << 20))


def statuses(lab: Lab) -> list[str]:
    return list(dict.fromkeys(event.id for event in lab.watcher.events if isinstance(event, StatusEvent)))


@row("EXP-01")
def test_types_and_their_vertices(lab: Lab, context: Path, tmp_path: Path) -> None:
    with running_registry() as registry:
        named = f"{registry.host}/x:1"
        build(
            lab, context, "type=image,name=a:1", f"type=registry,name={named}", f"type=oci,dest={tmp_path / 'o'}",
            f"type=docker,dest={tmp_path / 'd'}", f"type=local,dest={tmp_path / 'l'}", f"type=tar,dest={tmp_path / 't'}",
        )  # fmt: skip
        assert ("x", "1") in registry.tags, "registry is image and push"
    vertices = {event.digest: event.name for event in lab.watcher.events if isinstance(event, VertexEvent)}
    told = [name for name in vertices.values() if name.startswith("exporting")]
    assert told == [
        "exporting to image", "exporting to image", "exporting to oci image format", "exporting to docker image format",
        "exporting to client directory", "exporting to client tarball",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"unsupported output type"):
        OutputSpec.parse("type=nonsense")


@row("EXP-02")
def test_steps(lab: Lab, context: Path, tmp_path: Path) -> None:
    with running_registry() as registry:
        name = f"{registry.host}/x:1"
        result = build(
            lab, context, f"type=registry,name={name},unpack=true", f"type=oci,dest={tmp_path / 'o'},name=b"
        )
        wanted = [
            "exporting layers", f"exporting manifest {result.digest}", f"exporting config {result.image_id}",
            f"naming to {name}", f"unpacking to {name}", "sending tarball", "pushing layers",
            f"pushing manifest for {name}@{result.digest}",
        ]  # fmt: skip
        assert [told for told in statuses(lab) if told in wanted] == wanted
    result = build(lab, context, "type=image", f"type=local,dest={tmp_path / 'l'}", attest=PROVENANCE)
    entries = document(lab, result.digest)["manifests"]
    assert f"exporting attestation manifest {entries[1]['digest']}" in statuses(lab)
    assert f"exporting manifest list {result.digest}" in statuses(lab)
    assert "copying files" in " ".join(statuses(lab))


@row("EXP-03")
def test_image_attributes(lab: Lab, context: Path) -> None:
    spec = OutputSpec.parse("type=image,push,unpack=,store=false,oci-artifact=0,attestation-inline=false")
    assert (spec.push, spec.unpack, spec.store, spec.oci_artifact, spec.attestation_inline) == (
        True,
        True,
        False,
        False,
        False,
    )
    for name in ("push", "push-by-digest", "registry.insecure", "unpack", "store", "name-canonical", "oci-mediatypes",
                 "danging-name-empty-only", "prefer-nondist-layers", "force-compression", "rewrite-timestamp"):  # fmt: skip
        with pytest.raises(UsageError, match=rf"non-bool value specified for {name}"):
            OutputSpec.parse(f"type=image,{name}=perhaps")
    assert OutputSpec.parse("type=image").oci_mediatypes
    result = build(lab, context, 'type=image,"name=one:1,two:2"')
    assert result.names == ("docker.io/library/one:1", "docker.io/library/two:2")
    result = build(lab, context, "type=image,name=*", tags=("star:1",))
    assert result.names == ("docker.io/library/star:1",)
    result = build(lab, context, "type=image,name=unstored:1,store=false")
    assert lab.store.images.resolve("unstored:1") is None
    assert result.names == ("docker.io/library/unstored:1",)


@row("EXP-03")
def test_unpack(lab: Lab, context: Path) -> None:
    (context / "f").write_text("unpacked")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY --link f /f\n")
    for unpack in ("false", "true"):
        made = Built(lab, build(lab, context, f"type=image,name=unpacked:1,unpack={unpack}"))
        info = lab.store.snapshots.by_chain(chain_ids(made.config.diff_ids)[-1])
        assert info is not None
        assert (info.driver == "lazy") == (unpack == "false"), "a merge has no tree until somebody wants it"


@row("EXP-04")
def test_response(lab: Lab, context: Path, command: Runner, tmp_path: Path) -> None:
    result = build(lab, context, "type=image,name=r:1")
    assert result.metadata["containerimage.digest"] == result.digest
    assert result.metadata["containerimage.config.digest"] == result.image_id
    assert result.metadata["image.name"] == "docker.io/library/r:1"
    file = tmp_path / "m.json"
    command.build(context, "-t", "r:1", "--network=none", "--metadata-file", file)
    written = json.loads(file.read_text())
    assert written["containerimage.descriptor"]["digest"] == written["containerimage.digest"]
    several = build(lab, context, "type=image", attest=PROVENANCE)
    assert "containerimage.config.digest" not in several.metadata
    image = BuiltImage(platform=host_platform(), config=ImageConfig.scratch(host_platform()))
    (text,) = [
        v
        for k, v in export(lab.store, [image], OutputSpec(type="image")).response
        if k.endswith("descriptor")
    ]
    assert json.loads(base64.b64decode(text))["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


@row("EXP-05")
def test_manifest_or_index(lab: Lab, context: Path) -> None:
    assert "layers" in document(lab, build(lab, context, "type=image").digest)
    result = lab.build(context, dockerfile_data=CROSS.encode(), platforms=BOTH, attest=PROVENANCE)
    entries = document(lab, result.digest)["manifests"]
    platforms = [f"{entry['platform']['os']}/{entry['platform']['architecture']}" for entry in entries]
    assert platforms == [*BOTH, "unknown/unknown", "unknown/unknown"]
    result = lab.build(context, dockerfile_data=CROSS.encode(), platforms=BOTH[::-1])
    assert [e["platform"]["architecture"] for e in document(lab, result.digest)["manifests"]] == [
        "arm64",
        "amd64",
    ]


@row("EXP-06")
def test_documents(lab: Lab, context: Path) -> None:
    result = build(lab, context, "type=image,annotation.b=1,annotation.a=2", attest=PROVENANCE)
    index = lab.store.blobs.read(Digest.parse(result.digest), 1 << 20).decode()
    assert index.startswith(
        '{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.index.v1+json",\n  "manifests"'
    )
    entries = json.loads(index)["manifests"]
    assert list(entries[0]) == ["mediaType", "digest", "size", "platform"]
    assert list(entries[1])[:5] == ["mediaType", "digest", "size", "annotations", "platform"]
    manifest = lab.store.blobs.read(Digest.parse(entries[0]["digest"]), 1 << 20).decode()
    assert list(json.loads(manifest)) == ["schemaVersion", "mediaType", "config", "layers", "annotations"]
    assert manifest == json.dumps(json.loads(manifest), indent=2)
    note = document(lab, entries[1]["digest"])
    assert list(note) == ["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject"]
    config = lab.store.blobs.read(Digest.parse(json.loads(manifest)["config"]["digest"]), 1 << 20).decode()
    assert "\n" not in config and '": ' not in config.replace('": 1', "")
    assert list(json.loads(config)) == sorted(json.loads(config))


@row("EXP-09")
def test_without_a_config(lab: Lab) -> None:
    command = protohand.file_op(protohand.mkfile("/f", "x"))
    built = Built(lab, lab.build(lab.context(), llb=protohand.definition(command)))
    assert built.json["config"]["WorkingDir"] == "/"
    assert built.json["config"]["Env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ]
    assert (built.json["os"], built.json["architecture"]) == (
        host_platform().os,
        host_platform().architecture,
    )
    assert built.read("f") == "x"


@row("EXP-10")
def test_refusals(lab: Lab, context: Path) -> None:
    image = BuiltImage(platform=host_platform(), config=ImageConfig.scratch(host_platform()))
    with pytest.raises(ExportError, match=r"^unable to export multiple refs, missing platforms mapping$"):
        export(lab.store, [image, image], OutputSpec(type="image"))
    for kind in ("index", "index-descriptor"):
        with pytest.raises(
            ExportError, match=r"^index annotations not supported for single platform export$"
        ):
            build(lab, context, f"type=image,annotation-{kind}.a=b")
    with pytest.raises(UsageError, match=r'^cannot export annotations with "oci-mediatypes=false"$'):
        OutputSpec.parse("type=image,oci-mediatypes=false,annotation.a=b")
    with pytest.raises(ExportError, match=r'^cannot export attestations with "oci-mediatypes=false"$'):
        build(lab, context, "type=image,oci-mediatypes=false", attest=PROVENANCE)
    with pytest.raises(UsageError, match=r'"oci-artifact=true" conflicts with "oci-mediatypes=false"'):
        OutputSpec.parse("type=image,oci-mediatypes=false,oci-artifact=true")
    with pytest.raises(UsageError, match=r'^exporter option "rewrite-timestamp" conflicts with "unpack"$'):
        OutputSpec.parse("type=image,rewrite-timestamp=true,unpack=true")
    with pytest.raises(PybuildError, match=r"multiple"):
        lab.build(
            context,
            dockerfile_data=CROSS.encode(),
            platforms=BOTH,
            build_args=(("BUILDKIT_MULTI_PLATFORM", "0"),),
        )


@row("EXP-11")
def test_annotations_of_all_types(lab: Lab, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    result = lab.build(
        context,
        dockerfile_data=CROSS.encode(),
        platforms=BOTH,
        outputs=outputs(
            f"type=oci,tar=false,dest={layout},annotation.all=1,annotation[linux/arm64].one=2,annotation-manifest.m=3,"
            "annotation-index.i=4,annotation-index-descriptor.id=5,annotation-manifest-descriptor[linux/amd64].md=6"
        ),
    )
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["annotations"]["id"] == "5"
    index = document(lab, result.digest)
    assert index["annotations"] == {"i": "4"}
    amd, arm = index["manifests"]
    assert (amd["annotations"], arm.get("annotations")) == ({"md": "6"}, None)
    assert document(lab, amd["digest"])["annotations"] == {"all": "1", "m": "3"}
    assert document(lab, arm["digest"])["annotations"] == {"all": "1", "m": "3", "one": "2"}
    with pytest.raises(UsageError, match=r"^unrecognized annotation type layer$"):
        OutputSpec.parse("type=image,annotation-layer.a=b")
    with pytest.raises(ExportError, match=r"^invalid annotation: no platform linux/s390x found in source$"):
        build(lab, context, "type=image,annotation[linux/s390x].a=b")


@row("EXP-11")
def test_annotations_of_the_command_line(lab: Lab, context: Path, command: Runner) -> None:
    flags = ("--annotation", "a=cli", "--annotation", "manifest,manifest-descriptor:b=2")
    command.build(context, "--network=none", "-o", "type=image,name=note:1,annotation.a=output", *flags)
    found = lab.store.images.resolve("note:1")
    assert found is not None
    assert document(lab, str(found.manifest.digest))["annotations"] == {"a": "cli", "b": "2"}


@row("EXP-12")
def test_dangling_and_canonical_names(lab: Lab, context: Path) -> None:
    library = "docker.io/library"
    (context / "f").write_text("dangling")
    result = build(lab, context, "type=image,dangling-name-prefix=none,danging-name-empty-only=true")
    assert result.names == (f"{library}/none@{result.digest}",)
    found = lab.store.images.resolve(f"none@{result.digest}")
    assert found is not None and found.names == ()
    result = build(
        lab, context, "type=image,name=full:1,dangling-name-prefix=none,danging-name-empty-only=true"
    )
    assert result.names == (f"{library}/full:1",)
    result = build(lab, context, "type=image,name=full:1,dangling-name-prefix=none,name-canonical=true")
    names = (f"{library}/full:1", f"{library}/full@{result.digest}", f"{library}/none@{result.digest}")
    assert result.names == names
    assert all(lab.store.images.resolve(name) is not None for name in names)


@pytest.fixture
def registry() -> Any:
    with running_registry() as running:
        yield running


@row("EXP-13")
def test_pushes_come_last(lab: Lab, context: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/late:1"
    with pytest.raises(PybuildError):
        build(lab, context, f"type=registry,name={name}", f"type=tar,dest={tmp_path / 'no/such/place'}")
    assert not registry.count("POST", "/uploads/"), "nothing is pushed when another output fails"
    build(lab, context, f"type=registry,name={name}", f"type=tar,dest={tmp_path / 'there'}")
    told = statuses(lab)
    assert told.index("sending tarball") < told.index("pushing layers")
    registry.faults.append(Fault(match=r"PUT .*/manifests/", status=400))
    with pytest.raises(RegistryError, match=rf"^failed to push {name}"):
        build(lab, context, f"type=registry,name={name}")
    registry.faults.clear()
    cache = f"type=local,dest={tmp_path / 'cache'},mode=max"
    build(lab, context, f"type=registry,name={name}", cache_to=parse_all((cache,)))
    assert (tmp_path / "cache/index.json").exists(), "beside the export of caches"


@row("EXP-13")
def test_another_platform_than_asked_for(lab: Lab, context: Path, tmp_path: Path) -> None:
    arm, amd = Platform("linux", "arm64"), Platform("linux", "amd64")
    image = BuiltImage(platform=arm, config=ImageConfig.scratch(amd))
    (spec,) = outputs(f"type=oci,dest={tmp_path / 'o'}")
    told: list[Event] = []
    with LayerMaker(lab.store, LayerOptions.of(spec)) as maker:
        export_all(
            lab.store, [image], [spec], {LayerOptions.of(spec): maker}, registry=RegistryConfig(), emit=told.append,
            cancel=Cancel(), stdout=None, explicit=True,
        )  # fmt: skip
    (warning,) = [event for event in told if isinstance(event, WarningEvent)]
    assert warning.short == 'Requested platform "linux/arm64" does not match result platform "linux/amd64"'
    assert warning.vertex in {event.digest for event in told if isinstance(event, VertexEvent)}
    lab.build(context, platforms=(str(host_platform()),))
    assert not [event for event in lab.watcher.events if isinstance(event, WarningEvent)]


@row("EXP-14")
def test_layers_of_the_base_stay(lab: Lab, context: Path, registry: Registry) -> None:
    base = lab.quick(
        "FROM busybox\nRUN touch /b\n", outputs=outputs("type=image,name=zbase:1,compression=zstd")
    )
    over = lab.quick("FROM zbase:1\nRUN touch /x\n", outputs=outputs("type=image"))
    kinds = [layer.media_type.rpartition("+")[2] for layer in over.found.manifest.layers]
    assert kinds == ["gzip", "zstd", "gzip"]
    assert over.found.manifest.layers[:2] == base.found.manifest.layers
    name = f"{registry.host}/first:1"
    build(lab, context, f"type=registry,name={name}")
    lab.quick(
        "FROM busybox\nRUN touch /second\n", outputs=outputs(f"type=registry,name={registry.host}/second:1")
    )
    posts = [seen.path for seen in registry.seen if seen.method == "POST" and "/second/" in seen.path]
    base = str(over.found.manifest.layers[0].digest).replace(":", "%3A")
    assert [path for path in posts if base in path.replace(":", "%3A") and "from=first" in path], (
        "what the target can mount is not sent"
    )


@row("EXP-15")
def test_compatibility_versions(lab: Lab, context: Path) -> None:
    for version in (10, 20):
        spec = f"type=image,compatibility-version={version}"
        assert document(lab, build(lab, context, spec).digest)["mediaType"].startswith(
            "application/vnd.docker."
        )
        index = document(lab, build(lab, context, spec, attest=PROVENANCE).digest)
        assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
        assert "artifactType" not in document(lab, index["manifests"][1]["digest"])
    today = document(lab, build(lab, context, "type=image,compatibility-version=30").digest)
    assert today["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    with pytest.raises(UsageError, match=r"^unsupported compatibility-version 15"):
        OutputSpec.parse("type=image,compatibility-version=15")
    with pytest.raises(UsageError, match=r"zstd"):
        OutputSpec.parse("type=image,compatibility-version=10,compression=zstd")
