"""Platforms (PLT rows)."""

from __future__ import annotations

import json

import pytest

from builder.errors import PybuildError
from builder.oci.platform import Platform, best_match, host_platform
from builder.solver.ops.machine import emulation_for
from tests.support.buildlab import Lab
from tests.support.rows import row


@row("PLT-01")
@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_spellings(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@row("PLT-01")
def test_one_word_versions_and_features() -> None:
    assert Platform.parse("linux") == host_platform()
    assert Platform.parse("windows").architecture == host_platform().architecture
    found = Platform.parse("windows(10.0.17763)/amd64")
    assert (found.os, found.os_version, found.os_features) == ("windows", "10.0.17763", ())
    found = Platform.parse("windows(10.0.17763+win32k)/amd64")
    assert (found.os_version, found.os_features) == ("10.0.17763", ("win32k",))
    for bad in ("", "a/b/c/d", "linux/", "nonsense", "linux/am d64"):
        with pytest.raises(PybuildError, match=r"invalid platform|unknown operating system"):
            Platform.parse(bad)


@row("PLT-02")
@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64/v9", ["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"]),
        ("linux/arm64/v9.2", ["linux/arm64/v9.2", "linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.7",
                              "linux/arm64/v8.6", "linux/arm64", "linux/arm/v8", "linux/arm/v7"]),
        ("linux/arm64/v8.2", ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"]),
    ],
)  # fmt: skip
def test_the_best_of_an_index(wanted: str, order: list[str]) -> None:
    offered = [Platform.parse(text) for text in reversed(order)]
    offered.append(Platform.parse("linux/s390x"))
    chosen = []
    while (index := best_match(Platform.parse(wanted), tuple(offered))) is not None:
        chosen.append(str(offered.pop(index)))
    assert chosen == order
    assert best_match(Platform.parse("linux/arm/v6"), (Platform.parse("linux/arm/v7"),)) is None


@row("PLT-03")
@pytest.mark.root
def test_several_platforms(lab: Lab) -> None:
    result = lab.build(
        lab.context({"f": "f"}),
        "FROM --platform=$BUILDPLATFORM busybox AS make\nRUN echo once > /once\nFROM scratch\nCOPY --from=make /once /\n"
        "ARG TARGETARCH\nCOPY f /$TARGETARCH\n",
        platforms=("linux/amd64", "linux/arm64"),
        tags=("plt:1",),
    )
    assert sum("echo once" in name for name in lab.watcher.ran()) == 1
    assert sum("load build definition" in name for name in lab.watcher.ran()) == 1
    image = lab.store.images.resolve("plt:1")
    assert image is not None
    index = json.loads(lab.store.blobs.read(image.manifest.digest, 1 << 20))
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]
    assert result.digest == str(image.manifest.digest)


@row("PLT-04")
@pytest.mark.root
def test_a_step_for_another_machine(lab: Lab) -> None:
    """Without an emulator the step says which platform it is for and what can run here."""
    foreign = "linux/s390x" if host_platform().architecture != "s390x" else "linux/amd64"
    text = "FROM busybox\nRUN echo where\n"
    lab.quick(text)  # what was made for this machine is no answer for another
    with pytest.raises(PybuildError) as caught:
        lab.quick(text, platforms=(foreign,))
    told = f"{caught.value} {caught.value.context} {caught.value.hint}"
    assert foreign in told


@row("PLT-04")
def test_what_cannot_run_here() -> None:
    with pytest.raises(PybuildError) as caught:
        emulation_for(Platform("linux", "wasm"), "")
    assert caught.value.message.startswith(
        f"no support for running processes with linux/wasm platform, supported: {host_platform()}"
    )
    assert emulation_for(host_platform(), "") is None
    if host_platform().architecture == "amd64":
        with pytest.raises(PybuildError, match="with linux/amd64/v9 platform, supported: linux/amd64"):
            emulation_for(Platform("linux", "amd64", "v9"), "")
