"""Provenance of builds on record, in mode max (HSY-02)."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.build import history
from builder.build.historybundle import bundle
from builder.cache.db import Database
from builder.cache.fsck import _quick
from builder.cache.history import INPUTS
from builder.errors import PybuildError
from builder.oci.digest import Digest
from builder.solver.protowire import fields
from builder.solver.types import Secret
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row
from tests.support.scanners import Layout, attested

pytestmark = [pytest.mark.root, pytest.mark.linux]
TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
DOCKERFILE = """\
FROM busybox AS made
ARG PLACE=none
RUN --mount=type=secret,id=token --mount=type=ssh,required=false echo 1 > /one
FROM busybox
COPY --from=made /one /one
COPY file /
"""
URL = "https://user:canary-word@example.com/x@y"


def provenance(lab: Lab, ref: str = "") -> list[dict[str, Any]]:
    """What the record has, made when asked for."""
    found = history.finalized(lab.store, history.find(lab.store, ref))
    items = [item for item in history.attachments(lab.store, found) if item.predicate == PREDICATE]
    return [json.loads(history.attachment_bytes(lab.store, item)) for item in items]


def wrong(lab: Lab) -> set[str]:
    """What one look of fsck finds wrong with the history."""
    root = str(lab.store.root)
    db = Database(f"{root}/db.sqlite")
    try:
        return {item.code for item in _quick(db, root) if item.code.startswith("history")}
    finally:
        db.close()


def kept(lab: Lab) -> set[str]:
    return {key for (key,) in lab.store.db.all("SELECT key FROM docs WHERE kind=?", (INPUTS,))}


def same(lab: Lab, out: Layout) -> dict[str, Any]:
    """The record's document, which is the published one but for its times."""
    (statement,) = out.statements()
    published = statement["predicate"]
    (found,) = provenance(lab)
    for document in (published, found):
        metadata = document["runDetails"]["metadata"]
        started, finished = metadata.pop("startedOn"), metadata.pop("finishedOn")
        assert started < finished
    hidden = json.dumps(published).replace("SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0", "SSH_AUTH_SOCK=xxxxx")
    assert found == json.loads(hidden), "the same in every other part"
    return found


