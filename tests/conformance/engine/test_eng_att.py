"""Attestations in images: provenance (ATT-01…ATT-09)."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from builder.attest.request import parse_request
from builder.errors import ExportError, SolveError, UsageError
from builder.exporter.types import OutputSpec
from builder.solver.types import Secret
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row
from tests.support.scanners import Layout, attested

root_only = pytest.mark.root
DOCKERFILE = """\
FROM busybox AS made
ARG TOKEN_URL=none
RUN --mount=type=secret,id=token --mount=type=ssh,required=false --mount=type=secret,id=must,required=true \
    echo 1 > /one
FROM busybox
COPY --from=made /one /one
RUN echo 2 > /two
"""
PROVENANCE = "type=provenance"


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": DOCKERFILE, "file": "x"})


def built(lab: Lab, context: Path | str, out: Path, *attest: str, **more: Any) -> Layout:
    secrets = (Secret(id="must", data=b"canary-value"), Secret(id="token", data=b"canary-token"))
    return attested(lab, context, out, *attest, secrets=secrets, **more)


@row("ATT-01")
def test_what_is_asked_for() -> None:
    assert parse_request(()) is None
    assert parse_request(("type=provenance,disabled=true", "type=sbom,false")) is None
    both = parse_request(("type=provenance,mode=min", "type=sbom,generator=x,level=2"))
    assert both is not None and both.provenance is not None and both.sbom is not None
    assert (both.provenance.mode, both.sbom.generator, both.sbom.params) == ("min", "x", (("level", "2"),))
    for value, mode in (("mode=min", "min"), ("true", "max"), ("", "max")):
        args = parse_request((), (("BUILDKIT_ATTEST_PROVENANCE", value),))
        assert args is not None and args.provenance is not None and args.provenance.mode == mode
    assert parse_request((), (("BUILDKIT_ATTEST_SBOM", "false"),)) is None
    assert parse_request(("type=sbom,disabled=true",), (("BUILDKIT_ATTEST_SBOM", "true"),)) is None
    with pytest.raises(UsageError, match=r'^unknown attestation type "nonsense"'):
        parse_request(("type=nonsense",))
    for text in ("mode=min", "type=provenance,mode", 'type=provenance,"x', "type=provenance,nodem=min"):
        with pytest.raises(UsageError):
            parse_request((text,))


@row("ATT-01")
@root_only
def test_a_build_argument_asks(lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    assert "manifests" not in attested(lab, context, tmp_path / "a").root
    found = attested(lab, context, tmp_path / "b", build_args=(("BUILDKIT_ATTEST_PROVENANCE", "mode=max"),))
    assert "BUILDKIT_ATTEST" not in json.dumps(found.statements())
    with pytest.raises(UsageError, match="unknown attestation type"):
        lab.build(context, build_args=(("BUILDKIT_ATTEST_X", "1"),))


@row("ATT-02", "EXP-05")
@root_only
@pytest.mark.parametrize("artifact", [True, False])
def test_the_manifest_in_the_index(lab: Lab, tmp_path: Path, *, artifact: bool) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    output = "" if artifact else ",oci-artifact=false"
    platforms = ("linux/amd64", "linux/arm64")
    found = attested(lab, context, tmp_path / "o", PROVENANCE, output=output, platforms=platforms)
    shown = [entry["platform"]["architecture"] for entry in found.root["manifests"]]
    assert shown == ["amd64", "arm64", "unknown", "unknown"]
    for image, note in zip(found.root["manifests"][:2], found.notes(), strict=True):
        assert note["annotations"] == {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        }
        manifest = found.read(note["digest"])
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        assert layer["annotations"] == {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
        config = found.read(manifest["config"]["digest"])
        if artifact:
            assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
            assert manifest["subject"]["digest"] == image["digest"]
            assert (config, manifest["config"]["size"]) == ({}, 2)
        else:
            assert "subject" not in manifest
            assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
            assert config["rootfs"]["diff_ids"] == [layer["digest"]]


@row("ATT-02")
@root_only
def test_no_docker_media_types(lab: Lab, context: Path) -> None:
    with pytest.raises(UsageError, match='"oci-artifact=true" conflicts with "oci-mediatypes=false"'):
        OutputSpec.parse("type=image,oci-artifact=true,oci-mediatypes=false")
    spec = OutputSpec.parse("type=image,oci-mediatypes=false")
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    with pytest.raises(ExportError, match='cannot export attestations with "oci-mediatypes=false"'):
        lab.build(context, outputs=(spec,), attest=(PROVENANCE,))


@row("ATT-03")
@root_only
def test_the_statement(lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    tags = ("one", "localhost:5000/two/x:v1")
    found = attested(lab, context, tmp_path / "o", PROVENANCE, output=",name=one", tags=tags)
    named = attested(lab, context, tmp_path / "p", PROVENANCE, output=',"name=one,localhost:5000/two/x:v1"')
    digest = found.root["manifests"][0]["digest"].removeprefix("sha256:")
    (statement,) = found.statements()
    assert list(statement) == ["_type", "predicateType", "subject", "predicate"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": "pkg:docker/one@latest?platform=linux%2Famd64", "digest": {"sha256": digest}}
    ]
    assert [item["name"] for item in named.statements()[0]["subject"]] == [
        "pkg:docker/one@latest?platform=linux%2Famd64",
        "pkg:docker/localhost:5000/two/x@v1?platform=linux%2Famd64",
    ]
    unnamed = attested(lab, context, tmp_path / "n", PROVENANCE)
    (statement,) = unnamed.statements()
    assert statement["subject"] == []
    raw = (
        unnamed.path
        / "blobs"
        / unnamed.read(unnamed.notes()[0]["digest"])["layers"][0]["digest"].replace(":", "/")
    )
    assert raw.read_bytes().startswith(b'{"_type":"https://in-toto.io/Statement/v1","predicateType":')


@row("ATT-04")
@root_only
def test_attributes(lab: Lab, tmp_path: Path) -> None:
    for text, message in (
        ("mode=most", 'invalid mode "most"'),
        ("version=v2", "invalid provenance SLSA version: v2"),
        ("reproducible=perhaps", 'failed to parse reproducible flag "perhaps"'),
        ("filename=a/b", "invalid filename"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_request((f"{PROVENANCE},{text}",))
    full = parse_request((f"{PROVENANCE},mode=full",))
    assert full is not None and full.provenance is not None and full.provenance.mode == "max"
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    told = f"{PROVENANCE},builder-id=https://ci.example/7,reproducible=true,capture-usage=true"
    details = attested(lab, context, tmp_path / "o", told).predicate("provenance/v1")["runDetails"]
    assert details["builder"] == {"id": "https://ci.example/7"}
    assert details["metadata"]["buildkit_reproducible"] is True
    usage = details["metadata"]["buildkit_metadata"]["sysUsage"]
    assert len(usage) == 2 and usage[0]["memoryStat"]["total"] > 0
    with pytest.raises(SolveError, match="materials are not complete: the build uses local sources: context"):
        lab.build(context, attest=(f"{PROVENANCE},complete-materials=true",))


@row("ATT-05", "ATT-08")
@root_only
def test_slsa_v1_in_mode_max(lab: Lab, context: Path, tmp_path: Path) -> None:
    args = (("TOKEN_URL", "https://me:canary-password@host.example/x"),)
    found = built(lab, context, tmp_path / "o", PROVENANCE, build_args=args, labels=(("a", "b"),))
    predicate = found.predicate("provenance/v1")
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    assert definition["buildType"] == "urn:pybuild:dockerfile:v1"
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    assert definition["externalParameters"]["request"] == {
        "frontend": "dockerfile.v0",
        "args": {
            "build-arg:TOKEN_URL": "https://xxxxx@host.example/x",
            "force-network-mode": "none",
            "label:a": "b",
        },
        "secrets": [{"id": "must"}, {"id": "token", "optional": True}],
        "ssh": [{"id": "default", "optional": True}],
        "locals": [{"name": "dockerfile"}],
    }
    assert definition["internalParameters"]["builderPlatform"] == "linux/amd64"
    metadata = details["metadata"]
    assert details["builder"]["id"] == "urn:pybuild:builder"
    assert metadata["startedOn"] < metadata["finishedOn"]
    assert lab.store.builds.get(metadata["invocationID"]) is not None
    assert metadata["buildkit_completeness"] == {"request": True, "resolvedDependencies": False}
    assert (metadata["buildkit_hermetic"], metadata["buildkit_reproducible"]) == (False, False)
    assert "canary" not in "".join(path.read_text("utf-8", "replace") for path in blobs_of_notes(found))
    check_steps(definition["internalParameters"]["buildConfig"], metadata["buildkit_metadata"], found)


def blobs_of_notes(found: Layout) -> list[Path]:
    names = [layer["digest"] for note in found.notes() for layer in found.read(note["digest"])["layers"]]
    return [found.path / "blobs" / name.replace(":", "/") for name in names]


def check_steps(config: dict[str, Any], more: dict[str, Any], found: Layout) -> None:
    steps = {step["id"]: step for step in config["llbDefinition"]}
    assert (
        sorted(config["digestMapping"].values()) == sorted(steps) == [f"step{n}" for n in range(len(steps))]
    )
    commands = {
        name: step["op"]["Op"].get("exec", {}).get("meta", {}).get("args", [])[-1:]
        for name, step in steps.items()
    }
    (last,) = (name for name, command in commands.items() if command == ["echo 2 > /two"])
    (source,) = steps[last]["inputs"]
    assert source.partition(":")[0] in steps
    assert "inputs" not in steps[last]["op"]
    location = more["source"]["locations"][last]["locations"][0]
    assert location["ranges"] == [{"start": {"line": 6}, "end": {"line": 6}}]
    (info,) = more["source"]["infos"]
    assert (info["filename"], info["language"]) == ("Dockerfile", "Dockerfile")
    assert base64.b64decode(info["data"]).decode() == DOCKERFILE
    assert info["llbDefinition"][0]["op"]["Op"]["source"]["identifier"] == "local://dockerfile"
    assert list(info["digestMapping"].values()) == ["step0"]
    image = found.read(found.root["manifests"][0]["digest"])
    assert more["layers"][f"{last}:0"] == [image["layers"]]
    assert more["layers"]["step0:0"] == [image["layers"][:1]]


@row("ATT-05")
@root_only
def test_equal_builds_say_the_same(lab: Lab, context: Path, tmp_path: Path) -> None:
    """But for their ids and times; whether the steps ran or were cached makes no difference."""
    found = []
    for name, anew in (("a", True), ("b", False)):
        predicate = built(lab, context, tmp_path / name, PROVENANCE, no_cache=anew).predicate("provenance")
        for key in ("invocationID", "startedOn", "finishedOn"):
            assert predicate["runDetails"]["metadata"].pop(key)
        predicate["buildDefinition"]["externalParameters"]["request"]["args"].pop("no-cache", None)
        predicate["runDetails"]["metadata"]["buildkit_metadata"].pop("layers")
        found.append(predicate)
    assert found[0] == found[1]
    again = [built(lab, context, tmp_path / name, PROVENANCE).predicate("provenance") for name in ("c", "d")]
    layers = [item["runDetails"]["metadata"]["buildkit_metadata"]["layers"] for item in again]
    assert layers[0] == layers[1]


@row("ATT-06")
@root_only
def test_slsa_v02(lab: Lab, context: Path, tmp_path: Path) -> None:
    found = built(lab, context, tmp_path / "o", f"{PROVENANCE},version=v0.2")
    (statement,) = found.statements()
    assert statement["predicateType"] == "https://slsa.dev/provenance/v0.2"
    predicate, prefix = statement["predicate"], "https://mobyproject.org/buildkit@v1"
    assert sorted(predicate) == ["buildConfig", "buildType", "builder", "invocation", "materials", "metadata"]
    assert predicate["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}
    assert predicate["invocation"]["parameters"]["secrets"][0] == {"id": "must"}
    assert predicate["invocation"]["environment"] == {"platform": "linux/amd64"}
    assert [item["uri"] for item in predicate["materials"]] == [
        "pkg:docker/busybox@latest?platform=linux%2Famd64"
    ]
    metadata = predicate["metadata"]
    assert {"buildInvocationID", "buildStartedOn", "buildFinishedOn", "reproducible"} <= set(metadata)
    assert metadata["completeness"] == {"parameters": True, "environment": True, "materials": False}
    assert metadata[f"{prefix}#hermetic"] is False
    assert set(metadata[f"{prefix}#metadata"]) == {"source", "layers"}


@row("ATT-07")
@root_only
def test_materials(lab: Lab, tmp_path: Path, site: tuple[str, Path], repository: tuple[str, str]) -> None:
    address, served = site
    (served / "material.txt").write_text("material")
    url, commit = repository
    text = f"FROM busybox\nADD {address}/material.txt /\nADD {url}#v1 /r\nRUN --network=none true\n"
    local = lab.context({"Dockerfile": text})
    predicate = attested(lab, local, tmp_path / "o", PROVENANCE).predicate("provenance")
    materials = {item["uri"]: item["digest"] for item in predicate["buildDefinition"]["resolvedDependencies"]}
    base = lab.store.images.resolve("busybox")
    assert base is not None
    assert materials == {
        "pkg:docker/busybox@latest?platform=linux%2Famd64": {"sha256": base.manifest.digest.hex},
        f"{address}/material.txt": {"sha256": hashlib.sha256(b"material").hexdigest()},
        f"{url}#v1": {"sha1": commit},
    }
    metadata = predicate["runDetails"]["metadata"]
    assert metadata["buildkit_completeness"]["resolvedDependencies"] is False, "the Dockerfile is local"
    assert metadata["buildkit_hermetic"] is False


@row("ATT-07", "ATT-09")
@root_only
def test_a_remote_context_is_complete_and_hermetic(
    lab: Lab, tmp_path: Path, repository: tuple[str, str]
) -> None:
    url, commit = repository
    told = f"{PROVENANCE},complete-materials=true"
    predicate = attested(lab, f"{url}#v1", tmp_path / "o", told).predicate("provenance")
    external = predicate["buildDefinition"]["externalParameters"]
    assert external["configSource"] == {"uri": f"{url}#v1", "digest": {"sha1": commit}, "path": "Dockerfile"}
    assert "locals" not in external["request"]
    assert predicate["buildDefinition"]["resolvedDependencies"][0]["uri"] == f"{url}#v1"
    metadata = predicate["runDetails"]["metadata"]
    assert metadata["buildkit_completeness"]["resolvedDependencies"] is True
    assert metadata["buildkit_hermetic"] is True
    with_own = attested(
        lab, f"{url}#v1", tmp_path / "p", PROVENANCE, dockerfile_data=b"FROM busybox\nRUN true\n", network=""
    ).predicate("provenance")
    assert with_own["buildDefinition"]["externalParameters"]["request"]["locals"] == [{"name": "dockerfile"}]
    assert with_own["runDetails"]["metadata"]["buildkit_hermetic"] is False


@row("ATT-08")
@root_only
def test_mode_min(lab: Lab, context: Path, tmp_path: Path) -> None:
    found = built(
        lab, context, tmp_path / "o", f"{PROVENANCE},mode=min", build_args=(("TOKEN_URL", "x"),), labels=(("a", "b"),)
    )  # fmt: skip
    predicate = found.predicate("provenance")
    request = predicate["buildDefinition"]["externalParameters"]["request"]
    assert request == {
        "frontend": "dockerfile.v0",
        "args": {"force-network-mode": "none"},
        "locals": [{"name": "dockerfile"}],
    }
    assert "buildConfig" not in predicate["buildDefinition"]["internalParameters"]
    metadata = predicate["runDetails"]["metadata"]
    assert metadata["buildkit_metadata"] == {}
    assert metadata["buildkit_completeness"]["request"] is False


@row("ATT-09")
@root_only
def test_arguments_that_stay_out(lab: Lab, tmp_path: Path) -> None:
    git = lab.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n", ".dockerignore": ".git\n"})
    lab.write(
        git,
        {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/refs/heads/main": "1" * 40 + "\n",
            ".git/config": '[remote "origin"]\n\turl = https://me:canary@host.example/r.git\n',
        },
    )
    found = attested(
        lab, git, tmp_path / "o", PROVENANCE, cgroup_parent="/x", platforms=("linux/amd64",), target=None,
        pull=False, build_args=(("HTTP_PROXY", "http://u:canary@proxy.example:1"),),
    ).predicate("provenance")  # fmt: skip
    assert found["buildDefinition"]["externalParameters"]["request"]["args"] == {
        "build-arg:HTTP_PROXY": "http://xxxxx@proxy.example:1",
        "force-network-mode": "none",
    }
    assert found["runDetails"]["metadata"]["buildkit_metadata"]["vcs"] == {
        "revision": "1" * 40,
        "source": "https://xxxxx@host.example/r.git",
    }


@row("ATT-01")
@root_only
def test_the_flags(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\nCOPY Dockerfile /\n")
    done = command.build(tmp_path, "--provenance=mode=min", "--tag=attested")
    assert "exporting attestation manifest sha256:" in done.err
    done = command.build(tmp_path, "--attest=type=what", status=2)
    assert 'unknown attestation type "what"' in done.err
