"""The examples by buildah and by us, and twice by us: equal where they must be."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.test_buildah_conformance import allowed, config_differences, tree_differences
from tests.support import bases, examples
from tests.support.cli import Runner
from tests.support.examples import EXAMPLES, IDS, Example
from tests.support.images import read_docker, read_oci, read_tree, unpack_oci
from tests.support.machine import tool
from tests.support.peers import Peer

pytestmark = [pytest.mark.root, pytest.mark.conformance]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
HEREDOCS = {"python-web"}
"""Examples that buildah of Debian 12 cannot parse: it has no heredocs (see differences.md)."""


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    tool("buildah")
    made = Peer()
    yield made
    made.close()


def _archives(example: Example) -> dict[str, Path]:
    return {name: bases.archive(name) for name in example.bases}


def _for_buildah(example: Example, copy: Path) -> Path:
    """The example's context without a modifier that buildah of Debian 12 does not know (see differences.md)."""
    shutil.copytree(example.context, copy)
    dockerfile = copy / "Dockerfile"
    dockerfile.write_text(re.sub(r"\$\{(\w+):\?[^}]*\}", r"${\1}", dockerfile.read_text()))
    return copy


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.name not in HEREDOCS], ids=lambda e: e.name)
def test_buildah_makes_the_same_image(peer: Peer, shared: Runner, tmp_path: Path, example: Example) -> None:
    archives = _archives(example)
    for archive in archives.values():
        peer.load(archive)
    if example.parent:
        peer.build(example.context / "parent", example.parent)
    tag = f"localhost/{example.name}"
    peer.build(_for_buildah(example, tmp_path / "context"), tag, *example.flags)
    theirs, docker = tmp_path / "buildah.tar", tmp_path / "buildah.docker.tar"
    peer.buildah("push", tag, f"oci-archive:{theirs}:x")
    peer.buildah("push", tag, f"docker-archive:{docker}:{tag}:latest")
    ours = tmp_path / "pybuild.tar"
    examples.build(shared, example, archives, "--output", f"type=oci,dest={ours}")

    found = config_differences(read_docker(docker).config["config"], read_oci(ours).config["config"])
    found |= tree_differences(
        read_tree(unpack_oci(theirs, tmp_path / "b")), read_tree(unpack_oci(ours, tmp_path / "p"))
    )
    rows = [pattern for name, pattern in allowed() if name in {"*", f"example-{example.name}"}]
    unknown = {where: what for where, what in found.items() if not any(row.fullmatch(where) for row in rows)}
    assert not unknown, "\n".join(f"{where}: {what}" for where, what in unknown.items())


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_twice_from_an_empty_store_is_the_same_digest(tmp_path: Path, example: Example) -> None:
    digests = []
    for name in ("one", "two"):
        runner = Runner(tmp_path / name / "root")
        runner.env = {**EPOCH}
        dest = tmp_path / f"{name}.tar"
        try:
            output = f"type=oci,dest={dest},rewrite-timestamp=true"
            examples.build(runner, example, _archives(example), "--output", output)
        finally:
            runner.clean()
        digests.append(read_oci(dest).manifest_digest)
    assert digests[0] == digests[1]
