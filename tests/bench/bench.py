"""Timings of pybuild and of the peers on this machine, in one run: what counts is the ratio.

    make bench                 everything
    make bench BENCH="cached run"     some of it

Each figure is the best of several runs, interleaved with the peers' so that other load hits all alike. The table
says ``-`` where a peer is not installed or cannot do it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import bases
from tests.support.cli import Runner
from tests.support.peers import Peer

Action = Callable[[], None]


@dataclass
class Row:
    """One line: what was done, seconds by tool, the share of the best peer that we aim for."""

    name: str
    seconds: dict[str, float]
    goal: float


class Bench:
    """The work directory and the tools."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.ours = Runner(work / "root")
        self.peer = Peer() if shutil.which("buildah") and os.geteuid() == 0 else None
        busybox = bases.archive("busybox")
        self.ours.load(busybox)
        if self.peer:
            self.peer.load(busybox)

    def context(self, name: str, dockerfile: str, files: int = 0) -> Path:
        ctx = self.work / name
        if not ctx.exists():
            ctx.mkdir()
            for number in range(files):
                if number % 100 == 0:
                    (ctx / f"d{number // 100}").mkdir()
                (ctx / f"d{number // 100}" / f"f{number}").write_text(f"{number}\n" * 20)
        (ctx / "Dockerfile").write_text(dockerfile)
        return ctx

    def build(self, ctx: Path, *flags: str) -> Action:
        return lambda: void(self.ours.run("build", "--progress=quiet", *flags, ctx))

    def buildah(self, ctx: Path, *flags: str) -> Action | None:
        peer = self.peer
        return (lambda: void(peer.build(ctx, "bench", *flags))) if peer else None


def void(_: object) -> None:
    """Drop a result."""


def best(actions: dict[str, Action | None], rounds: int, between: Action | None = None) -> dict[str, float]:
    """The best time of each, runs interleaved."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        for name, action in actions.items():
            if action is None:
                continue
            if between is not None:
                between()
            began = time.perf_counter()
            action()
            times[name] = min(times.get(name, 1e9), time.perf_counter() - began)
    return times


def cached(bench: Bench) -> Row:
    steps = "".join(f"RUN echo {number} > /f{number}\n" for number in range(10))
    ctx = bench.context("cached", f"FROM busybox\n{steps}COPY . /ctx\n", 2000)
    actions = {"pybuild": bench.build(ctx, "-t", "bench"), "buildah": bench.buildah(ctx)}
    best(actions, 1)
    return Row("fully cached rebuild, 12 steps, 2,000 files", best(actions, 5), 0.2)


def cached_large(bench: Bench) -> Row:
    ctx = bench.context("large", "FROM scratch\nCOPY . /\n", 20_000)
    actions = {"pybuild": bench.build(ctx, "-t", "bench"), "buildah": bench.buildah(ctx)}
    best(actions, 1)
    return Row("fully cached rebuild, 20,000 files", best(actions, 3), 0.2)


def cold_copy(bench: Bench) -> Row:
    """Measured first: ext4 looks past every inode that was freed in the last minute or five, one by one."""
    ctx = bench.context("large", "FROM scratch\nCOPY . /\n", 20_000)
    out = bench.work / "copy.tar"
    actions = {
        "pybuild": bench.build(ctx, "--no-cache", "--output", f"type=oci,dest={out}"),
        "buildah": bench.buildah(ctx, "--no-cache"),
    }
    return Row("COPY of 20,000 files to an OCI tar", best(actions, 2), 0.4)


def steps(bench: Bench) -> Row:
    text = "FROM busybox\n" + "".join("RUN true\n" for _ in range(30))
    ctx = bench.context("steps", text)
    actions = {"pybuild": bench.build(ctx, "--no-cache"), "buildah": bench.buildah(ctx, "--no-cache")}
    return Row("30 times RUN true", best(actions, 2), 0.2)


def parallel(bench: Bench) -> Row:
    stages = "".join(
        f"FROM busybox AS s{number}\nRUN sleep 1.5 && echo {number} > /p\n" for number in range(6)
    )
    copies = "".join(f"COPY --from=s{number} /p /p{number}\n" for number in range(6))
    ctx = bench.context("parallel", f"{stages}FROM busybox\n{copies}")
    actions = {
        "pybuild": bench.build(ctx, "--no-cache"),
        "buildah": bench.buildah(ctx, "--no-cache", "--jobs=6"),
    }
    return Row("six stages of sleep 1.5, joined", best(actions, 1), 0.9)


def run(bench: Bench) -> Row:
    peer = bench.peer
    actions: dict[str, Action | None] = {
        "pybuild": lambda: void(bench.ours.run("run", "--rm", "--network=none", "busybox", "true")),
        "podman": (lambda: void(peer.podman_run("busybox", "true"))) if peer else None,
    }
    best(actions, 1)
    return Row("run --rm --network=none busybox true", best(actions, 5), 0.4)


def big_layer(bench: Bench, compression: str, goal: float) -> Row:
    """Half of the layer is noise, half is zeros."""
    ctx = bench.work / "big"
    ctx.mkdir(exist_ok=True)
    if not (ctx / "blob").exists():
        with (ctx / "blob").open("wb") as file:
            for _ in range(256):
                half = os.urandom(2 << 20)
                file.write(half + bytes(2 << 20))
    (ctx / "Dockerfile").write_text("FROM scratch\nCOPY blob /\n")
    out = bench.work / "big.tar"
    peer = bench.peer

    def theirs() -> None:
        assert peer is not None
        out.unlink(missing_ok=True)
        peer.build(ctx, "bench", "--no-cache")
        peer.buildah("push", "--compression-format", compression, "bench", f"oci-archive:{out}")

    output = f"type=oci,dest={out},compression={compression}"
    actions: dict[str, Action | None] = {
        "pybuild": bench.build(ctx, "--no-cache", "--output", output),
        "buildah": theirs if peer else None,
    }
    return Row(f"1 GiB layer to an OCI tar, {compression}", best(actions, 1), goal)


def big_gzip(bench: Bench) -> Row:
    return big_layer(bench, "gzip", 0.4)


def big_zstd(bench: Bench) -> Row:
    return big_layer(bench, "zstd", 0.5)


ALL = {
    "cold-copy": cold_copy,
    "cached": cached,
    "cached-large": cached_large,
    "steps": steps,
    "parallel": parallel,
    "run": run,
    "big-gzip": big_gzip,
    "big-zstd": big_zstd,
}


def show(row: Row) -> None:
    ours = row.seconds["pybuild"]
    peers = {name: seconds for name, seconds in row.seconds.items() if name != "pybuild"}
    told = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in peers.items()) or "-"
    ratio = f"{ours / min(peers.values()):.2f}" if peers else "-"
    sys.stdout.write(f"{row.name:46} {ours:8.3f} s   {told:24} {ratio:>6} (goal {row.goal})\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *ALL], help="which to run")
    names = parser.parse_args().names or list(ALL)
    sys.stdout.write(f"{'':46} {'pybuild':>10}   {'peers':24} {'ratio':>6}\n")
    with tempfile.TemporaryDirectory(prefix="pybuild-bench-") as work:
        bench = Bench(Path(work))
        try:
            for name in names:
                show(ALL[name](bench))
        finally:
            bench.ours.clean()
            if bench.peer:
                bench.peer.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
