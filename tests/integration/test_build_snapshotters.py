"""Overlay and copies give the same image: same layers, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from builder.exporter.types import OutputSpec
from tests.support.buildlab import Built, Lab

pytestmark = pytest.mark.root
TEXT = """\
FROM busybox AS made
RUN mkdir -p /out/d && echo a > /out/d/a && ln -s a /out/d/link && ln /out/d/a /out/hard && rm /bin/seq
FROM busybox
COPY --from=made /out /out
COPY --chown=1000:1000 data /data/
RUN rm -r /out/d && mkdir /out/d && echo new > /out/d/new && chmod 700 /data && rm /data/one
COPY --link data/two /linked/
WORKDIR /w/x
RUN echo more >> /etc/passwd
"""
Driver = Literal["overlay", "native"]


def made_by(tmp: Path, driver: Driver) -> tuple[str, ...]:
    tmp.mkdir()
    lab = Lab(tmp, snapshotter=driver)
    try:
        assert lab.store.snapshots.driver == driver
        context = lab.context({"data/one": "1", "data/two": "2"})
        clamped = OutputSpec.parse("type=image,source-date-epoch=1600000000,rewrite-timestamp=true")
        built = Built(lab, lab.build(context, TEXT, outputs=(clamped,)))
        assert built.read("linked/two") == "2"
        assert built.read("out/d/new") == "new\n"
        return tuple(str(diff_id) for diff_id in built.config.diff_ids)[1:]
    finally:
        lab.close()


def test_the_layers_are_equal(tmp_path: Path) -> None:
    assert made_by(tmp_path / "overlay", "overlay") == made_by(tmp_path / "native", "native")
