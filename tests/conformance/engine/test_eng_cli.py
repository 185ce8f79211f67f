"""The command line of a build (CLI rows)."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.exporter.types import OutputSpec
from cli.build_options import MAX_SECRET_BYTES, read_secret
from cli.commands.build import COMMANDS
from cli.flags import parse
from cli.frontend_options import translated
from cli.settings import Settings
from tests.support.cli import Runner
from tests.support.rows import row

root_only = pytest.mark.root
BUILD = COMMANDS[0]
FLAGS = [
    "frontend",
    "opt",
    "local",
    "oci-layout",
    "output",
    "export-cache",
    "import-cache",
    "no-cache",
    "secret",
    "ssh",
    "allow",
    "progress",
    "metadata-file",
    "source-policy-file",
    "ref-file",
    "trace",
    "registry-auth-tlscontext",
    "debug-json-cache-metrics",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        "ARG WHO\nFROM scratch AS one\nCOPY a /\nFROM one AS two\nARG WHO\nLABEL who=$WHO\n"
    )
    (folder / "a").write_text("1")
    return folder


@row("CLI-01")
def test_every_flag_is_known() -> None:
    known = {name for flag in BUILD.flags for name in (flag.name, *flag.aliases)}
    assert not set(FLAGS) - known


@row("CLI-01")
@root_only
def test_the_way_of_buildctl(command: Runner, project: Path, tmp_path: Path) -> None:
    (project / "D").write_text((project / "Dockerfile").read_text())
    (project / "Dockerfile").write_text("FROM broken")
    ref, trace, out = tmp_path / "ref", tmp_path / "trace", tmp_path / "out"
    words = (
        "--frontend=dockerfile.v0",
        f"--local=context={project}",
        f"--local=dockerfile={project}",
        "--opt=filename=D",
    )
    more = (
        "--opt=build-arg:WHO=me",
        "--opt=label:l=v",
        "--opt=target=two",
        "--ref-file",
        ref,
        "--trace",
        trace,
    )
    command.run("build", *words, *more, "-t", "eng-cli", "--no-cache", "--progress=plain")
    assert command.inspect("eng-cli", "--type=image")["Config"]["Labels"] == {"who": "me", "l": "v"}
    assert len(ref.read_text().strip()) >= 12
    names = [
        v.get("name", "")
        for line in trace.read_text().splitlines()
        for v in json.loads(line).get("vertexes", [])
    ]
    assert any("COPY a /" in name for name in names)
    command.run("build", *words, "--opt=no-cache=one", "-o", f"type=local,dest={out}")
    assert (out / "a").read_text() == "1"


def test_options_become_flags(tmp_path: Path) -> None:
    def flags(*options: str) -> object:
        return translated(parse(BUILD, [*(f"--opt={option}" for option in options), str(tmp_path)]))

    found = translated(
        parse(
            BUILD,
            ["--opt=no-cache=", "--opt=add-hosts=a=1.2.3.4,b=::1", "--opt=cpushares=7", "--opt=memory=9m", "--opt=platform=linux/amd64,linux/arm64",
             "--opt=force-network-mode=none", "--opt=image-resolve-mode=pull", "--opt=attest:sbom=generator=x", "--opt=attest:provenance=false",
             '--opt=cache-imports=[{"Type":"registry","Attrs":{"ref":"r"}}]', "--opt=context:base=local:other", "--local=other=/o",
             "--opt=multi-platform=true", "--opt=vcs:source=x", "--opt=contextsubdir=sub", f"--local=context={tmp_path}", "--opt=filename=F"],
        )
    )  # fmt: skip
    assert found.on("no-cache")
    assert found.on("pull")
    assert found.many("add-host") == ("a=1.2.3.4", "b=::1")
    assert (found.number("cpu-shares"), found.text("memory"), found.text("network")) == (7, "9m", "none")
    assert found.many("platform") == ("linux/amd64", "linux/arm64")
    assert found.many("attest") == ("type=sbom,generator=x", "type=provenance,disabled=true")
    assert found.many("cache-from") == ("type=registry,ref=r",)
    assert found.many("build-context") == ("base=/o",)
    assert found.many("build-arg") == ("BUILDKIT_MULTI_PLATFORM=true",)
    assert found.words == (f"{tmp_path}/sub",)
    assert found.text("file") == "F"
    for wrong, said in (
        ("image-resolve-mode=x", "invalid image-resolve-mode: x"),
        ("force-network-mode=x", "invalid netmode x"),
        ("cpushares=x", "invalid cpushares value: x"),
        ("targte=x", r"unknown option 'targte'.*did you mean target"),
        ("cache-imports={", "failed to unmarshal cache-imports"),
        ("context:x=local:y", "local directory y not enabled"),
    ):
        with pytest.raises(UsageError, match=said):
            flags(wrong)
    for words, said in (
        (["--frontend=gateway.v0", "."], r"frontend gateway\.v0 is not supported"),
        (["--frontend=dockerfile.v0"], "local directory context not enabled"),
        (["--opt=contextsubdir=../x", f"--local=context={tmp_path}"], "outside of the context"),
    ):
        with pytest.raises(UsageError, match=said):
            translated(parse(BUILD, words))


@row("CLI-02")
@root_only
def test_output(command: Runner, project: Path, tmp_path: Path) -> None:
    for text, said, hint in (
        ("dest=x", "--output requires type=<type>", ""),
        ("type=oci,output=x", "unknown key 'output'", "want dest=PATH"),
        ("type=wrong", "unsupported output type 'wrong'", ""),
        ('type=oci,"dest', "invalid output", ""),
        ("type=local", "dest is required for local exporter", ""),
        ("type=oci,tar=false", r"dest is required for oci exporter with tar=false", ""),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            OutputSpec.parse(text)
        assert hint in (caught.value.hint or "")
        assert command.build(project, "-o", text, status=2).err.count("\n") < 6
    command.build(
        project, "-o", f"type=oci,dest={tmp_path}/i.tar", "-o", f"type=oci,tar=false,dest={tmp_path}/layout"
    )
    assert tarfile.is_tarfile(tmp_path / "i.tar")
    assert (tmp_path / "layout/index.json").is_file()
    piped = command.build(project, "-o", "type=tar,dest=-").stdout
    with tarfile.open(fileobj=io.BytesIO(piped)) as tar:
        assert tar.getnames() == ["a"]
    master, slave = pty.openpty()
    done = subprocess.run(
        [*command.prefix, "build", "-o", "type=tar", str(project)],
        stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE, env=command.environment(), check=False,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert b"refusing to write the tar output to a terminal" in done.stderr


@row("CLI-03")
def test_secrets(tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_bytes(b"from file")
    settings = Settings({"TOKEN": "from env", "HOME": "/"})

    def read(text: str) -> tuple[str, bytes]:
        found = read_secret(text, settings)
        return found.id, found.data

    assert (
        read(f"id=x,src={file}")
        == read(f"id=x,source={file}")
        == read(f"type=file,id=x,src={file}")
        == ("x", b"from file")
    )
    assert read("id=x,env=TOKEN") == read("type=env,id=x,src=TOKEN") == ("x", b"from env")
    assert read("id=TOKEN") == ("TOKEN", b"from env")  # no source: the variable of that name, else the file
    assert read(f"id={file}") == (str(file), b"from file")
    file.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    for text, said in (
        ("src=x", "secret missing ID"),
        ("id=x,src=/nowhere", "failed to stat /nowhere"),
        (f"id=x,src={file}", "secret x too big. max size 500KB"),
        ("id=x,type=vault", "unsupported secret type 'vault'"),
        ("id=x,scr=y", r"unexpected key 'scr' in secret.*did you mean src"),
        ("id=x,env=NOTHING", "environment variable NOTHING is not set"),
    ):
        with pytest.raises(UsageError, match=said):
            read(text)


@row("CLI-04")
@root_only
def test_ssh(command: Runner, tmp_path: Path) -> None:
    key, other, locked = tmp_path / "k", tmp_path / "o", tmp_path / "locked"
    for path, phrase in ((key, ""), (other, ""), (locked, "secret")):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", path.name, "-f", str(path)], check=True
        )
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,id=me [ -S $SSH_AUTH_SOCK ]\n")
    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if agent.exists():
                break
            time.sleep(0.02)
        flags = ("--network=none", "--no-cache")
        command.build(tmp_path, *flags, f"--ssh=me={agent}")
        command.build(tmp_path, *flags, "--ssh=me", env={"SSH_AUTH_SOCK": str(agent)})
        command.build(tmp_path, *flags, f"--ssh=me={agent},raw=true")
        command.build(tmp_path, *flags, f"--ssh=me={key},{other}")
        for value, said in (
            (f"me={agent},{agent}", "only single socket allowed"),
            (f"me={agent},{key}", "invalid combination of keys and sockets"),
            (f"me={key},raw=true", "raw mode must supply exactly one socket path for 'me'"),
            (f"me={locked}", f"failed to parse SSH key {locked}"),
            ("me", "SSH_AUTH_SOCK is not set"),
        ):
            assert said in command.build(tmp_path, *flags, f"--ssh={value}", status=2).err
        twice = command.build(tmp_path, f"--ssh=me={agent}", f"--ssh=me={agent}", status=2).err
        assert "duplicate agent ID 'me'" in twice
    finally:
        process.terminate()
        process.wait()
    assert not list(Path("/tmp").glob("pybuild-ssh-*"))


@row("CLI-04")
def test_keys_are_in_the_agent_and_the_agent_ends(tmp_path: Path) -> None:
    from cli.sshkeys import agent_with

    key = tmp_path / "k"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "name", "-f", str(key)], check=True)
    key.chmod(0o644)  # ssh-add itself would refuse that
    endings: list[object] = []
    socket = agent_with([str(key)], endings.append)
    listed = subprocess.run(["ssh-add", "-l"], env={"SSH_AUTH_SOCK": socket, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)  # fmt: skip
    assert "name (ED25519)" in listed.stdout
    for ending in reversed(endings):
        assert callable(ending)
        ending()
    assert not os.path.exists(socket)


@row("CLI-05")
@root_only
def test_metadata(command: Runner, project: Path, tmp_path: Path) -> None:
    file = tmp_path / "meta.json"
    file.write_text("old")
    command.build(project, "--metadata-file", file, "-t", "eng-meta")
    found = json.loads(file.read_text())
    assert found["containerimage.digest"].startswith("sha256:")
    assert found["containerimage.descriptor"]["digest"] == found["containerimage.digest"]  # expanded
    assert found["image.name"] == "docker.io/library/eng-meta:latest"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "meta"))] == ["meta.json"]
    (project / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    command.build(project, "--metadata-file", file, status=1)
    assert json.loads(file.read_text()) == found


@row("CLI-06")
@root_only
def test_other_verbs(pybuild: Runner, project: Path) -> None:
    pybuild.build(project)
    assert "RECLAIMABLE" in pybuild.run("du").out
    assert "COPY a /" in pybuild.run("debug", "dump-llb", project).out
    assert pybuild.run("debug", "histories", "-q").out == pybuild.run("history", "ls", "-q").out != ""
    for words in (("debug", "info"), ("debug", "workers"), ("debug", "get"), ("debug", "fsck")):
        assert pybuild.run(*words).out + pybuild.run(*words).err
    logs = pybuild.run("debug", "logs")
    assert "COPY a /" in logs.out + logs.err
    assert "Total" in pybuild.run("builder", "prune", "--all", "--force").out
    pybuild.run("history", "rm", "--all")
    assert pybuild.run("debug", "histories", "-q").out == ""


@row("CLI-07")
@root_only
def test_exit_statuses(command: Runner, project: Path, tmp_path: Path) -> None:
    """1 for a failed build, whatever the command ended with; 2 for usage, 3 for policy."""
    failing = tmp_path / "failing"
    failed = command.dockerfile(failing, "FROM busybox\nRUN exit 42\n", "--network=none", status=1)
    assert "did not complete successfully: exit code: 42" in failed.err
    command.build(project, "--no-such-flag", status=2)
    rules = tmp_path / "p.json"
    rules.write_text('{"rules": [{"action": "DENY", "selector": {"identifier": "*"}}]}')
    command.build(failing, f"--source-policy-file={rules}", status=3)
    shown = command.run("--error-format=json", "build", "-q", failing, "--network=none", status=1).err
    found = json.loads(shown.splitlines()[-1])["error"]
    assert (found["code"], found["exit_status"], found["exit_code"]) == ("step-failed", 1, 42)
    code = (
        "import sys; from cli.render.errors import report; "
        "sys.exit(report(RuntimeError('x'), debug=False, form='text', stream=sys.stderr))"
    )
    assert subprocess.run([command.prefix[0], "-c", code], capture_output=True, cwd=Path(__file__).parents[3], check=False).returncode == 70  # fmt: skip


@row("CLI-09")
@root_only
def test_environment(command: Runner, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo $http_proxy $HTTPS_PROXY $NO_PROXY > /p\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH >> /p\n"
    docker = tmp_path / "docker"
    docker.mkdir()
    (docker / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpsProxy": "http://from.docker:1", "noProxy": "a,b"}}})
    )
    env = {"http_proxy": "http://from.env:1", "SOURCE_DATE_EPOCH": "1234567890", "DOCKER_CONFIG": str(docker)}
    context = tmp_path / "c"
    command.dockerfile(context, text, "--network=none", "-t", "eng-env", env=env)
    said = command.run("run", "--rm", "--network=none", "eng-env", "cat", "/p").out
    assert "http://from.docker:1 a,b" in said
    assert "1234567890" in said
    image = (
        json.dumps(command.inspect("eng-env", "--type=image"))
        + command.run("history", "--no-trunc", "eng-env").out
    )
    assert "from.docker" not in image
    assert "2009-02-13T23:31:30" in image
    again = command.build(context, "--network=none", env=env | {"DOCKER_CONFIG": "/nowhere"})
    assert "CACHED" in again.err or "cached" in again.err  # a proxy is no part of a step's key
    plain = command.build(
        context, "--network=none", "--no-cache", env=env | {"NO_COLOR": "1", "BUILDKIT_PROGRESS": "plain"}
    )
    assert "\x1b[" not in plain.err
