"""What becomes of configs and histories on their way out (EXP-07, EXP-08)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from builder.errors import ExportError
from builder.exporter.image import assemble, patch_config
from builder.exporter.types import LayerRef
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from builder.oci.digest import DiffId, Digest
from builder.oci.platform import Platform, host_platform
from tests.support.buildlab import Lab
from tests.support.rows import row

EARLY, LATE = "2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"
CONFIG = ImageConfig.scratch(host_platform())


def layer(number: int, created: str | None = LATE) -> LayerRef:
    digest = Digest.of(bytes([number]))
    descriptor = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest, size=1)
    return LayerRef(
        diff_id=DiffId(digest), descriptor=descriptor, created=created, created_by=f"step {number}"
    )


def entry(text: str, *, empty: bool = False, created: str | None = EARLY) -> History:
    return History(created=created, created_by=text, empty_layer=empty)


@row("EXP-07")
@pytest.mark.root
def test_the_published_config(lab: Lab) -> None:
    text = '{"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"x.own":{"k":[1]}}'
    config = ImageConfig.from_bytes((text % ("0" * 64)).encode())
    history = (entry("a"), entry("b", created=LATE))
    made = assemble(
        lab.store, replace(config, history=history), (layer(1), layer(2)), inline_cache='{"layers":[]}'
    )
    value = json.loads(lab.store.blobs.read(made.config.digest, 1 << 20))
    assert value["rootfs"]["diff_ids"] == [str(layer(n).diff_id) for n in (1, 2)]
    assert value["created"] == LATE, "the last of the history"
    assert value["x.own"] == {"k": [1]}
    assert value["moby.buildkit.cache.v0"] == {"layers": []}
    clamped = patch_config(replace(config, history=history), (layer(1), layer(2)), epoch=5)
    assert clamped.created == "1970-01-01T00:00:05Z"


@row("EXP-07")
@pytest.mark.parametrize(
    ("platform", "missing"), [(Platform("", "amd64"), "os"), (Platform("linux", ""), "architecture")]
)
def test_a_config_without_platform(platform: Platform, missing: str) -> None:
    with pytest.raises(ExportError, match=f"^invalid image config for export: missing {missing}$"):
        patch_config(replace(CONFIG, platform=platform), ())


@row("EXP-08")
def test_surplus_entries_become_empty_from_the_end() -> None:
    history = (entry("a"), entry("b", empty=True), entry("c"), entry("d"))
    made = patch_config(replace(CONFIG, history=history), (layer(1),)).history
    assert [(one.created_by, one.empty_layer) for one in made] == [
        ("a", False),
        ("b", True),
        ("c", True),
        ("d", True),
    ]


@row("EXP-08")
def test_missing_entries_are_appended() -> None:
    made = patch_config(replace(CONFIG, history=(entry("a"),)), (layer(1), layer(2), layer(3))).history
    assert [one.created_by for one in made] == ["a", "step 2", "step 3"]
    assert [one.comment for one in made] == ["", "buildkit.exporter.image.v0", "buildkit.exporter.image.v0"]
    assert made[1].created == LATE


@row("EXP-08")
def test_times_come_from_layers_then_neighbours() -> None:
    history = (entry("a", created=None), entry("b", empty=True, created=None), entry("c"))
    made = patch_config(replace(CONFIG, history=history), (layer(1, LATE), layer(2))).history
    assert [one.created for one in made] == [LATE, EARLY, EARLY]
