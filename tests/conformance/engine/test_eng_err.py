"""What is said of failures (ERR-01…05)."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from builder.cache import ownership
from builder.errors import Cancelled, PybuildError, SolveError, StepFailed
from builder.llb.ops import ExecMeta, ExecOp, Mount
from builder.solver.ops.failures import step_failed
from builder.solver.progress import VertexEvent
from builder.solver.reporter import Reporter
from builder.solver.types import Cancel
from runtime.spec import ExitStatus
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.registry import Fault, running_registry
from tests.support.rows import row
from tests.support.solving import BASE, env_for

pytestmark = pytest.mark.root


@row("ERR-01")
def test_a_failure_names_its_step_and_lines(lab: Lab, command: Runner) -> None:
    context = lab.context({"Dockerfile": "FROM busybox\n\nRUN echo a && \\\n  exit 7\n"})
    done = command.build(context, status=1)
    assert "ERROR: failed to solve: process \"/bin/sh -c echo a &&   exit 7\" did not complete successfully: exit code: 7" in done.err  # fmt: skip
    assert "Dockerfile:3\n" in done.err
    assert "3 | >>> RUN echo a && \\\n   4 | >>>   exit 7" in done.err
    told = json.loads(
        command.run("--error-format=json", "build", "-q", context, status=1).err.splitlines()[-1]
    )
    error = told["error"]
    assert error["location"] == {"file": "Dockerfile", "start_line": 3, "end_line": 4}
    assert error["step"] == "[2/2] RUN echo a &&   exit 7"
    assert error["step_digest"].startswith("sha256:")
    assert (error["code"], error["exit_code"]) == ("step-failed", 7)
    with pytest.raises(StepFailed) as caught:
        lab.build(context)
    assert (caught.value.first_line, caught.value.last_line) == (3, 4)


@row("ERR-02")
def test_cancelled_steps_are_shown_so(lab: Lab) -> None:
    cancel = Cancel()

    def watch(event: object) -> None:
        lab.watcher(event)
        if isinstance(event, VertexEvent) and "sleep 60" in event.name and not event.completed_ns:
            cancel.set()

    from builder.build import BuildRequest, build

    context = lab.context({"Dockerfile": "FROM busybox\nRUN sleep 60\n"})
    began = time.monotonic()
    with pytest.raises(Cancelled):
        build(
            lab.store,
            BuildRequest(context=str(context), network="none"),
            on_event=watch,
            machine=lab._machine.machine(),
            cancel=cancel,
        )
    assert time.monotonic() - began < 5
    ended = [e for e in lab.watcher.events if isinstance(e, VertexEvent) and e.cancelled]
    assert [(e.name, e.error) for e in ended] == [("[2/2] RUN sleep 60", "context canceled")]


@row("ERR-02")
def test_ctrl_c_cancels_and_a_second_one_ends_at_once(lab: Lab, command: Runner, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM busybox\nRUN echo ready; sleep 61\n"})
    for times in (1, 2):
        output = tmp_path / f"out{times}"
        with output.open("wb") as file:
            process = command.start("build", "--progress=plain", "--network=none", context, stderr=file)
        end = time.monotonic() + 15
        while b" ready" not in output.read_bytes().replace(b"echo ready", b"") and time.monotonic() < end:
            time.sleep(0.02)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        if times == 1:
            assert "CANCELED" in output.read_text()


@row("ERR-03")
def test_a_missing_path_is_quoted_and_an_ignored_one_explained(lab: Lab, command: Runner) -> None:
    context = lab.context(
        {"Dockerfile": "FROM scratch\nCOPY gone.txt /\n", ".dockerignore": "*.txt\n", "gone.txt": "here"}
    )
    err = command.build(context, status=1).err
    assert "failed to compute cache key: failed to calculate checksum of ref " in err
    assert '"/gone.txt": not found' in err
    assert "gone.txt exists, but line 1 of .dockerignore leaves it out: *.txt" in err


@row("ERR-01", "ERR-03", "PRG-03", "PRG-05")
@pytest.mark.parametrize("line", ["COPY nope /x", "RUN --mount=type=bind,source=nope,target=/x true"])
def test_a_step_that_cannot_be_keyed_is_shown_as_failed(lab: Lab, command: Runner, line: str) -> None:
    context = lab.context({"Dockerfile": f"FROM busybox\n{line}\n"})
    shown = command.build(context, "--progress=plain", status=1).err
    number = next(row.split()[0] for row in shown.splitlines() if row.endswith(f" [2/2] {line}"))
    assert f"\n{number} ERROR: failed to compute cache key: " in shown
    assert f"------\n > [2/2] {line}:\n------\n" in shown
    begun = {row.split()[0] for row in shown.splitlines() if row.startswith("#")}
    ended = {
        row.split()[0]
        for row in shown.splitlines()
        if row.split()[1:2] in (["DONE"], ["CACHED"], ["ERROR:"], ["CANCELED"])
    }
    assert begun == ended, "every step that is shown ends"


@row("ERR-04")
def test_registry_errors_keep_status_host_and_words(lab: Lab) -> None:
    with running_registry() as registry:
        host = registry.host
        missing = _failure(lab, f"{host}/none:v1")
        assert host in missing
        assert "not found" in missing
        registry.put_manifest(
            "secret", "v1", b'{"only": "here"}', "application/vnd.oci.image.manifest.v1+json"
        )
        registry.faults.append(Fault(match="GET /v2/secret/manifests", status=403, times=9))
        refused = _failure(lab, f"{host}/secret:v1")
        assert host in refused
        assert "403" in refused
        assert "armed" in refused, "the words of the server"
        kinds = "application/vnd.oci.image."
        item = {"mediaType": f"{kinds}manifest.v1+json", "digest": f"sha256:{'a' * 64}", "size": 2}
        item["platform"] = {"os": "linux", "architecture": "amd64"}
        index = {"schemaVersion": 2, "mediaType": f"{kinds}index.v1+json", "manifests": [item]}
        registry.put_manifest("multi", "v1", json.dumps(index).encode(), f"{kinds}index.v1+json")
        lacking = _failure(lab, f"{host}/multi:v1", platforms=("linux/s390x",))
        assert "linux/s390x" in lacking
        assert f"{host}/multi:v1" in lacking


def _failure(lab: Lab, ref: str, **options) -> str:
    with pytest.raises(PybuildError) as caught:
        lab.build(lab.context(), f"FROM {ref}\nRUN true\n", **options)
    return "\n".join((caught.value.message, *caught.value.context))


@row("ERR-05")
def test_a_program_for_another_processor_is_recognised(lab: Lab) -> None:
    foreign = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00\x01\x00\x00\x00" + bytes(100)
    context = lab.context({"prog": (foreign, 0o755)})
    for line in ('RUN ["/prog"]', "RUN /prog"):
        with pytest.raises(SolveError) as caught:
            lab.build(context, f"FROM busybox\nCOPY prog /prog\n{line}\n")
        assert caught.value.hint is not None, caught.value.message
        assert "made for another processor" in caught.value.hint
        assert "qemu-user-static" in caught.value.hint


@pytest.mark.parametrize(
    ("owners", "output", "hint"),
    [
        (False, "chown: /f: Invalid argument", "beyond the range that /etc/subuid and /etc/subgid grant"),
        (True, "setgroups: Invalid argument", "pybuild doctor prints the lines"),
        (False, "mount: permission denied (are you root?)", "build as root"),
        (False, "no such file", None),
    ],
)
@row("ERR-05")
def test_what_a_user_namespace_takes_away_is_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, owners: bool, output: str, hint: str | None
) -> None:
    op = ExecOp(meta=ExecMeta(args=("x",)), mounts=(Mount(dest="/", input=0, output=0),))
    reporter = Reporter(BASE, lambda _: None)
    reporter.say(f"{output}\n")
    with env_for(lab.store, None) as env:
        for rootless in (False, True):
            monkeypatch.setattr(ownership.MODE, "nodes", rootless)
            monkeypatch.setattr(ownership.MODE, "owners", rootless and owners)
            error = step_failed(op, ExitStatus(1, None, False), reporter, env, late=False, platform=None)
            if rootless and hint is not None:
                assert error.hint is not None
                assert hint in error.hint
            else:
                assert error.hint is None
