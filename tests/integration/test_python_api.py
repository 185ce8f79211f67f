"""The Python API: builds from memory, several threads, cancelling, images, containers."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pybuild
from tests.support.buildlab import base_tar
from tests.support.containerlab import monitors_of

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pybuild.Client]:
    tmp = tmp_path_factory.mktemp("api")
    with pybuild.Client(tmp / "root") as client:
        client.images.import_(base_tar(tmp), "busybox:latest")
        yield client
        for row in client.containers.list(all=True):
            client.containers.get(row.id).remove(force=True, volumes=True)
    deadline = time.monotonic() + 5
    while monitors_of(tmp) and time.monotonic() < deadline:
        time.sleep(0.02)


def build(
    client: pybuild.Client, text: str, files: dict[str, Any] | None = None, **more: Any
) -> pybuild.BuildResult:
    more.setdefault("network", "none")
    return client.build({"Dockerfile": text, **(files or {})}, **more)


def test_import_is_cheap_and_every_name_is_there() -> None:
    code = (
        "import time, sys; t = time.perf_counter(); import pybuild; t = time.perf_counter() - t;"
        "assert {name for name in sys.modules if name.startswith(('builder', 'runtime', 'cli'))} == {'builder'};"
        "assert all(getattr(pybuild, name) for name in pybuild.__all__);"
        "assert not any(name.split('.')[0] == 'cli' for name in sys.modules); print(t)"
    )
    spent = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(spent) < 0.003
    with pytest.raises(AttributeError):
        pybuild.nothing  # noqa: B018


def test_build_from_memory(client: pybuild.Client) -> None:
    events: list[Any] = []
    result = build(
        client,
        "FROM busybox AS one\nARG WHO=world\nCOPY app /app\nRUN /app/hello $WHO > /out\n"
        "FROM scratch\nCOPY --from=one /out /app/data /\n",
        {"app/hello": ("#!/bin/sh\necho hello $1\n", 0o755), "app/data": b"\x00\xff"},
        tags=["api:1"],
        build_args={"WHO": "you"},
        labels={"a": "b"},
        on_event=events.append,
    )
    assert result.image_id == str(client.images.get("api:1").id)
    assert result.names == ("docker.io/library/api:1",)
    assert client.images.inspect("api:1")["Config"]["Labels"] == {"a": "b"}
    assert any(isinstance(event, pybuild.VertexEvent) for event in events)
    again = build(client, "FROM busybox\nRUN false", dockerfile=b"FROM busybox\nRUN true")
    assert again.total_steps == 1


def test_the_same_mapping_is_cached_and_a_change_is_explained(client: pybuild.Client) -> None:
    text = "FROM busybox\nCOPY . /explained\nRUN true"
    build(client, text, {"a": "1"})
    second = build(client, text, {"a": "1"})
    assert second.cached_steps == 2
    third = build(client, text, {"a": "2"})
    assert third.steps[0].causes == (pybuild.Cause("file-changed", "a"),)
    assert client.explain().id == third.build_id
    assert client.builds()[0].id == third.build_id


def test_outputs_and_secrets(client: pybuild.Client, tmp_path: Path) -> None:
    text = "FROM busybox AS b\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /n\nFROM scratch\nCOPY --from=b /n /n"
    build(client, text, secrets={"s": "12345"}, outputs=[f"type=local,dest={tmp_path}/out"])
    assert (tmp_path / "out/n").read_text().strip() == "5"
    stream = io.BytesIO()
    build(
        client,
        text,
        secrets={"s": b"1234567"},
        outputs=[pybuild.OutputSpec(type="tar", dest="-")],
        stdout=stream,
    )
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        assert [member.name.strip("./") for member in tar if member.isfile()] == ["n"]


def test_module_level_build_of_a_directory(client: pybuild.Client, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true")
    result = pybuild.build(tmp_path, tags=["directory"], network="none", root=client.root)
    assert result.image_id == str(client.images.get("directory").id)


def test_several_threads_build_at_the_same_time(client: pybuild.Client) -> None:
    results: dict[int, pybuild.BuildResult] = {}

    def work(number: int) -> None:
        results[number] = build(
            client, f"FROM busybox\nCOPY n /n\nRUN sleep 0.2; echo {number} >> /n", {"n": str(number)}
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.image_id for result in results.values()}) == 6


def test_cancel(client: pybuild.Client) -> None:
    cancel = pybuild.Cancel()
    threading.Timer(0.5, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(pybuild.Cancelled):
        build(client, "FROM busybox\nRUN sleep 30", cancel=cancel)
    assert time.monotonic() - began < 10
    with pytest.raises(pybuild.Cancelled):
        build(client, "FROM busybox\nRUN true", cancel=cancel)


def test_failures_are_pybuild_errors(client: pybuild.Client, tmp_path: Path) -> None:
    with pytest.raises(pybuild.StepFailed) as failed:
        build(client, "FROM busybox\nRUN echo oh no; exit 4")
    assert failed.value.exit_code == 4
    assert "oh no" in "".join(failed.value.log_tail)
    for context in (
        {},
        {"../x": "1"},
        {"/x": "1"},
        {"Dockerfile": ""},
        tmp_path / "missing",
        {"Dockerfile": "NOPE x"},
    ):
        with pytest.raises(pybuild.PybuildError):
            client.build(context)  # type: ignore[arg-type]
    with pytest.raises(pybuild.UsageError):
        client.build({"Dockerfile": "FROM busybox"}, tags="wrong")
    with pytest.raises(pybuild.NoSuchImage):
        client.images.get("nope")
    with pytest.raises(pybuild.NoSuchContainer):
        client.containers.get("nope")


def test_images(client: pybuild.Client, tmp_path: Path) -> None:
    result = build(client, "FROM busybox\nRUN echo images > /images", tags=["images:1"])
    client.images.tag("images:1", "images:2")
    assert {row.tag for row in client.images.list("images")} == {"1", "2"}
    assert "RUN" in client.images.history("images:1")[0].created_by
    client.images.save(["images:1"], tmp_path / "saved.tar")
    assert client.images.remove("images:1")
    assert not client.images.exists("images:1")
    assert client.images.load(tmp_path / "saved.tar") == ("docker.io/library/images:1",)
    assert str(client.images.get("images:1").id) == result.image_id
    with pytest.raises(pybuild.PybuildError):
        client.images.load(tmp_path / "missing.tar")


def test_run_in_the_foreground(client: pybuild.Client) -> None:
    run = client.containers.run
    done = run(
        "busybox", ["sh", "-c", "echo out; echo err >&2; echo $V; exit 3"], network="none", env={"V": "v"}
    )
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\nv\n", b"err\n")
    with pytest.raises(pybuild.ContainerError):
        done.check()
    data = b"x" * 300_000
    assert run("busybox", "cat", stdin=data, network="none").check().stdout == data
    assert run("busybox", "true", stdin=data, network="none").exit_code == 0
    with pytest.raises(pybuild.ContainerError) as late:
        run("busybox", ["sleep", "30"], timeout_s=0.3, network="none")
    assert late.value.code == "timeout"
    cancel = pybuild.Cancel()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(pybuild.Cancelled):
        run("busybox", ["sleep", "30"], cancel=cancel, network="none")
    with pytest.raises(pybuild.PybuildError):
        run("busybox", "no-such-command", network="none")
    assert client.containers.list(all=True) == ()


def test_a_container_in_the_background(client: pybuild.Client, tmp_path: Path) -> None:
    shell = "trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done"
    with_volume = [f"{tmp_path}:/host:ro"]
    (tmp_path / "seen").write_text("host file")
    made = client.containers.run(
        "busybox", ["sh", "-c", shell], detach=True, name="api", network="none", volumes=with_volume
    )
    try:
        assert (made.name, made.status) == ("api", "running")
        assert client.containers.get("api").id == made.id
        assert [row.name for row in client.containers.list()] == ["api"]
        assert made.exec(["cat", "/host/seen"]).check().text == "host file"
        assert made.exec("cat", stdin=b"in").stdout == b"in"
        assert made.exec(["sh", "-c", "echo made > /made; exit 2"]).exit_code == 2
        made.put({"etc/new": "new\n", "etc/tool": ("#!/bin/sh\necho tool\n", 0o755)}, "/")
        assert made.exec("/etc/tool").text == "tool\n"
        assert made.read("/etc/new") == b"new\n"
        made.get("/made", tmp_path / "made")
        assert (tmp_path / "made").read_text() == "made\n"
        assert "/made" in {row.path for row in made.diff()}
        assert next(iter(made.follow())).data == b"up\n"
        image_id = made.commit("committed:1", changes=["ENV X=1"])
        assert client.containers.run("committed:1", ["cat", "/made"], network="none").text == "made\n"
        assert str(client.images.get("committed:1").id) == image_id
        out = io.BytesIO()
        made.export(out)
        assert b"etc/new" in out.getvalue()
        made.stop(timeout_s=5)
        assert (made.status, made.wait(), made.logs()) == ("exited", 0, b"up\n")
        assert made.inspect()["State"]["ExitCode"] == 0
    finally:
        made.remove(force=True)
    with pytest.raises(pybuild.NoSuchContainer):
        made.status  # noqa: B018
