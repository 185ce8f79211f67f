"""Limits on the build cache hold while a build runs, whoever else is at work, and nothing is lost by it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.space import Guard, tidy
from builder.cache import faults
from builder.cache.fsck import check
from builder.cache.limits import SpaceLimits
from builder.cache.store import Store
from builder.errors import Cancelled, PybuildError
from builder.solver.cancel import Cancel
from tests.support.buildlab import Lab
from tests.support.cli import Runner

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds here run as root"),
]
MB = 1_000_000
LIMIT = SpaceLimits(max_used=30 * MB)
SLOW = (
    "FROM busybox\nRUN for i in $(seq 60); do dd if=/dev/zero of=/x$i bs=1000000 count=5; sleep 0.1; done\n"
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def used(lab: Lab) -> int:
    return sum(row.size for row in lab.store.usage())


def fill(number: int, size_mb: int = 10) -> str:
    return f"FROM busybox\nRUN dd if=/dev/zero of=/x bs=1000000 count={size_mb} && echo {number}\n"


def test_each_build_makes_room_for_itself_oldest_first(lab: Lab) -> None:
    for number in range(5):
        lab.build(lab.context(), fill(number), space=LIMIT)
        assert used(lab) <= LIMIT.max_used
    for number, kept in ((4, True), (3, True), (0, False)):
        result = lab.build(lab.context(), fill(number))
        assert (result.cached_steps == result.total_steps) == kept, number
    assert check(lab.store.root) == ()


def test_a_build_that_needs_more_stops_and_says_what_takes_the_space(lab: Lab) -> None:
    text = fill(0, 15) + "RUN dd if=/dev/zero of=/y bs=1000000 count=20\n"
    with pytest.raises(PybuildError) as caught:
        lab.build(lab.context(), text, space=LIMIT)
    error = caught.value
    assert error.code == "disk-limit"
    assert "30MB" in error.message
    assert any("largest: " in line and "RUN dd" in line for line in error.context), error.context
    assert error.hint
    assert "--max-used" in error.hint
    assert lab.store.builds.list()[0].status == "error"
    assert used(lab) <= LIMIT.max_used
    again = lab.build(lab.context(), text, space=SpaceLimits(max_used=200 * MB))
    assert again.image_id is not None
    assert check(lab.store.root) == ()


def test_one_step_cannot_write_far_beyond_the_limit(lab: Lab, tmp_path: Path) -> None:
    over = threading.Event()

    def free() -> None:
        """Somebody else's file gets shorter, faster than the step writes."""
        with (tmp_path / "other").open("wb") as file:
            size = 1000 * MB
            os.posix_fallocate(file.fileno(), 0, size)
            while size > 0 and not over.wait(0.02):
                size -= 4 * MB
                os.truncate(file.fileno(), size)

    freeing = threading.Thread(target=free)
    freeing.start()
    began = time.monotonic()
    try:
        with pytest.raises(PybuildError) as caught:
            lab.build(lab.context(), SLOW, space=LIMIT)
    finally:
        over.set()
        freeing.join()
        (tmp_path / "other").unlink()
    assert caught.value.code == "disk-limit"
    assert time.monotonic() - began < 6, "the step went on to its end"
    assert used(lab) <= LIMIT.max_used
    assert not [info for info in lab.store.snapshots.list() if info.kind == "active"]


def test_a_cancelled_build_stays_a_cancelled_one(lab: Lab) -> None:
    cancel = Cancel()
    threading.Timer(0.5, cancel.set).start()
    from builder.build import BuildRequest, build

    context = lab.context({"Dockerfile": "FROM busybox\nRUN sleep 20\n"})
    request = BuildRequest(context=str(context), network="none", space=LIMIT)
    with pytest.raises(Cancelled):
        build(lab.store, request, on_event=lab.watcher, machine=lab._machine.machine(), cancel=cancel)


def test_what_another_process_needs_is_not_taken(lab: Lab) -> None:
    lab.build(lab.context(), fill(0, 20))
    mine = {row.id for row in lab.store.usage() if row.kind == "snapshot"}
    with Store.open(lab.store.root) as other, other.hold() as hold:
        assert hold.snapshots(sorted(mine))
        with pytest.raises(PybuildError) as caught:
            lab.build(lab.context(), fill(1, 20), space=LIMIT)
        assert caught.value.code == "disk-limit"
        assert mine <= {info.id for info in lab.store.snapshots.list()}
    lab.build(lab.context(), fill(1, 20), space=LIMIT)


def test_what_others_write_while_room_is_made_goes_as_well(lab: Lab) -> None:
    lab.build(lab.context(), fill(0, 20))
    written = 0

    def write(name: str) -> None:
        nonlocal written
        if name != "gc.renamed" or written == 3:
            return
        written += 1
        active = other.snapshots.prepare(None)
        (active.upper / "file").write_bytes(b"x" * 25 * MB)
        other.snapshots.commit(active)

    with Store.open(lab.store.root) as other:
        faults.hook = write
        try:
            lab.build(lab.context(), fill(1, 20), space=LIMIT)
        finally:
            faults.hook = None
    assert written == 3
    assert used(lab) <= LIMIT.max_used


def test_what_a_killed_process_left_goes_first(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        pid = os.fork()
        if pid == 0:
            with Store.open(tmp_path / "root") as other:
                (other.snapshots.prepare(None).upper / "file").write_bytes(b"x" * 2 * MB)
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        Guard(store, SpaceLimits(max_used=MB), Cancel()).check()


def test_a_disk_keeps_its_free_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)], check=True)
    try:
        lab = Lab(disk)
        try:
            limits = SpaceLimits(min_free=20 * MB)
            for number in range(4):
                lab.build(lab.context(), fill(number, 12), space=limits)
                status = os.statvfs(disk)
                assert status.f_bavail * status.f_frsize >= limits.min_free
            with pytest.raises(PybuildError) as caught:
                lab.build(lab.context(), SLOW, space=limits)
            assert caught.value.code == "disk-limit"
            assert "must stay free" in caught.value.message
            assert check(lab.store.root) == ()
        finally:
            lab.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_is_reserved_stays_on_a_short_disk(lab: Lab) -> None:
    lab.build(lab.context(), fill(0))
    before = used(lab)
    tidy(lab.store, SpaceLimits(min_free=1 << 50, reserved=100 * MB))
    assert used(lab) == before
    tidy(lab.store, SpaceLimits(min_free=1 << 50))
    assert not [
        info for info in lab.store.snapshots.list() if info.record_type == "regular" and info.size > 5 * MB
    ]


def test_flags_environment_and_file(lab: Lab, tmp_path: Path) -> None:
    command = Runner(lab.store.root)
    context = lab.context({"Dockerfile": fill(0, 20)})
    config = tmp_path / "config.toml"
    config.write_text('[gc]\nmax-used = "10MB"\n')
    from_file = {"PYBUILD_CONFIG": str(config)}
    for words, env in (
        (["--max-used", "10MB"], {}),
        (["--max-used-space=10000000"], {"PYBUILD_MAX_USED": "9GB"}),
        ([], {"PYBUILD_MAX_USED": "10MB"}),
        ([], from_file),
        (["--min-free", "100%"], {}),
    ):
        shown = command.build(context, "--network=none", *words, env=env, status=1)
        assert "limit" in shown.err or "must stay free" in shown.err
    assert "RUN dd" in shown.err or "largest" in shown.err
    command.build(context, "--network=none", "--max-used=50%", env=from_file)
    assert "percentage" in command.build(context, "--max-used=101%", status=2).err
    assert "--max-used" in command.build(context, "--max-used=lots", status=2).err
