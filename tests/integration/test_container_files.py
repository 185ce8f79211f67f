"""Volumes, cp, diff, commit and export of containers."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import containers as c
from builder.containers import options
from builder.errors import PybuildError
from tests.support.containerlab import ContainerLab, container_lab

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerLab]:
    with container_lab(tmp_path_factory.mktemp("containers")) as made:
        yield made


def rows(lab: ContainerLab, ref: str) -> list[str]:
    return [f"{row.kind} {row.path}" for row in c.diff(lab.store, ref)]


def test_diff_then_commit_then_delete(lab: ContainerLab) -> None:
    """EX-42, EX-43."""
    made = lab.start(
        "sh", "-c", "echo a > /tmp/a.txt; touch /tmp/b.txt; rm /tmp/b.txt; echo c > /tmp/c.txt; sleep 100"
    )
    lab.wait_for(lambda: "A /tmp/c.txt" in rows(lab, made.id))
    assert rows(lab, made.id) == ["C /tmp", "A /tmp/a.txt", "A /tmp/c.txt"]
    lab.execute(made.id, "touch", "/tmp/1.txt")
    assert "A /tmp/1.txt" in rows(lab, made.id)
    c.commit(lab.store, made.id, c.CommitRequest(reference="step:1"))
    assert lab.status(made.id) == "running"
    c.kill(lab.store, made.id)
    second = lab.start("rm", "/tmp/a.txt", image="step:1")
    c.wait(lab.store, second.id)
    assert rows(lab, second.id) == ["C /tmp", "D /tmp/a.txt"]


@pytest.mark.parametrize("pause", [True, False])
def test_commit_applies_changes(lab: ContainerLab, pause: bool) -> None:
    """EX-40, EX-41."""
    made = lab.start("sh", "-c", "sleep 100", env=("EXTRA=1",), expose=("9000",))
    request = c.CommitRequest(
        reference="x:version3",
        message="why",
        author="me",
        changes=("ENV DEBUG true", "EXPOSE 9999", 'CMD ["date"]'),
        pause=pause,
    )
    image_id = c.commit(lab.store, made.id, request)
    c.kill(lab.store, made.id)
    image = lab.store.images.resolve("x:version3")
    assert image is not None
    assert image.id == image_id
    config = image.config
    assert {"DEBUG=true", "EXTRA=1", "FROM_IMAGE=yes"} <= set(config.env)
    assert set(config.exposed_ports) == {"8000/tcp", "9000/tcp", "9999/tcp"}
    assert config.cmd == ("date",)
    assert (config.history[-1].comment, config.history[-1].author, config.author) == ("why", "me", "me")
    assert len(config.history) == len(config.diff_ids) == 2
    assert lab.sh("echo $DEBUG", image="x:version3") == "true\n"
    with pytest.raises(PybuildError):
        c.commit(lab.store, made.id, c.CommitRequest(changes=("RUN true",)))


def test_what_is_mounted_stays_out_of_diff_commit_and_export(lab: ContainerLab, tmp_path: Path) -> None:
    """EX-88, VOL-09, EX-50."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "file").write_text("host")
    made = lab.start(
        "sh",
        "-c",
        "echo 1.2.3.4 x >> /etc/hosts; echo y > /vol/y; echo z > /deep/er/mount/z; : > /dev/shm/q; : > /scratch/t",
        volumes=(
            options.volume("/vol"),
            options.volume(f"{tmp_path}/shared:/deep/er/mount"),
            options.volume(f"{tmp_path}/file:/etc/app/file:ro"),
        ),
        tmpfs=(options.tmpfs("/scratch:size=1m"),),
    )
    assert c.wait(lab.store, made.id) == 0, list(c.logs(lab.store, made.id))
    assert rows(lab, made.id) == []
    assert (tmp_path / "shared" / "z").read_text() == "z\n"
    c.commit(lab.store, made.id, c.CommitRequest(reference="clean:1"))
    image = lab.store.images.resolve("clean:1")
    assert image is not None
    manifest = lab.store.images.manifest_for_host(image.manifest)
    with lab.store.blobs.open(manifest.layers[-1].digest) as blob, tarfile.open(fileobj=blob) as layer:
        assert layer.getnames() == []
    out = io.BytesIO()
    c.export(lab.store, made.id, out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = set(archive.getnames())
    assert {"deep/er/mount", "vol", "bin/busybox"} <= names
    assert not names & {"deep/er/mount/z", "vol/y", "etc/hosts", "etc/resolv.conf", ".dockerenv"}


def test_volumes_are_filled_from_the_image_and_kept(lab: ContainerLab) -> None:
    """VOL-01, VOL-02, VOL-07, VOL-08."""
    assert lab.sh(
        "cat /data/seed; stat -c %u /data; echo more > /data/more", volumes=(options.volume("keep:/data"),)
    ) == ("from the image\n1000\n")
    assert lab.sh("cat /data/more", volumes=(options.volume("keep:/data:ro"),)) == "more\n"
    code, _, err = lab.run("touch", "/data/x", volumes=(options.volume("keep:/data:ro"),))
    assert code == 1
    assert b"Read-only" in err
    assert lab.sh("ls /data", volumes=(options.volume("plain:/data:nocopy"),)) == ""
    before = {v.name for v in lab.store.volumes.list()}
    assert {"keep", "plain"} <= before
    made = lab.create("true", volumes=(options.volume("/anonymous"), options.volume("keep:/data")))
    assert len(lab.store.volumes.list()) == len(before) + 1
    c.remove(lab.store, made.id, volumes=True)
    assert {v.name for v in lab.store.volumes.list()} == before


def test_volumes_from_and_backup(lab: ContainerLab, tmp_path: Path) -> None:
    """EX-84, VOL-05, VOL-10."""
    source = lab.create("true", volumes=(options.volume("/data"),))
    backup = options.volume(f"{tmp_path}:/backup")
    lab.sh("cp -a /data /backup/", volumes_from=(source.id,), volumes=(backup,))
    assert (tmp_path / "data" / "seed").read_text() == "from the image\n"
    code, _, _ = lab.run("touch", "/data/x", volumes_from=(f"{source.name}:ro",))
    assert code == 1
    c.remove(lab.store, source.id, volumes=True)


def test_volume_over_a_file_is_refused(lab: ContainerLab) -> None:
    """VOL-03."""
    with pytest.raises(PybuildError) as caught:
        lab.create("true", volumes=(options.volume("/etc/passwd"),))
    assert caught.value.code == "volume-over-file"


@pytest.fixture(params=["running", "stopped"])
def target(lab: ContainerLab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A container with a volume, running or not."""
    script = "mkdir /tmp/dir; echo A > /tmp/dir/A.txt; ln -s /tmp/dir /tmp/link; ln -s /etc/passwd /tmp/pw; echo ok; sleep 100"
    made = lab.start("sh", "-c", script, volumes=(options.volume("/data"),))
    lab.wait_for(lambda: bool(list(c.logs(lab.store, made.id))))
    if request.param == "stopped":
        c.kill(lab.store, made.id)
    yield made.id
    c.remove(lab.store, made.id, force=True, volumes=True)


def test_copy_out_by_the_rules(lab: ContainerLab, target: str, tmp_path: Path) -> None:
    """EX-44, IO-CP-1, IO-CP-3."""
    c.copy_out(lab.store, target, "/tmp/dir/A.txt", str(tmp_path))
    assert (tmp_path / "A.txt").read_text() == "A\n"
    c.copy_out(lab.store, target, "tmp/dir/A.txt", str(tmp_path / "renamed"))
    assert (tmp_path / "renamed").read_text() == "A\n"
    c.copy_out(lab.store, target, "/tmp/dir", str(tmp_path / "new"))
    assert (tmp_path / "new" / "A.txt").exists()
    c.copy_out(lab.store, target, "/tmp/dir", str(tmp_path / "new"))
    assert (tmp_path / "new" / "dir" / "A.txt").exists()
    c.copy_out(lab.store, target, "/tmp/dir/.", str(tmp_path / "flat"))
    assert os.listdir(tmp_path / "flat") == ["A.txt"]
    c.copy_out(lab.store, target, "/tmp/link", str(tmp_path / "aslink"))
    assert os.readlink(tmp_path / "aslink") == "/tmp/dir"
    c.copy_out(lab.store, target, "/tmp/link/", str(tmp_path / "followed"))
    assert (tmp_path / "followed" / "A.txt").exists()
    c.copy_out(lab.store, target, "/tmp/pw", str(tmp_path / "pw"), follow=True)
    assert "bob" in (tmp_path / "pw").read_text()
    c.copy_out(lab.store, target, "/data/seed", str(tmp_path / "seed"))
    assert (tmp_path / "seed").read_text() == "from the image\n"
    c.copy_out(lab.store, target, "/data", str(tmp_path / "owned"), archive=True)
    assert (tmp_path / "owned").stat().st_uid == 1000
    c.copy_out(lab.store, target, "/data", str(tmp_path / "mine"))
    assert (tmp_path / "mine").stat().st_uid == 0


@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        ("/nosuch", "x", "copy-source-missing"),
        ("/tmp/dir/A.txt", "missing/", "copy-target-missing"),
        ("/tmp/dir/A.txt", "no/such/dir", "copy-target-missing"),
        ("/tmp/dir", "file", "copy-failed"),
    ],
)
def test_copy_out_refuses(
    lab: ContainerLab, target: str, tmp_path: Path, source: str, destination: str, code: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PybuildError) as caught:
        c.copy_out(lab.store, target, source, f"{tmp_path}/{destination}")
    assert caught.value.code == code


def test_copy_in_by_the_rules(lab: ContainerLab, target: str, tmp_path: Path) -> None:
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "sub" / "f").write_text("inner")
    os.chown(tmp_path / "src" / "sub" / "f", 1234, 1234)
    c.copy_in(lab.store, target, str(tmp_path / "src"), "/tmp")
    c.copy_in(lab.store, target, f"{tmp_path}/src/.", "/tmp/dir")
    c.copy_in(lab.store, target, str(tmp_path / "src" / "sub" / "f"), "/tmp/link/through")
    c.copy_in(lab.store, target, str(tmp_path / "src" / "sub" / "f"), "/data/f", archive=True)
    out = io.BytesIO()
    c.tar_out(lab.store, target, "/tmp", out)
    c.tar_out(lab.store, target, "/data/f", data := io.BytesIO())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = set(archive.getnames())
        assert {"tmp/src/sub/f", "tmp/dir/sub/f", "tmp/dir/through"} <= names
        assert archive.getmember("tmp/src/sub/f").uid == 0
        assert archive.getmember("tmp/link").issym()
    with tarfile.open(fileobj=io.BytesIO(data.getvalue())) as archive:
        assert archive.getmember("f").uid == 1234


def test_tar_in_stays_inside(lab: ContainerLab, target: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in (("plain", b"1"), ("../../up", b"2"), ("/abs", b"3"), ("deep/er/f", b"4")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        through = tarfile.TarInfo("out/escaped")
        through.size = 1
        archive.addfile(through, io.BytesIO(b"5"))
    buffer.seek(0)
    c.tar_in(lab.store, target, buffer, "/tmp/dir")
    assert os.listdir(tmp_path) == []
    c.tar_out(lab.store, target, "/tmp/dir", out := io.BytesIO())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as made:
        names = set(made.getnames())
    assert {"dir/plain", "dir/up", "dir/abs", "dir/deep/er/f", "dir/out"} <= names


def test_links_of_the_container_lead_nowhere_on_the_host(lab: ContainerLab, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2019-10152: also while the container keeps swapping a directory for a link."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "secret").write_text("host secret")
    script = (
        f"mkdir -p /a/real; echo inside > /a/real/secret; ln -s {canary} /a/evil; cd /a; "
        "echo go; while :; do mv real t; mv evil real; mv real evil; mv t real; done"
    )
    made = lab.start("sh", "-c", script)
    lab.wait_for(lambda: bool(list(c.logs(lab.store, made.id))))
    (tmp_path / "put").write_text("written")
    for number in range(60):
        try:
            c.copy_out(lab.store, made.id, "/a/real/secret", str(tmp_path / f"got{number}"))
            assert (tmp_path / f"got{number}").read_text() == "inside\n"
        except PybuildError:
            pass
        try:
            c.copy_in(lab.store, made.id, str(tmp_path / "put"), "/a/real/planted")
        except PybuildError:
            pass
    c.kill(lab.store, made.id)
    assert os.listdir(canary) == ["secret"]
    assert (canary / "secret").read_text() == "host secret"


def test_inspect_gives_back_what_was_asked(lab: ContainerLab) -> None:
    """EX-87, CRE-10 to CRE-12."""
    made = lab.create(
        "sleep",
        "1",
        name="asked",
        labels=(("tier", "web"),),
        mac_address="02:42:0a:00:00:09",
        cap_add=("NET_ADMIN",),
        cap_drop=("MKNOD",),
        ports=options.ports("127.0.0.1:8080:80"),
        dns=("10.0.0.2",),
        restart=options.restart("on-failure:3"),
        limits=options_limits(),
        stop_signal="SIGINT",
        network="bridge",
    )
    found = c.inspect_container(lab.store, "asked", size=True)
    json.dumps(found)
    assert found["Name"] == "/asked"
    assert (found["Path"], found["Args"]) == ("sleep", ["1"])
    assert found["State"] == {
        "Status": "created",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    host = found["HostConfig"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert (host["CapAdd"], host["CapDrop"], host["Dns"]) == (["NET_ADMIN"], ["MKNOD"], ["10.0.0.2"])
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (host["Memory"], host["CpuShares"]) == (64 << 20, 512)
    assert found["Config"]["Labels"] == {"tier": "web"}
    assert found["Config"]["StopSignal"] == "SIGINT"
    assert found["Config"]["MacAddress"] == "02:42:0a:00:00:09"
    assert found["SizeRw"] == 0
    assert found["SizeRootFs"] > 1_000_000
    c.remove(lab.store, made.id)


def options_limits() -> object:
    from runtime.spec import Limits

    return Limits(memory_bytes=64 << 20, cpu_shares=512)


def test_confinement_and_capabilities(lab: ContainerLab) -> None:
    """EX-73, ISO-04, RUN-30, RUN-31, RUN-34."""
    default = _caps(lab.sh("cat /proc/self/status"))
    assert default["CapInh"] == 0
    assert not default["CapEff"] & 1 << 12
    assert _caps(lab.sh("cat /proc/self/status", cap_add=("NET_ADMIN",)))["CapEff"] & 1 << 12
    dropped = _caps(lab.sh("cat /proc/self/status", cap_add=("ALL",), cap_drop=("MKNOD",)))["CapEff"]
    assert dropped & 1 << 21
    assert not dropped & 1 << 27
    assert _caps(lab.sh("cat /proc/self/status", cap_drop=("ALL",)))["CapEff"] == 0
    code, _, err = lab.run("touch", "/x", readonly_root=True)
    assert code == 1
    assert b"Read-only" in err
    assert "NoNewPrivs:\t1" in lab.sh("cat /proc/self/status", security_opt=("no-new-privileges",))
    assert lab.sh("ls /dev/kmsg", privileged=True) == "/dev/kmsg\n"


def _caps(status: str) -> dict[str, int]:
    lines = (line.partition(":") for line in status.splitlines() if line.startswith("Cap"))
    return {name: int(value, 16) for name, _, value in lines}


def test_shared_namespaces(lab: ContainerLab) -> None:
    """EX-86."""
    assert str(os.getpid()) in lab.sh("ls /proc", pid="host").split()
    assert lab.sh("hostname", uts="host").strip() == os.uname().nodename
    made = lab.start("sleep", "100", name="ipc")
    _, own = lab.execute(made.id, "readlink", "/proc/self/ns/ipc")
    assert lab.sh("readlink /proc/self/ns/ipc", ipc="container:ipc") == own
    assert "sleep 100" in lab.sh("ps", pid="container:ipc")
    c.kill(lab.store, made.id)


def test_many_processes_create_at_once(lab: ContainerLab) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            assert lab.run("sh", "-c", f"echo {number} > /tmp/n; cat /tmp/n")[1] == f"{number}\n".encode()
        except BaseException as error:  # noqa: BLE001  (looked at by the test)
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_host_modes_are_untouched_by_copying(lab: ContainerLab, tmp_path: Path) -> None:
    """CVE-2021-41089."""
    (tmp_path / "dir").mkdir(mode=0o700)
    (tmp_path / "dir" / "f").write_text("x")
    os.chmod(tmp_path / "dir" / "f", 0o640)
    before = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path, tmp_path / "dir", tmp_path / "dir" / "f")]
    made = lab.create("true")
    c.copy_in(lab.store, made.id, str(tmp_path / "dir"), "/tmp")
    c.copy_out(lab.store, made.id, "/tmp/dir", str(tmp_path))
    after = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path, tmp_path / "dir", tmp_path / "dir" / "f")]
    assert before == after
    c.remove(lab.store, made.id)
