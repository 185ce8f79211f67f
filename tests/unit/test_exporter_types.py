"""Reading ``--output``, histories, configs (EXP-01…EXP-12, CMPR-01)."""

from __future__ import annotations

import json

import pytest

from builder.errors import ExportError, UsageError
from builder.exporter.history import normalize
from builder.exporter.image import assemble, assemble_index, check_annotations, clean_layer
from builder.exporter.times import parse_rfc3339, rfc3339
from builder.exporter.types import Annotation, LayerRef, OutputSpec, parse_annotation
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import DOCKER_LAYER_GZIP, OCI_LAYER_GZIP, Descriptor
from builder.oci.digest import DiffId, Digest
from builder.oci.manifest import parse_document
from builder.oci.platform import Platform

HOST = Platform("linux", "amd64")
NOW = "2024-01-01T00:00:00Z"


def layer(number: int, **options: object) -> LayerRef:
    data = bytes([number])
    descriptor = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(b"z" + data), size=9)
    return LayerRef(diff_id=DiffId(Digest.of(data)), descriptor=descriptor, **options)  # type: ignore[arg-type]


class Blobs:
    def __init__(self) -> None:
        self.data: dict[Digest, bytes] = {}

    def put_many(self, items: object) -> tuple[Digest, ...]:
        found = tuple(Digest.of(item) for item in items)  # type: ignore[attr-defined]
        self.data.update(zip(found, items, strict=True))  # type: ignore[call-overload]
        return found


class Memory:
    def __init__(self) -> None:
        self.blobs = Blobs()


def test_output_forms() -> None:
    assert OutputSpec.parse("out") == OutputSpec(type="local", dest="out")
    assert OutputSpec.parse("-") == OutputSpec(type="tar", dest="-")
    assert OutputSpec.parse("type=registry") == OutputSpec(type="image", push=True)
    spec = OutputSpec.parse(
        'type=oci,dest=x.tar,compression=zstd,compression-level=3,force-compression,"name=a,b:1",tar=false,'
        "annotation.k=v=w,annotation-index[linux/arm64].K=V,rewrite-timestamp=true,source-date-epoch=5"
    )
    assert (spec.dest, spec.compression, spec.compression_level, spec.force_compression) == (
        "x.tar",
        "zstd",
        3,
        True,
    )
    assert (spec.names, spec.tar, spec.rewrite_timestamp, spec.epoch) == (("a", "b:1"), False, True, 5)
    assert spec.annotations == (
        Annotation(key="k", value="v=w"),
        Annotation(target="index", platform=Platform("linux", "arm64"), key="K", value="V"),
    )
    assert not OutputSpec.parse("type=docker,dest=x").oci_mediatypes
    assert OutputSpec.parse("type=docker,dest=x,compression=zstd").oci_mediatypes
    assert OutputSpec.parse("type=oci").dest == "-"
    assert OutputSpec.parse("type=image,push,unknown=1").extra == (("unknown", "1"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dest=x", "type is required"),
        ("type=floppy", "unsupported output type"),
        ("type=oci,x", "invalid value 'x'"),
        ("type=image,push=maybe", "non-bool value specified for push"),
        ("type=image,compression=lzma", "compression type"),
        (
            "type=image,compression=zstd,oci-mediatypes=false",
            'option "compression=zstd" conflicts with "oci-mediatypes',
        ),
        ("type=image,compression-level=10", "from 0 to 9"),
        ("type=image,compression-level=x", "whole number|invalid value"),
        ("type=image,annotation-x.k=v", "unrecognized annotation type x"),
        ("type=image,annotation.k=v,oci-mediatypes=false", "cannot export annotations"),
        ("type=image,rewrite-timestamp,unpack", "conflicts"),
        ("type=local", "dest is required for local"),
        ("type=local,dest=-", "standard output"),
        ("type=local,dest=x,mode=mirror", "invalid local exporter mode 'mirror'"),
        ("type=oci,tar=false", "dest is required"),
        ('type=oci,"dest', "invalid output"),
        ("", "invalid output"),
    ],
)
def test_bad_outputs_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OutputSpec.parse(text)


def test_times_round_trip() -> None:
    for text in ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789Z", "2023-11-14T22:13:20.1Z"):
        time_ns = parse_rfc3339(text)
        assert time_ns is not None
        assert rfc3339(time_ns) == text
    assert parse_rfc3339("2023-11-15T00:13:20+02:00") == parse_rfc3339("2023-11-14T22:13:20Z")
    assert [
        parse_rfc3339(text)
        for text in (None, "", "yesterday", "0001-01-01T00:00:00Z", "2023-13-01T00:00:00Z")
    ] == [None] * 5


