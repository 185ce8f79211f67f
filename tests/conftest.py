"""Fixtures for every test: the command-line runner, base images, peers, a registry, and the leak check.

Markers say what a test needs: ``root``, ``linux``, ``network``. Where the need is not met the test is skipped
with that reason; with ``--fail-on-skip``, or ``CI`` in the environment, a skip is a failure. Tests marked ``soak``
or ``bench`` run only when asked for (``-m soak``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import bases, leaks, machine
from tests.support.cli import Runner
from tests.support.registryd import RegistryDaemon

ON_DEMAND = ("soak", "bench")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip", action="store_true", help="a skipped test fails (default where CI is set)"
    )
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected files of golden tests"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("-m") or ""
    hidden = [mark for mark in ON_DEMAND if mark not in wanted]
    chosen, left = [], []
    for item in items:
        (left if any(item.get_closest_marker(mark) for mark in hidden) else chosen).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = chosen


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if item.get_closest_marker("linux") and not machine.has_user_namespaces():
        pytest.skip("needs user namespaces")
    if item.get_closest_marker("network") and os.environ.get("PYBUILD_TEST_NETWORK") != "1":
        pytest.skip("leaves the machine: set PYBUILD_TEST_NETWORK=1")


def _strict(config: pytest.Config) -> bool:
    return bool(config.getoption("--fail-on-skip")) or os.environ.get("CI", "") not in {"", "0", "false"}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    leaves = item.get_closest_marker("network") is not None
    if report.skipped and not hasattr(report, "wasxfail") and not leaves and _strict(item.config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and _strict(collector.config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here: {reason}"


@pytest.fixture(scope="session", autouse=True)
def no_leaks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end nothing of ours is left: mounts, processes, cgroups, network links."""
    before = leaks.take()
    yield
    leaks.remove_bridge(before)
    leaks.remove_cgroup_parents(before)
    left = leaks.left(before, tmp_path_factory.getbasetemp(), everything="CI" in os.environ)
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """``golden(path, text)``: the file says ``text``; with ``--update-golden`` it is made to."""
    update = request.config.getoption("--update-golden")

    def check(path: Path, text: str) -> None:
        if update:
            path.write_text(text, encoding="utf-8", newline="")
        assert path.exists(), f"{path} is missing: --update-golden writes it"
        with path.open(encoding="utf-8", newline="") as file:
            assert text == file.read()

    return check


@pytest.fixture
def pybuild(tmp_path: Path) -> Iterator[Runner]:
    """The command with a state directory of its own; containers are removed in the end."""
    runner = Runner(tmp_path / "root")
    yield runner
    runner.clean()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The command with one state directory for the session, for tests that leave it as good as they found it."""
    runner = Runner(tmp_path_factory.mktemp("shared") / "root")
    yield runner
    runner.clean()


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A docker archive of ``busybox:latest``."""
    return bases.archive("busybox")


@pytest.fixture(scope="session")
def debian_slim() -> Path:
    """A docker archive of ``debian:bookworm-slim`` with python3."""
    return bases.archive("debian-slim")


@pytest.fixture(scope="session")
def debian() -> Path:
    """A docker archive of ``debian:bookworm`` with gcc and python3."""
    return bases.archive("debian")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryDaemon]:
    """The reference registry on a port of the loopback, empty."""
    daemon = RegistryDaemon.start(tmp_path_factory.mktemp("registry"))
    yield daemon
    daemon.stop()
