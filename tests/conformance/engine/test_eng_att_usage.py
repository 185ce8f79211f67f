"""What steps used up, in provenance with ``capture-usage`` (ATT-04, ATT-08)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups, groupusage
from tests.support.buildlab import Lab
from tests.support.rows import row
from tests.support.scanners import attested

ASKED = "type=provenance,mode=max,capture-usage=true"


def steps(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps of a predicate by their operation, as text."""
    listed = found["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
    return {json.dumps(step["op"]): step for step in listed}


@row("ATT-04", "ATT-08")
@pytest.mark.root
@pytest.mark.linux
def test_each_run_step_says_what_it_used(lab: Lab, tmp_path: Path) -> None:
    busy = "head -c 60000000 /dev/zero | md5sum > /sum; dd if=/dev/zero of=/f bs=1M count=4"
    context = lab.context({"Dockerfile": f"FROM busybox\nRUN true usage\nRUN {busy}\n"})
    found = steps(attested(lab, context, tmp_path / "one", ASKED).predicate("provenance/v1"))
    small = next(step for name, step in found.items() if "true usage" in name)
    large = next(step for name, step in found.items() if "md5sum" in name)
    (first,), (second,) = (step["resourceUsage"]["samples"] for step in (small, large))
    assert first["timestamp"] < second["timestamp"]
    assert second["cpuStat"]["usageNanos"] > first["cpuStat"]["usageNanos"] > 0
    assert second["cpuStat"]["usageNanos"] > 20_000_000
    assert set(second["cpuStat"]) >= {"usageNanos", "userNanos", "systemNanos"}
    if "memoryStat" in second:
        assert second["memoryStat"]["peak"] > first["memoryStat"]["peak"] > 0
    sources = [step for name, step in found.items() if "docker-image://" in name]
    assert sources
    assert all("resourceUsage" not in step for step in sources)
    again = steps(attested(lab, context, tmp_path / "two", ASKED).predicate("provenance/v1"))
    assert not any("resourceUsage" in step for step in again.values()), "nothing ran"
    plain = attested(lab, context, tmp_path / "three", "type=provenance,mode=max", no_cache=True)
    assert not any("resourceUsage" in step for step in steps(plain.predicate("provenance/v1")).values())
    assert not list(Path("/sys/fs/cgroup").glob("*/pybuild/build-*")), "the groups are gone"


def group(root: Path, files: dict[str, str], *v1: str) -> cgroups.Group:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cgroups.Group("x", "" if v1 else str(root), {name: str(root / name) for name in v1})


@row("ATT-08")
def test_figures_of_both_versions(tmp_path: Path) -> None:
    two = {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 2\n",
        "memory.peak": "4096\n",
        "memory.stat": "anon 1\npgfault 7\npgmajfault 2\n",
        "io.stat": "8:0 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
    }
    cpu = {"usageNanos": 30_000, "userNanos": 20_000, "systemNanos": 10_000}
    wanted = {
        **{f"cpuStat.{key}": value for key, value in cpu.items()},
        "cpuStat.nrPeriods": 4, "cpuStat.nrThrottled": 1, "cpuStat.throttledNanos": 2000,
        "memoryStat.peak": 4096, "memoryStat.pgfault": 7, "memoryStat.pgmajfault": 2,
        "ioStat.readBytes": 10, "ioStat.writeBytes": 6, "ioStat.readIOs": 2, "ioStat.writeIOs": 2,
    }  # fmt: skip
    assert dict(groupusage.measure(group(tmp_path / "two", two))) == wanted
    one = {
        "cpuacct/cpuacct.usage": "30000\n",
        "cpuacct/cpuacct.usage_user": "20000\n",
        "cpuacct/cpuacct.usage_sys": "10000\n",
        "cpu/cpu.stat": "nr_periods 4\nnr_throttled 1\nthrottled_time 2000\n",
        "memory/memory.max_usage_in_bytes": "4096\n",
        "memory/memory.stat": "pgfault 1\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
        "blkio/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 6\n8:0 Total 16\nTotal 16\n",
        "blkio/blkio.throttle.io_serviced": "8:0 Read 2\n8:0 Write 2\nTotal 4\n",
    }
    found = groupusage.measure(group(tmp_path / "one", one, "cpuacct", "cpu", "memory", "blkio"))
    assert dict(found) == wanted
    assert groupusage.measure(cgroups.Group("x", "", {})) == (), "a machine that counts nothing"