def test_missing_history_is_appended_and_surplus_marked_empty() -> None:
    """EXP-08"""
    made = normalize((), (layer(1, created_by="RUN x", created="2020-01-01T00:00:00Z"),), now=NOW)
    assert made == (
        History(created="2020-01-01T00:00:00Z", created_by="RUN x", comment="buildkit.exporter.image.v0"),
    )
    entries = (History(created=NOW, created_by="a"), History(created=NOW, created_by="b"))
    assert [entry.empty_layer for entry in normalize(entries, (layer(1),), now=NOW)] == [False, True]


def test_times_of_history_are_filled_from_layers_and_neighbours() -> None:
    early, late = "2020-01-01T00:00:00Z", "2022-01-01T00:00:00Z"
    entries = (
        History(created=early, created_by="base"),
        History(created_by="ENV", empty_layer=True),
        History(created_by="RUN"),
        History(created_by="CMD", empty_layer=True),
    )
    made = normalize(entries, (layer(1, base=True), layer(2, created=late)), now=NOW)
    assert [entry.created for entry in made] == [early, late, late, late]


def test_epoch_clamps_new_history_only() -> None:
    """RPR-01"""
    entries = (
        History(created="2023-01-01T00:00:00Z", created_by="base"),
        History(created=NOW, created_by="RUN"),
    )
    made = normalize(entries, (layer(1, base=True), layer(2)), now=NOW, epoch=0, base_history=1)
    assert [entry.created for entry in made] == ["2023-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]


def test_assembled_image_has_patched_config_and_clean_descriptors() -> None:
    """EXP-06, EXP-07, CMPR-03"""
    store = Memory()
    config = ImageConfig(platform=HOST, extra=(("x.y", '"kept"'),))
    dirty = Descriptor(
        media_type=DOCKER_LAYER_GZIP,
        digest=Digest.of(b"l"),
        size=1,
        annotations=(("containerd.io/uncompressed", "x"), ("buildkit/createdat", "y"), ("own", "z")),
    )
    ref = LayerRef(diff_id=DiffId(Digest.of(b"d")), descriptor=dirty)
    made = assemble(
        store, config, (ref,), annotations=(parse_annotation("annotation.a", "b"),), inline_cache='{"c":1}'
    )
    data = store.blobs.data[made.config.digest]
    value = json.loads(data)
    assert list(value) == sorted(value)
    assert value["rootfs"]["diff_ids"] == [str(ref.diff_id)]
    assert value["x.y"] == "kept"
    assert value["moby.buildkit.cache.v0"] == {"c": 1}
    assert value["created"] == value["history"][-1]["created"]
    manifest = parse_document(store.blobs.data[made.manifest.digest])
    assert manifest.annotations == (("a", "b"),)
    assert manifest.layers[0].media_type == OCI_LAYER_GZIP  # type: ignore[union-attr]
    assert manifest.layers[0].annotations == (("own", "z"),)  # type: ignore[union-attr]
    assert clean_layer(dirty, oci=False).media_type == DOCKER_LAYER_GZIP
    assert store.blobs.data[made.manifest.digest].startswith(b'{\n  "schemaVersion": 2,\n  "mediaType"')


def test_assembling_is_repeatable() -> None:
    config = ImageConfig(platform=HOST, cmd=("sh",))
    digests = {assemble(Memory(), config, (layer(1),), epoch=7).manifest.digest for _ in range(3)}
    assert len(digests) == 1


def test_config_without_platform_is_refused() -> None:
    with pytest.raises(ExportError, match="missing architecture"):
        assemble(Memory(), ImageConfig(platform=Platform("linux", "")), ())


def test_index_keeps_the_order_and_names_platforms() -> None:
    store = Memory()
    images = [
        assemble(store, ImageConfig(platform=Platform("linux", arch)), (layer(1),), epoch=0)
        for arch in ("arm64", "amd64")
    ]
    root = assemble_index(store, images, annotations=(parse_annotation("annotation-index.a", "b"),))
    value = json.loads(store.blobs.data[root.digest])
    assert [entry["platform"]["architecture"] for entry in value["manifests"]] == ["arm64", "amd64"]
    assert value["annotations"] == {"a": "b"}


def test_annotations_without_a_place_are_refused() -> None:
    """EXP-10, EXP-11"""
    check_annotations((parse_annotation("annotation[linux/amd64].a", "b"),), (HOST,), indexed=False)
    with pytest.raises(ExportError, match="no platform linux/s390x"):
        check_annotations((parse_annotation("annotation[linux/s390x].a", "b"),), (HOST,), indexed=False)
    with pytest.raises(ExportError, match="index annotations"):
        check_annotations((parse_annotation("annotation-index.a", "b"),), (HOST,), indexed=False)