@row("HSY-02", "ATT-05", "ATT-07", "ATT-08", "ATT-09")
def test_it_is_what_an_image_gets_in_mode_max(lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": DOCKERFILE, "file": "x"})
    (context / ".git").mkdir()
    (context / ".git" / "HEAD").write_text("a" * 40 + "\n")
    args = (("PLACE", URL), ("OTHER", "plain"))
    secrets = (Secret(id="token", data=b"canary-value"),)
    out = attested(
        lab, context, tmp_path / "o", "type=provenance", secrets=secrets, build_args=args, tags=("n",)
    )
    found = same(lab, out)
    assert found["runDetails"]["metadata"]["invocationID"] == history.find(lab.store).ref
    text = json.dumps(found)
    assert "canary" not in text
    request = found["buildDefinition"]["externalParameters"]["request"]
    assert request["args"]["build-arg:PLACE"] == "https://xxxxx@example.com/x@y"
    assert (request["secrets"], request["ssh"]) == ([{"id": "token", "optional": True}], [
        {"id": "default", "optional": True}
    ])  # fmt: skip
    kept = found["runDetails"]["metadata"]["buildkit_metadata"]
    assert kept["vcs"] == {"revision": "a" * 40}
    assert kept["source"]["locations"]
    assert len(kept["layers"]) >= 2
    assert len(found["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]) >= 4


@row("HSY-02", "ATT-07")
def test_sources_of_other_machines(
    lab: Lab, tmp_path: Path, site: tuple[str, Path], repository: tuple[str, str]
) -> None:
    (address, served), (url, commit) = site, repository
    (served / "of-record.txt").write_text("material")
    text = f"FROM busybox\nADD {address}/of-record.txt /\nADD {url}#v1 /r\nRUN --network=none true\n"
    local = lab.context({"Dockerfile": text})
    found = same(lab, attested(lab, local, tmp_path / "o", "type=provenance"))
    digests = {item["uri"]: item["digest"] for item in found["buildDefinition"]["resolvedDependencies"]}
    assert digests[f"{url}#v1"] == {"sha1": commit}
    assert len(digests) == 3
    found = same(lab, attested(lab, f"{url}#v1", tmp_path / "p", "type=provenance"))
    assert found["buildDefinition"]["externalParameters"]["configSource"]["digest"] == {"sha1": commit}
    assert found["runDetails"]["metadata"]["buildkit_hermetic"] is True


@row("HSY-02")
def test_what_looks_secret_is_hidden(lab: Lab) -> None:
    text = f"FROM busybox\nENV API_TOKEN=canary-env URL={URL}\nRUN echo 'https://h/x' 'a@b' > /x\n"
    lab.build(lab.context(), text, build_args=(("MY_PASSWORD", "canary-argument"),))
    (found,) = provenance(lab)
    shown = json.dumps(found["buildDefinition"])
    assert "canary-env" not in shown
    assert "canary-argument" not in shown
    assert "canary-word" not in json.dumps(found)
    steps = found["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
    assert "API_TOKEN=xxxxx" in json.dumps(steps)
    (step,) = [item for item in steps if "exec" in item["op"]["Op"]]
    assert step["op"]["Op"]["exec"]["meta"]["args"][-1] == "echo 'https://h/x' 'a@b' > /x"


@row("HSY-02")
def test_it_is_made_once_and_goes_with_its_record(lab: Lab) -> None:
    history.remove_all(lab.store)
    lab.build(lab.context(), "FROM busybox\nRUN echo provenance-once\n")
    found = history.find(lab.store)
    folder = Path(lab.store.builds.directory(found.ref))
    assert not (folder / "provenance").exists(), "a build does not wait for it"
    done = history.finalized(lab.store, found)
    content = (folder / "provenance").read_bytes()
    assert done.data["provenance"] == [
        {
            "mediaType": TYPE,
            "digest": str(Digest.of(content)),
            "size": len(content),
            "predicateType": PREDICATE,
            "platform": "linux/amd64",
        }
    ]
    assert history.finalized(lab.store, done) == done
    assert not wrong(lab)
    (folder / "provenance").write_bytes(b"{}")
    assert wrong(lab) == {"history-provenance"}
    (folder / "provenance").unlink()
    history.finalized(lab.store, done)
    assert (folder / "provenance").read_bytes() == content, "made again, the same"
    lab.store.prune(all=True)
    assert found.data["inputs"] in kept(lab), "only its record keeps it"
    history.remove(lab.store, [found.ref])
    assert not folder.exists()
    assert found.data["inputs"] not in kept(lab)


@row("HSY-02")
def test_a_recalled_build_has_its_own(lab: Lab) -> None:
    context = lab.context()
    first = str(lab.build(context, "FROM busybox\nRUN echo provenance-recalled\n").build_id)
    second = str(lab.build(context).build_id)
    assert history.find(lab.store, second).recalled
    (one,), (two,) = provenance(lab, first), provenance(lab, second)
    history.remove(lab.store, [first])
    third = str(lab.build(context).build_id)
    (three,) = provenance(lab, third)
    for document, ref in ((one, first), (two, second), (three, third)):
        metadata = document["runDetails"]["metadata"]
        assert metadata.pop("invocationID") == ref
        assert metadata.pop("startedOn") <= metadata.pop("finishedOn")
    assert one == two == three
    lab.store.prune(all=True)
    Path(lab.store.builds.directory(third), "provenance").unlink(missing_ok=True)
    assert len(provenance(lab, third)) == 1
    assert not wrong(lab)
    name = history.find(lab.store, third).data["inputs"]
    lab.store.db.run("DELETE FROM docs WHERE key=?", (name,))
    assert wrong(lab) == {"history-inputs"}
    history.remove(lab.store, [second, third])
    assert not wrong(lab)


@row("HSY-02")
def test_failed_builds_have_none_and_running_ones_keep_what_was_written(lab: Lab) -> None:
    with pytest.raises(PybuildError):
        lab.build(lab.context(), "FROM busybox\nRUN exit 7\n")
    assert provenance(lab) == []
    history.remove_all(lab.store)
    lab.build(lab.context(), "FROM busybox\nRUN echo provenance-busy\n")
    lab.store.put_doc(INPUTS, "sha256:of-one-that-runs", b"")
    lab.store.builds.add("runs", {})
    history.remove(lab.store, [item.ref for item in history.records(lab.store) if not item.running])
    assert "sha256:of-one-that-runs" in kept(lab)
    lab.store.builds.finish("runs", "completed", {})
    history.remove(lab.store, ["runs"])
    assert "sha256:of-one-that-runs" not in kept(lab)


@row("HSY-02", "HSY-06")
def test_every_platform_has_one_in_the_archive(lab: Lab) -> None:
    platforms = ("linux/amd64", "linux/arm64")
    lab.build(
        lab.context(), "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n", platforms=platforms
    )
    found = history.find(lab.store)
    out = io.BytesIO()
    bundle(lab.store, [found], out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    blobs = {name.removeprefix("blobs/").replace("/", ":"): data for name, data in content.items()}
    (entry,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(blobs[entry["digest"]])
    layers = [item for item in manifest["layers"] if item["mediaType"] == TYPE]
    assert [item["annotations"] for item in layers] == [{"in-toto.io/predicate-type": PREDICATE}] * 2
    texts = [blobs[item["digest"]].decode() for item in layers]
    assert "/arm64" in texts[1] and "/arm64" not in texts[0]
    message = list(fields(blobs[manifest["layers"][0]["digest"]]))
    results = [dict(fields(value)) for number, value in message if number == 11]  # type: ignore[arg-type]
    assert [item[1].decode() for item in results] == list(platforms)  # type: ignore[union-attr]
    for result, layer in zip(results, layers, strict=True):
        about = dict(fields(dict(fields(result[2]))[2]))  # type: ignore[arg-type]
        note = dict(fields(about.pop(5)))  # type: ignore[arg-type]
        assert about == {1: TYPE.encode(), 2: layer["digest"].encode(), 3: layer["size"]}
        assert note == {1: b"in-toto.io/predicate-type", 2: PREDICATE.encode()}


@row("HSY-02", "HSY-04")
def test_the_verbs(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo provenance-verbs\n")
    command.build(tmp_path)
    command.build(tmp_path)
    for ref in ("^1", "^0"):
        shown = json.loads(command.run("history", "inspect", ref, "--format", "json").out)
        (item,) = [item for item in shown["Attachments"] if item.get("PredicateType") == PREDICATE]
        content = command.run("history", "inspect", "attachment", ref, "provenance").stdout
        assert str(Digest.of(content)) == item["Digest"]
        assert json.loads(content)["runDetails"]["metadata"]["invocationID"] == shown["Ref"]
        for name in (PREDICATE, item["Digest"]):
            assert command.run("history", "inspect", "attachment", ref, name).stdout == content
    assert PREDICATE in command.run("history", "inspect").out
