"""Scans for SBOMs, and where attestations go (ATT-10, ATT-11, EXL-04, EXO-01)."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.attest.types import MAX_BYTES
from builder.errors import ExportError, InvalidValue, SolveError
from builder.exporter.attestations import check_size
from builder.exporter.types import OutputSpec
from builder.solver.progress import WarningEvent
from tests.support import peers
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.registryd import RegistryDaemon
from tests.support.rows import row
from tests.support.scanners import Layout, attested, make_scanner

pytestmark = pytest.mark.root
PROVENANCE = "type=provenance,mode=min"
DOCKERFILE = "FROM busybox\nRUN echo 1 > /one && ln /one /uno\nRUN echo 2 > /two\n"


@pytest.fixture(scope="module")
def scanner(lab: Lab) -> str:
    return make_scanner(lab, "scanner")


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": DOCKERFILE})


def documents(found: Layout) -> dict[str, dict[str, object]]:
    return {
        item["predicate"]["name"]: item["predicate"]
        for item in found.statements()
        if "spdx" in item["predicateType"]
    }


@row("ATT-10")
def test_a_scan(lab: Lab, context: Path, scanner: str, tmp_path: Path) -> None:
    found = attested(lab, context, tmp_path / "o", f"{scanner},EXTRA=on")
    (statement,) = found.statements()
    assert statement["predicateType"] == "https://spdx.dev/Document"
    assert statement["predicate"]["args"] == "on"
    names = [item["fileName"] for item in statement["predicate"]["files"]]
    assert "/one" in names and "/bin/busybox" in names
    assert "[linux/amd64] generating sbom using scanner" in lab.watcher.ran()
    lab.build(context, attest=(f"{scanner},EXTRA=on",))
    assert "[linux/amd64] generating sbom using scanner" not in lab.watcher.ran(), "cached"


@row("ATT-10")
def test_a_scan_for_each_platform_and_of_more(lab: Lab, scanner: str, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS made\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY a /a\n"
        "FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY --from=made /a /b\n"
    )
    context = lab.context({"Dockerfile": text, "a": "x"})
    platforms = ("linux/amd64", "linux/arm64")
    text = text.replace("FROM busybox AS", "FROM --platform=linux/amd64 busybox AS")
    (context / "Dockerfile").write_text(text)
    found = attested(lab, context, tmp_path / "o", scanner, platforms=platforms)
    assert [len(found.statements(number)) for number in (0, 1)] == [3, 3]
    shown = {name: [item["fileName"] for item in doc["files"]] for name, doc in documents(found).items()}  # type: ignore[attr-defined]
    assert shown["sbom"] == ["/b"]
    assert shown["sbom-context"] == ["/Dockerfile", "/a"]
    assert "/a" in shown["sbom-made"] and "/bin/busybox" in shown["sbom-made"]


@row("ATT-11")
def test_files_get_their_layer(lab: Lab, context: Path, scanner: str, tmp_path: Path) -> None:
    found = attested(lab, context, tmp_path / "o", scanner)
    layers = [layer["digest"] for layer in found.read(found.root["manifests"][0]["digest"])["layers"]]
    files = {item["fileName"]: item.get("comment") for item in documents(found)["sbom"]["files"]}  # type: ignore[attr-defined]
    assert files["/bin/busybox"] == f"layerID: {layers[0]}"
    assert files["/one"] == files["/uno"] == f"layerID: {layers[1]}"
    assert files["/two"] == f"layerID: {layers[2]}"


def test_a_scan_of_nothing(lab: Lab, scanner: str, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nLABEL a=b\n"})
    found = attested(lab, context, tmp_path / "o", scanner)
    assert documents(found)["sbom"]["files"] == []


@row("ATT-11")
@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("ln -s /etc/passwd $BUILDKIT_SCAN_DESTINATION/a.spdx.json\n", SolveError, "is not a regular file"),
        ("rm -r /run/out && ln -s /etc /run/out\n", SolveError, "wrote no"),
        (
            "echo '{}' > $BUILDKIT_SCAN_DESTINATION/a.spdx.json\n",
            InvalidValue,
            "neither an in-toto statement",
        ),
        ("echo '{' > $BUILDKIT_SCAN_DESTINATION/a.spdx.json\n", InvalidValue, "not valid JSON"),
        (
            'echo \'{"predicateType":"x","predicate":{}}\' > $BUILDKIT_SCAN_DESTINATION/a.spdx.json\n',
            InvalidValue,
            "is about 'x'",
        ),
        (
            "dd if=/dev/zero of=$BUILDKIT_SCAN_DESTINATION/a.spdx.json bs=1024 count=0 seek=41000\n",
            SolveError,
            "limit of",
        ),
        ("exit 7\n", SolveError, "exit code: 7"),
    ],
    ids=["link", "link-above", "empty", "no-json", "type", "size", "fails"],
)
def test_a_scanner_is_not_trusted(
    lab: Lab, context: Path, tmp_path: Path, script: str, error: type[Exception], message: str
) -> None:
    asked = make_scanner(lab, "bad" + hashlib.sha256(script.encode()).hexdigest()[:8], script)
    with pytest.raises(error, match=message):
        lab.build(context, attest=(asked,))


@row("ATT-11")
def test_limits_and_a_scanner_without_command(lab: Lab, context: Path) -> None:
    check_size([MAX_BYTES - 1, 1])
    with pytest.raises(ExportError, match="larger than the limit"):
        check_size([MAX_BYTES, 1])
    lab.build(lab.context({}), "FROM busybox\nCMD []\n", tags=("idle",))
    with pytest.raises(SolveError, match=r"^scanner idle does not have cmd"):
        lab.build(context, attest=("type=sbom,generator=idle",))


@row("ATT-03")
def test_subjects_of_the_scanner_are_kept(lab: Lab, context: Path, tmp_path: Path) -> None:
    subject = [{"name": "it", "digest": {"sha256": "0" * 64}}]
    document = {"predicateType": "https://spdx.dev/Document", "subject": subject, "predicate": {"a": 1}}
    asked = make_scanner(
        lab, "subjects", f"echo '{json.dumps(document)}' > $BUILDKIT_SCAN_DESTINATION/own.spdx.json\n"
    )
    (statement,) = attested(lab, context, tmp_path / "o", asked, output=",name=x").statements()
    assert statement["subject"] == subject


@row("EXL-04", "ATT-04")
def test_files_beside_a_tree(lab: Lab, context: Path, scanner: str, tmp_path: Path) -> None:
    spec = OutputSpec.parse(f"type=local,mode=delete,dest={tmp_path / 'o'},attestation-prefix=x-")
    lab.build(context, outputs=(spec,), attest=(f"{PROVENANCE},filename=how.json", scanner))
    for name in ("x-how.json", "x-sbom.spdx.json"):
        path = tmp_path / "o" / name
        assert path.stat().st_mode & 0o777 == 0o600
        statement = json.loads(path.read_bytes())
        subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
        assert subjects["two"] == hashlib.sha256(b"2\n").hexdigest()
        regular = [
            os.path.relpath(os.path.join(base, file), tmp_path / "o")
            for base, _, files in os.walk(tmp_path / "o")
            for file in files
            if not os.path.islink(os.path.join(base, file)) and not file.startswith("x-")
        ]
        assert sorted(subjects) == sorted(regular)
    inline = OutputSpec.parse(f"type=local,dest={tmp_path / 'p'}")
    lab.build(context, outputs=(inline,), attest=(f"{PROVENANCE},inline-only=true",))
    assert not (tmp_path / "p" / "provenance.json").exists()


@row("EXL-04")
def test_names_with_platforms(lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH/\n"})
    platforms = ("linux/amd64", "linux/arm64")
    joined = OutputSpec.parse(f"type=local,dest={tmp_path / 'o'},platform-split=false")
    split = OutputSpec.parse(f"type=tar,dest={tmp_path / 'o.tar'}")
    lab.build(context, outputs=(joined, split), attest=(PROVENANCE,), platforms=platforms)
    names = sorted(path.name for path in (tmp_path / "o").glob("prov*"))
    assert names == ["provenance.linux_amd64.json", "provenance.linux_arm64.json"]
    with tarfile.open(tmp_path / "o.tar") as tar:
        member = tar.getmember("linux_arm64/provenance.json")
        assert (member.mode, member.uid) == (0o600, 0)
        file = tar.extractfile(member)
        assert file is not None and json.load(file)["subject"][0]["name"] == "arm64/Dockerfile"
    taken = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /provenance.json\n"})
    with pytest.raises(ExportError, match="the result has a file of that name"):
        lab.build(
            taken, outputs=(OutputSpec.parse(f"type=local,dest={tmp_path / 'q'}"),), attest=(PROVENANCE,)
        )


@row("EXO-01")
def test_docker_archives_have_none(lab: Lab, context: Path, tmp_path: Path) -> None:
    spec = OutputSpec.parse(f"type=docker,dest={tmp_path / 'o.tar'},name=x")
    for more, told in ((",inline-only=true", 0), ("", 1)):
        lab.build(context, outputs=(spec,), attest=(PROVENANCE + more,))
        warnings = [event.short for event in lab.watcher.events if isinstance(event, WarningEvent)]
        assert len([text for text in warnings if "docker archives hold no attestations" in text]) == told
        with tarfile.open(tmp_path / "o.tar") as tar:
            assert b"in-toto" not in b"".join(
                tar.extractfile(m).read(4096)
                for m in tar
                if m.isreg() and m.size < 4096  # type: ignore[union-attr]
            )


@pytest.fixture
def peer() -> Iterator[peers.Peer]:
    found = peers.Peer()
    yield found
    found.close()


@row("ATT-02")
def test_peers_take_the_image(
    lab: Lab, context: Path, scanner: str, tmp_path: Path, peer: peers.Peer
) -> None:
    for name, output in (("artifact", ""), ("image", ",oci-artifact=false")):
        attested(lab, context, tmp_path / name, PROVENANCE, scanner, output=f",name=it{output}")
        peers.skopeo("copy", "--all", f"oci:{tmp_path / name}:latest", f"oci:{tmp_path / name}-all:x")
        copied = Layout(tmp_path / f"{name}-all")
        assert len(copied.notes()) == 1
        peer.podman("pull", "-q", f"oci:{tmp_path / name}:latest")
        image = peer.podman("images", "-q").stdout.decode().split()[0]
        assert peer.podman_run(image, "cat", "/two").stdout == b"2\n"


def test_the_store_takes_the_image(lab: Lab, context: Path, command: Runner, tmp_path: Path) -> None:
    plain = lab.build(context, tags=("held",))
    result = lab.build(context, tags=("held",), attest=(PROVENANCE,))
    assert Built(lab, result).read("one") == "1\n"
    assert result.image_id == plain.image_id, "an attestation changes no image"
    again = lab.build(context, tags=("held",), attest=(PROVENANCE,))
    rows = [line for line in command.run("images").out.splitlines() if str(result.image_id)[7:19] in line]
    assert len(rows) == 1, "no image is left without a name"
    assert command.inspect("held")["Id"] == again.image_id
    unanswered = lab.build(context, tags=("other",))
    assert unanswered.digest == plain.digest, "nor is a build without them answered by one with"
    command.run("save", "-o", tmp_path / "s.tar", "held")
    lab.store.prune(all=True)
    assert command.run("run", "--rm", "held", "cat", "/two").out == "2\n"


def test_a_registry_takes_it(lab: Lab, context: Path, command: Runner, tmp_path: Path) -> None:
    daemon = RegistryDaemon.start(tmp_path)
    try:
        name = f"{daemon.address}/attested:v1"
        spec = OutputSpec.parse("type=registry,registry.insecure=true")
        result = lab.build(context, tags=(name,), outputs=(spec,), attest=(PROVENANCE,))
        raw = json.loads(peers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}").stdout)
        assert [entry["platform"]["os"] for entry in raw["manifests"]] == ["linux", "unknown"]
        note = raw["manifests"][1]["digest"]
        repository = name.rpartition(":")[0]
        peers.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{repository}@{note}")
        command.run("push", name)
        command.run("pull", name)
        assert command.inspect(name)["Id"] == result.image_id
    finally:
        daemon.stop()
