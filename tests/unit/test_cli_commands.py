"""The verbs: every one loads, explains itself, and means what its flags say."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.errors import UsageError
from cli import build_options, main
from cli.app import App
from cli.commands import GROUPS, SUMMARIES, find, module_of
from cli.commands.build import COMMANDS as BUILD
from cli.commands.build import request_from
from cli.flags import Command, parse
from cli.settings import Settings


def run(root: Path, *argv: str) -> int:
    return main.main(["--root", str(root), *argv])


def command(verb: str) -> Command:
    return main._load(verb)


@pytest.mark.parametrize("verb", sorted(SUMMARIES))
def test_every_verb_loads_and_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = command(verb)
    assert main.main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage:  pybuild {verb}")
    assert found.summary == SUMMARIES[verb]
    assert all(flag.help for flag in found.flags), "every flag says what it does"


@pytest.mark.parametrize("verb", sorted(SUMMARIES))
def test_flags_of_a_verb_have_distinct_names(verb: str) -> None:
    flags = command(verb).flags
    for names in ([flag.name for flag in flags], [flag.short for flag in flags if flag.short]):
        assert len(names) == len(set(names))


def test_group_verbs_exist() -> None:
    for verbs in GROUPS.values():
        assert all(verb in SUMMARIES for verb in verbs.values())


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["image", "ls"], "images"),
        (["image", "list"], "images"),
        (["image", "rm"], "rmi"),
        (["container", "ls"], "ps"),
        (["container", "rm"], "rm"),
        (["system", "prune"], "prune"),
        (["builder", "prune"], "builder prune"),
        (["buildx", "build"], "build"),
        (["volume", "create"], "volume create"),
        (["images"], "images"),
    ],
)
def test_groups_are_aliases(words: list[str], verb: str) -> None:
    assert find(words) == (verb, len(words))
    assert module_of(verb).startswith("cli.commands.")


def test_only_the_wanted_verb_is_imported() -> None:
    import subprocess

    code = (
        "import sys; from cli.main import main; main(['build', '--help']);"
        "bad = [m for m in sys.modules if m.startswith('cli.commands.') and m != 'cli.commands.build']"
        "+ [m for m in ('argparse', 'lark', 'requests', 'networkx', 'zstandard', 'rich') if m in sys.modules];"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- build


def request(tmp_path: Path, *argv: str, **environ: str) -> SimpleNamespace:
    app = App(Settings({"HOME": str(tmp_path), **environ}, root=str(tmp_path)))
    return request_from(app, parse(BUILD[0], [*argv, "."]))  # type: ignore[return-value]


def test_build_flags_become_a_request(tmp_path: Path) -> None:
    found = request(
        tmp_path,
        *("-t", "a", "--tag", "b:1", "-f", "D", "--target", "x", "--label", "k=v=w", "--label", "bare"),
        *("--build-arg", "A=1", "--build-arg", "FROM_HERE", "--build-arg", "NOT_SET", "--platform", "a,b"),
        *("--no-cache-filter", "s1,s2", "--build-context", "n=docker-image://x", "--add-host", "h:1.2.3.4"),
        *(
            "--network",
            "none",
            "--shm-size",
            "64m",
            "--ulimit",
            "nofile=10:20",
            "-m",
            "64m",
            "--allow",
            "network.host",
        ),
        FROM_HERE="2",
        SOURCE_DATE_EPOCH="7",
        http_proxy="http://p",
    )
    assert found.context == "."
    assert found.tags == ("a", "b:1")
    assert found.dockerfile == "D"
    assert found.labels == (("k", "v=w"), ("bare", ""))
    assert found.build_args == (
        ("A", "1"),
        ("FROM_HERE", "2"),
        ("http_proxy", "http://p"),
        ("SOURCE_DATE_EPOCH", "7"),
    )
    assert found.platforms == ("a", "b")
    assert found.no_cache_filter == ("s1", "s2")
    assert found.build_contexts == (("n", "docker-image://x"),)
    assert found.extra_hosts == (("h", "1.2.3.4"),)
    assert found.network == "none"
    assert found.shm_size_bytes == 64 << 20
    assert (found.ulimits[0].name, found.ulimits[0].soft, found.ulimits[0].hard) == ("nofile", 10, 20)
    assert found.limits.memory_bytes == 64 << 20
    assert found.allow == ("network.host",)


def test_outputs(tmp_path: Path) -> None:
    assert request(tmp_path).outputs == ()
    local, tar = request(tmp_path, "-o", "dir", "-o", "type=oci,dest=x.tar").outputs
    assert (local.type, local.dest, tar.type) == ("local", "dir", "oci")
    (pushed,) = request(tmp_path, "--push").outputs
    assert pushed.type == "image"
    assert pushed.push
    assert len(request(tmp_path, "--push", "-o", "type=image").outputs) == 1
    assert {spec.type for spec in request(tmp_path, "--load", "-o", "d").outputs} == {"local", "image"}
    (annotated,) = request(tmp_path, "--annotation", "index,manifest:a.b=c").outputs
    assert [(a.target, a.key, a.value) for a in annotated.annotations] == [
        ("index", "a.b", "c"),
        ("manifest", "a.b", "c"),
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["-o", "dest=x"],
        ["--annotation", "maifest:a=b"],
        ["-o", "type=docker,dest=x,oci-mediatypes=false", "--annotation", "a=b"],
        ["--build-arg", "=x"],
        ["--label", "=x"],
        ["--add-host", "x"],
        ["--add-host", "x:notanip"],
        ["--ulimit", "nofile"],
        ["--ulimit", "nofile=9:1"],
        ["--network", "weird"],
        ["-m", "5"],
        ["--memory-swap", "1g"],
        ["-m", "1g", "--memory-swap", "1m"],
        ["--secret", "src=x"],
        ["--secret", "id=x,src=/does/not/exist"],
        ["--secret", "id=x,env=NOT_SET_ANYWHERE"],
        ["--secret", "id=x,colour=red"],
        ["--secret", "id=x,type=vault"],
        ["--ssh", "default"],
        ["--build-context", "x"],
        ["--shm-size", "lots"],
    ],
)
def test_bad_build_flags_are_usage_errors(tmp_path: Path, argv: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        request(tmp_path, *argv)
    assert caught.value.exit_status == 2


def test_context_and_dockerfile_cannot_both_be_stdin(tmp_path: Path) -> None:
    app = App(Settings({}, root=str(tmp_path)))
    with pytest.raises(UsageError, match="can't use stdin for both"):
        request_from(app, parse(BUILD[0], ["-f", "-", "-"]))


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xffbytes\n")
    settings = Settings({"TOKEN": "val\udcff", "direct": "d", "HOME": str(tmp_path)})
    secret = build_options.read_secret(f"id=a,src={tmp_path}/token", settings)
    assert secret.data == b"\xffbytes\n"
    assert "bytes" not in repr(secret)
    assert build_options.read_secret("id=a,env=TOKEN", settings).data == b"val\xff"
    assert build_options.read_secret("type=env,id=a,src=TOKEN", settings).data == b"val\xff"
    assert build_options.read_secret("id=direct", settings).data == b"d"
    (tmp_path / "big").write_bytes(b"x" * (build_options.MAX_SECRET_BYTES + 1))
    with pytest.raises(UsageError, match="too big"):
        build_options.read_secret(f"id=a,src={tmp_path}/big", settings)


def test_ssh_takes_the_agent_or_a_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        (found,) = request(tmp_path, "--ssh", "default", SSH_AUTH_SOCK=path).ssh
        assert (found.id, found.socket) == ("default", path)
        (found,) = request(tmp_path, "--ssh", f"work={path}").ssh
        assert found.id == "work"
        with pytest.raises(UsageError, match="duplicate"):
            request(tmp_path, "--ssh", f"a={path}", "--ssh", f"a={path}")


# -- images and volumes in a real store


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("etc/motd")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return path


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_the_life_of_an_image(tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "state"
    assert (
        run(root, "import", "-c", "LABEL a=b", "-c", 'CMD ["sh"]', "-m", "made", str(archive), "img:1") == 0
    )
    image_id = out(capsys).strip()
    assert image_id.startswith("sha256:")
    assert run(root, "images") == 0
    head, row = out(capsys).splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert row.split()[:3] == ["img", "1", image_id[7:19]]
    assert run(root, "image", "ls", "-q", "--no-trunc") == 0
    assert out(capsys) == image_id + "\n"
    assert run(root, "images", "--format", "{{.Repository}}:{{.Tag}}", "-f", "label=a=b") == 0
    assert out(capsys) == "img:1\n"
    assert run(root, "images", "-f", "label=a=c", "-q") == 0
    assert out(capsys) == ""
    assert run(root, "history", "--format", "{{.Comment}}", "img:1") == 0
    assert out(capsys) == "made\n"
    assert run(root, "tag", "img:1", "other") == 0
    assert (
        run(root, "inspect", "-f", '{{json .RepoTags}} {{.Config.Cmd}} {{index .Config.Labels "a"}}', "other")
        == 0
    )
    assert out(capsys) == '["img:1","other:latest"] [sh] b\n'
    saved = tmp_path / "saved.tar"
    assert run(root, "save", "-o", str(saved), "img:1", "other") == 0
    assert run(root, "rmi", "img:1", "other") == 0
    assert out(capsys).splitlines() == ["Untagged: img:1", "Untagged: other:latest", f"Deleted: {image_id}"]
    assert run(root, "load", "-q", "-i", str(saved)) == 0
    assert sorted(out(capsys).splitlines()) == ["Loaded image: img:1", "Loaded image: other:latest"]


def test_several_targets_go_on_after_a_failure(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "state"
    assert run(root, "import", str(archive), "a") == 0
    capsys.readouterr()
    assert run(root, "rmi", "nope1", "a", "nope2") == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "Untagged: a:latest"
    assert "No such image: nope1" in captured.err
    assert captured.err.splitlines()[-1] == "Error: failed to remove images: [nope1 nope2]"
    assert run(root, "rm", "nope") == 1
    assert run(root, "rm", "-f", "nope") == 0


def test_inspect_tells_what_is_missing_after_what_is_there(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "state"
    run(root, "import", str(archive), "a")
    capsys.readouterr()
    assert run(root, "inspect", "nope", "a") == 1
    captured = capsys.readouterr()
    assert [item["RepoTags"] for item in json.loads(captured.out)] == [["a:latest"]]
    assert captured.err == "Error: No such image or container: nope\n"
    assert run(root, "inspect", "-f", "{{.Broken", "a") == 64
    assert run(root, "inspect", "--type", "volume", "a") == 1
    assert run(root, "inspect", "--type", "network", "a") == 2


def test_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "state"
    assert run(root, "volume", "create", "--label", "k=v", "data") == 0
    assert out(capsys) == "data\n"
    assert run(root, "volume", "create") == 0
    anonymous = out(capsys).strip()
    assert len(anonymous) == 64
    assert run(root, "volume", "ls", "-q", "-f", "label=k") == 0
    assert out(capsys) == "data\n"
    assert run(root, "volume", "inspect", "-f", "{{.Mountpoint}} {{.Labels}}", "data") == 0
    assert out(capsys) == f"{root}/volumes/data/_data map[k:v]\n"
    assert run(root, "volume", "prune") == 0
    assert out(capsys).strip() == anonymous
    assert run(root, "volume", "rm", "data", "nope") == 1
    captured = capsys.readouterr()
    assert captured.out == "data\n"
    assert "no such volume: nope" in captured.err
    assert run(root, "volume", "create", "../evil") == 1


def test_events_are_listed_and_filtered(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "state"
    run(root, "import", str(archive), "a")
    run(root, "tag", "a", "b:2")
    capsys.readouterr()
    assert run(root, "events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}") == 0
    assert out(capsys).splitlines() == ["image import", "image tag"]
    assert run(root, "events", "--since", "1h", "--until", "0s", "-f", "event=tag", "-f", "image=b") == 0
    (line,) = out(capsys).splitlines()
    assert " image tag sha256:" in line
    assert run(root, "events", "-f", "colour=red") == 2


def test_prune_and_du(tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "state"
    run(root, "import", str(archive))
    capsys.readouterr()
    assert run(root, "image", "prune", "-f") == 0
    assert "Deleted: sha256:" in out(capsys)
    assert run(root, "images", "-q") == 0
    assert out(capsys) == ""
    assert run(root, "prune", "-af") == 0
    assert out(capsys).splitlines()[-1].startswith("Total:")
    assert run(root, "du") == 0
    assert "Reclaimable:" in out(capsys)


def test_login_and_logout_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(tmp_path / "docker")
    assert main.main(["--config", config, "logout", "registry.example"]) == 0
    assert out(capsys) == "Not logged in to registry.example\n"
    assert main.main(["--config", config, "login", "-u", "me", "registry.example"]) == 2
    assert "not a terminal" in capsys.readouterr().err
    assert main.main(["--config", config, "login", "-p", "x", "--password-stdin", "r"]) == 2


def test_wrong_run_lines_exit_125(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "run", "--nope", "img") == 125
    assert run(tmp_path, "run") == 125
    assert run(tmp_path, "run", "--pull", "never", "img") == 125
    assert run(tmp_path, "run", "-p", "x", "img") == 125
    assert run(tmp_path, "create", "-m", "much", "img") == 125
    assert run(tmp_path, "exec", "c") == 125
    assert run(tmp_path, "exec", "nope", "ls") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_stale_iidfile_goes_before_the_build(tmp_path: Path) -> None:
    stale = tmp_path / "iid"
    stale.write_text("old")
    assert run(tmp_path / "state", "build", "--iidfile", str(stale), str(tmp_path / "missing")) == 1
    assert not stale.exists()


def test_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "bash"]) == 0
    assert "complete -F _pybuild pybuild" in out(capsys)
    assert run(tmp_path, "__complete", "--", "bu") == 0
    assert out(capsys).split() == ["build", "builder", "buildx"]
    assert run(tmp_path, "__complete", "--", "build", "--no-c") == 0
    assert out(capsys).split() == ["--no-cache", "--no-cache-filter"]
    assert run(tmp_path, "__complete", "--", "image", "l") == 0
    assert out(capsys).split() == ["load", "ls"]


def test_output_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    import subprocess

    root = str(tmp_path / "state")
    command_line = [sys.executable, "-m", "cli.main", "--root", root, "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command_line, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


def test_a_bug_is_one_line_without_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_self: App) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(App, "store", property(broken))
    assert run(tmp_path, "images") == 70
    err = capsys.readouterr().err
    assert err.startswith("pybuild: bug: RuntimeError: boom\n")
    assert "Traceback" not in err
    assert run(tmp_path, "--debug", "images") == 70
    assert "Traceback" in capsys.readouterr().err
