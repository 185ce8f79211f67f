"""Every example, and every client on what it gives: skopeo, umoci, podman, a registry, and pybuild itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import bases, examples
from tests.support.cli import Runner
from tests.support.examples import EXAMPLES, IDS, Example
from tests.support.images import Archive, read_docker, read_oci, read_tree, unpack_oci
from tests.support.peers import Peer, skopeo
from tests.support.registryd import RegistryDaemon

pytestmark = pytest.mark.root


class Built:
    """An example in the session's store, and its two archives."""

    def __init__(self, example: Example, runner: Runner, work: Path) -> None:
        self.example = example
        self.oci = work / f"{example.name}.oci.tar"
        self.docker = work / f"{example.name}.docker.tar"
        archives = {name: bases.archive(name) for name in example.bases}
        examples.build(runner, example, archives)
        self.id = runner.image_id(example.tag)
        for kind, dest in (("oci", self.oci), ("docker", self.docker)):
            examples.build(runner, example, archives, "--output", f"type={kind},dest={dest}")


BuildOnce = Callable[[Example], Built]


@pytest.fixture(scope="module")
def built(shared: Runner, tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    known: dict[str, Built] = {}
    work = tmp_path_factory.mktemp("examples")

    def get(example: Example) -> Built:
        if example.name not in known:
            known[example.name] = Built(example, shared, work)
        return known[example.name]

    return get


each_example = pytest.mark.parametrize("example", EXAMPLES, ids=IDS)


@each_example
def test_archives_are_consistent(built: BuildOnce, example: Example) -> None:
    one = built(example)
    oci: Archive = read_oci(one.oci)
    docker: Archive = read_docker(one.docker)
    assert oci.config["rootfs"] == docker.config["rootfs"]
    assert oci.config["config"] == docker.config["config"]
    assert docker.config_digest == one.id
    layered = [entry for entry in oci.config["history"] if not entry.get("empty_layer")]
    assert len(layered) == len(oci.layers)


@each_example
def test_skopeo_reads_and_copies(built: BuildOnce, example: Example, tmp_path: Path) -> None:
    one = built(example)
    for source in (f"oci-archive:{one.oci}", f"docker-archive:{one.docker}"):
        facts = json.loads(skopeo("inspect", source).stdout)
        assert facts["Os"] == "linux"
        assert facts["Layers"]
    skopeo("copy", f"oci-archive:{one.oci}", f"dir:{tmp_path / 'copy'}")
    assert (tmp_path / "copy" / "manifest.json").exists()


@each_example
def test_umoci_unpacks(built: BuildOnce, example: Example, tmp_path: Path) -> None:
    tree = read_tree(unpack_oci(built(example).oci, tmp_path))
    for path in example.files:
        assert tree[path].kind == "file"


@each_example
def test_podman_loads_and_runs(built: BuildOnce, example: Example) -> None:
    one = built(example)
    peer = Peer()
    try:
        name = peer.load(one.docker)
        assert name.endswith(example.tag)
        stored = peer.inspect(name)
        assert "sha256:" + stored["Id"].removeprefix("sha256:") == one.id
        if example.prints:
            override = ["--entrypoint", example.entrypoint] if example.entrypoint else []
            done = peer.podman_run(*override, name, *example.args)
            assert done.stdout.decode() == example.prints
    finally:
        peer.close()


@each_example
def test_pybuild_runs(built: BuildOnce, shared: Runner, example: Example) -> None:
    built(example)
    if not example.prints:
        return
    override = ["--entrypoint", example.entrypoint] if example.entrypoint else []
    done = shared.run("run", "--rm", "--network=none", *override, example.tag, *example.args)
    assert done.out == example.prints


@each_example
def test_registry_keeps_the_digest(
    built: BuildOnce, shared: Runner, pybuild: Runner, registry: RegistryDaemon, example: Example
) -> None:
    one = built(example)
    ref = f"{registry.address}/example/{example.name}:v1"
    shared.run("tag", example.tag, ref)
    shared.run("push", ref)
    remote = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{ref}").stdout)
    pybuild.run("pull", ref)
    assert pybuild.image_id(ref) == one.id
    digests = pybuild.inspect(ref, "--type=image")["RepoDigests"]
    assert [text.rpartition("@")[2] for text in digests] == [remote["Digest"]]
    again = f"{registry.address}/example/{example.name}:v2"
    pybuild.run("tag", ref, again)
    pybuild.run("push", again)
    twice = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{again}").stdout)
    assert twice["Digest"] == remote["Digest"]


def test_rebuild_is_fully_cached(built: BuildOnce, shared: Runner) -> None:
    for example in EXAMPLES:
        before = built(example).id
        done = shared.build(
            example.context, "-t", example.tag, *example.flags, env={"BUILD_TOKEN": "another token"}
        )
        assert "CACHED" in done.err or example.name == "hello"
        assert shared.image_id(example.tag) == before


def test_parallel_stages_run_at_the_same_time(built: BuildOnce, shared: Runner) -> None:
    (example,) = (one for one in EXAMPLES if one.name == "parallel")
    built(example)
    done = shared.build(example.context, "--no-cache", "-t", "example/parallel:again")
    assert done.seconds < 6 * 1.5


def test_secret_and_cache_mount_leave_no_trace(built: BuildOnce, tmp_path: Path) -> None:
    (example,) = (one for one in EXAMPLES if one.name == "python-web")
    root = unpack_oci(built(example).oci, tmp_path)
    tree = read_tree(root)
    assert not any(path.startswith(("run/secrets", "var/cache/builds")) for path in tree)
    assert json.loads((root / "srv/app/build.json").read_text()) == {"signed": True}
    assert examples.TOKEN.encode() not in built(example).oci.read_bytes()


def test_python_web_config(built: BuildOnce) -> None:
    (example,) = (one for one in EXAMPLES if one.name == "python-web")
    config = read_oci(built(example).oci).config["config"]
    assert config["User"] == "web"
    assert config["WorkingDir"] == "/srv"
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    assert config["Entrypoint"] == ["python3", "-m", "app"]
    assert not config.get("Cmd")
    assert config["Labels"]["org.opencontainers.image.title"] == "python-web"
    assert "PORT=8000" in config["Env"]


def test_onbuild_is_not_inherited(built: BuildOnce, shared: Runner) -> None:
    (example,) = (one for one in EXAMPLES if one.name == "matrix-args")
    one = built(example)
    parent = shared.inspect(example.parent, "--type=image")["Config"]
    assert len(parent["OnBuild"]) == 3
    assert not read_oci(one.oci).config["config"].get("OnBuild")
