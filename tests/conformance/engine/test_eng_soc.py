"""OCI layouts and single blobs as sources (SOC rows)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import images
from builder.build.policy import SourceGate
from builder.cache.store import Store
from builder.errors import DigestMismatch, PybuildError, UsageError
from builder.exporter.types import OutputSpec
from builder.sources.named import parse_named
from builder.sources.policy import Policy
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.registry import running_registry
from tests.support.rows import row

pytestmark = pytest.mark.root


@pytest.fixture
def layout(lab: Lab, tmp_path: Path) -> Path:
    """A layout with tags ``one`` and ``two``."""
    out = tmp_path / "layout"
    for tag in ("one", "two"):
        context = lab.context({tag: tag, "Dockerfile": f"FROM scratch\nCOPY {tag} /\n"})
        lab.build(context, outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={out / tag},name=x:{tag}"),))
    entries = []
    for tag in ("one", "two"):
        entries += json.loads((out / tag / "index.json").read_text())["manifests"]
        for blob in (out / tag / "blobs/sha256").iterdir():
            place = out / "blobs/sha256" / blob.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(blob.read_bytes())
    (out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (out / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return out


def digests(layout: Path) -> list[str]:
    return [entry["digest"] for entry in json.loads((layout / "index.json").read_text())["manifests"]]


@row("SOC-01")
def test_layouts(lab: Lab, layout: Path, command: Runner) -> None:
    first, second = digests(layout)
    context = lab.context({"Dockerfile": "FROM base\n", "a": ""})

    def names(source: str) -> list[str]:
        return Built(lab, lab.build(context, build_contexts=(("base", source),))).names()

    assert names(f"oci-layout://{layout}:one") == ["one"]
    assert names(f"oci-layout://{layout}:two@{second}") == ["two"]
    assert names(f"oci-layout://{layout}@{first}") == ["one"]
    assert any(
        e.name == "[context base] OCI load from client" for e in lab.watcher.events if hasattr(e, "name")
    )
    assert (
        parse_named("b", f"oci-layout://{layout}:two").digest
        == parse_named("b", f"oci-layout://{layout}@{second}").digest
    )
    with pytest.raises(PybuildError, match="has no tag three"):
        names(f"oci-layout://{layout}:three")
    with pytest.raises(PybuildError, match="has no digest"):
        names(f"oci-layout://{layout}")
    with pytest.raises(UsageError, match='oci-layout reference "" has no name'):
        names("oci-layout://")
    with pytest.raises(PybuildError, match="no image with digest sha256:3333"):
        names(f"oci-layout://{layout}@sha256:{'3' * 64}")
    words = (
        f"--local=context={context}",
        f"--oci-layout=store={layout}",
        "--frontend=dockerfile.v0",
        "-t",
        "eng-soc",
    )
    command.run("build", *words, f"--opt=context:base=oci-layout://store@{first}")
    assert command.run("history", "-q", "eng-soc").out


@row("SOC-01")
def test_a_layout_is_not_trusted(layout: Path, tmp_path: Path) -> None:
    first = digests(layout)[0]
    blob = layout / "blobs/sha256" / first.partition(":")[2]
    blob.write_bytes(blob.read_bytes() + b" ")
    with Store.open(tmp_path / "other") as other, pytest.raises(DigestMismatch):
        images.import_layout(other, layout, first)


@row("SOC-02")
def test_blobs_as_files(lab: Lab, layout: Path) -> None:
    data = b"a blob\n"
    with running_registry() as registry:
        digest = registry.put_blob("files", data)
        (layout / "blobs/sha256" / digest.partition(":")[2]).write_bytes(data)
        context = lab.context({"Dockerfile": "FROM scratch\nCOPY --from=b / /\n", "a": ""})
        remote = f"docker-image+blob://{registry.host}/files@{digest}"
        built = Built(lab, lab.build(context, build_contexts=(("b", remote),)))
        assert built.read("context") == "a blob\n"
        st = built.stat("context")
        assert (st.st_mode & 0o777, st.st_uid, st.st_gid, st.st_mtime) == (0o600, 0, 0, 0)
        lost = f"docker-image+blob://{registry.host}/files@sha256:{'4' * 64}"
        with pytest.raises(PybuildError, match="4444"):
            lab.build(context, build_contexts=(("b", lost),))
        rule = {
            "action": "CONVERT",
            "selector": {"identifier": "https://example.com/file"},
            "updates": {
                "identifier": remote,
                "attrs": {"http.perm": "755", "http.uid": "7", "http.gid": "8"},
            },
        }
        swap = Policy.parse(json.dumps({"rules": [rule]}).encode())
        text = "FROM scratch\nADD https://example.com/file /bin/\n"
        built = Built(lab, lab.build(context, text, source_policies=(swap,)))
        assert built.read("bin/file") == "a blob\n"
    local = f"oci-layout+blob://{layout}@{digest}"
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=b /context /c\n")
    assert Built(lab, lab.build(context, build_contexts=(("b", local),))).read("c") == "a blob\n"
    with pytest.raises(PybuildError, match="is not in"):
        lab.build(context, build_contexts=(("b", local.replace(digest, f"sha256:{'5' * 64}")),))
    with pytest.raises(UsageError, match="invalid blob"):
        lab.build(context, build_contexts=(("b", f"oci-layout+blob://{layout}"),))
    assert SourceGate().passed(local) == (local, ())
