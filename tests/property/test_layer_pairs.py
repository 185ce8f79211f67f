"""apply(diff(a, b), a) == b for random pairs of trees: over a real overlay's upper directory and over two plain
trees; and other tools unpack the layers of such trees to the same trees."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cache.differ import changes, compare, everything
from builder.cache.extract import apply
from builder.cache.layer import pack
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from tests.support.machine import tool
from tests.support.peers import Peer, skopeo
from tests.support.randomtrees import copied, facts, mutate, overlay

pytestmark = [
    pytest.mark.property,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes owners, devices and mounts"),
]
BATCH = 20
PEER_TREES = 30


def layer(found: Any, source: View) -> bytes:
    out = io.BytesIO()
    pack(found, source, out.write)
    return out.getvalue()


def by_upper(upper: Path, lower: Path) -> bytes:
    with View([upper, lower]) as view:
        return layer(changes(upper, [lower]), view)


def by_walk(old: Path, new: Path) -> bytes:
    with View([old]) as before, View([new]) as after:
        return layer(compare(before, after), after)


def applied(tar: bytes, lower: Path, target: Path) -> dict[bytes, Any]:
    copied(lower, target)
    with Writer(target) as writer:
        apply(io.BytesIO(tar), writer)
    return facts(target)


def differing(seen: dict[bytes, Any], wanted: dict[bytes, Any]) -> dict[bytes, Any]:
    keys = seen.keys() | wanted.keys()
    return {key: (seen.get(key), wanted.get(key)) for key in keys if seen.get(key) != wanted.get(key)}


def without_links(found: dict[bytes, Any]) -> dict[bytes, Any]:
    return {path: facts[:6] for path, facts in found.items()}


def links(found: dict[bytes, Any]) -> dict[bytes, list[bytes]]:
    return {path: facts[6] for path, facts in found.items() if len(facts) > 6}


def pair(base: Path, seed: int) -> None:
    base.mkdir()
    dice = random.Random(seed)
    lower = base / "lower"
    lower.mkdir()
    mutate(os.fsencode(lower), dice, dice.randrange(5, 40))
    steps, again = dice.randrange(1, 25), dice.getrandbits(32)
    with overlay(base, lower) as (merged, upper):
        mutate(os.fsencode(merged), random.Random(again), steps)
        wanted = facts(merged)
    tar = by_upper(upper, lower)
    seen = applied(tar, lower, base / "1")
    assert not differing(without_links(seen), without_links(wanted)), f"overlay, seed {seed}"
    for path, group in links(wanted).items():
        # an overlay takes a name out of its group when it is touched, even if it stays as it is (LAY-02)
        assert set(group) <= set(links(seen)[path]), f"overlay, seed {seed}"
    assert tar == by_upper(upper, lower), "the same bytes again"
    plain = copied(lower, base / "plain")
    mutate(os.fsencode(plain), random.Random(again), steps)
    wanted = facts(plain)
    assert applied(by_walk(lower, plain), lower, base / "2") == wanted, f"plain, seed {seed}"
    assert applied(by_walk(plain, plain), plain, base / "3") == wanted
    shutil.rmtree(base)


@pytest.mark.parametrize("batch", range(10))
def test_two_hundred_pairs(tmp_path: Path, batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        pair(tmp_path / str(seed), seed)


@pytest.mark.soak
@pytest.mark.parametrize("batch", range(20))
def test_two_thousand_pairs(tmp_path: Path, batch: int) -> None:
    for seed in range(1000 + batch * 100, 1000 + (batch + 1) * 100):
        pair(tmp_path / str(seed), seed)


def without_empty(found: dict[bytes, Any]) -> dict[bytes, Any]:
    """Go's tar takes an attribute without a value for one that is not there."""
    for one in found.values():
        one[5] = {name: value for name, value in one[5].items() if value}
    return found


def since_1970(found: dict[bytes, Any]) -> dict[bytes, Any]:
    """podman takes no earlier times."""
    return {path: [*one[:3], one[3] and max(one[3], 0), *one[4:]] for path, one in found.items()}


class Pair:
    """Many trees side by side, and what became of each, as the two layers of one image."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lower, self.upper = base / "lower", base / "new"
        self.lower.mkdir()
        for seed in range(PEER_TREES):
            (self.lower / str(seed)).mkdir()
            mutate(os.fsencode(self.lower / str(seed)), random.Random(seed), 20)
        copied(self.lower, self.upper)
        for seed in range(PEER_TREES):
            mutate(os.fsencode(self.upper / str(seed)), random.Random(-seed - 1), 12)
        with View([self.lower]) as view:
            self.layers = (layer(everything(view), view), by_walk(self.lower, self.upper))
        self.wanted = without_empty(facts(self.upper))

    def layout(self) -> Path:
        """An OCI layout written by hand."""
        root = self.base / "layout"
        (root / "blobs/sha256").mkdir(parents=True)

        def blob(data: bytes, kind: str) -> dict[str, Any]:
            digest = hashlib.sha256(data).hexdigest()
            (root / "blobs/sha256" / digest).write_bytes(data)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}  # fmt: skip

        def text(value: Any) -> bytes:
            return json.dumps(value).encode()

        diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in self.layers]
        config = {"os": "linux", "architecture": os.uname().machine.replace("x86_64", "amd64"), "config": {}}
        config = {**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        layers = [blob(gzip.compress(tar, 1), "layer.v1.tar+gzip") for tar in self.layers]
        manifest = {"schemaVersion": 2, "config": blob(text(config), "config.v1+json"), "layers": layers}
        entry = {**blob(text(manifest), "manifest.v1+json"), "annotations": {"org.opencontainers.image.ref.name": "x"}}  # fmt: skip
        (root / "index.json").write_bytes(text({"schemaVersion": 2, "manifests": [entry]}))
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return root


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    base = tmp_path_factory.mktemp("pair")
    yield Pair(base)
    shutil.rmtree(base)


def test_gnu_tar(trees: Pair, tmp_path: Path) -> None:
    command = [
        "tar",
        "-xpf",
        "-",
        "--xattrs",
        "--xattrs-include=*",
        "--delay-directory-restore",
        "-C",
        str(tmp_path),
    ]
    subprocess.run(command, input=trees.layers[0], check=True, stderr=subprocess.DEVNULL)
    assert not differing(facts(tmp_path), facts(trees.lower))


def test_umoci_and_podman(trees: Pair, tmp_path: Path) -> None:
    layout = trees.layout()
    command = [tool("umoci"), "unpack", "--image", f"{layout}:x", str(tmp_path / "bundle")]
    subprocess.run(command, check=True, capture_output=True)
    assert not differing(facts(tmp_path / "bundle/rootfs"), trees.wanted)
    peer = Peer()
    try:
        archive = tmp_path / "docker.tar"
        skopeo("copy", f"oci:{layout}:x", f"docker-archive:{archive}:pair:1")
        name = peer.load(archive)
        mounted = Path(peer.podman("image", "mount", name).stdout.decode().strip())
        seen = facts(mounted)
        peer.podman("image", "unmount", name)
    finally:
        peer.close()
    for made in (b"run", b"proc", b"sys", b"dev", b"etc"):  # podman's own mount points
        if made not in trees.wanted:
            seen.pop(made, None)
    assert not differing(since_1970(seen), since_1970(trees.wanted))
