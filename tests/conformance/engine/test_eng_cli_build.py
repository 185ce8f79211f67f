"""Every flag of ``build`` that buildctl has, shown to work (CLI-01)."""

from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.registry import running_registry
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
FRONTEND = ("--frontend=dockerfile.v0", "--network=none", "--progress=rawjson")


def inputs(folder: Path, text: str) -> list[str]:
    """A context of buildctl: ``f``, and the Dockerfile in another directory."""
    for name in ("context", "dockerfile"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "context/f").write_text("1")
    (folder / "dockerfile/Dockerfile").write_text(text)
    return [f"--local={name}={folder / name}" for name in ("context", "dockerfile")]


def shown(err: str) -> dict[str, bool]:
    """The steps of a build in rawjson, and whether they were cached."""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith('{"')]
    return {v["name"]: v.get("cached", False) for line in lines for v in line.get("vertexes", ())}


@row("CLI-01")
def test_one_build_with_most_of_them(command: Runner, tmp_path: Path) -> None:
    text = (
        "FROM busybox\nARG WHO\nCOPY f /\n"
        "RUN --network=host --mount=type=secret,id=s [ $(cat /run/secrets/s) = hush ] && echo $WHO > /who\n"
    )
    words = [*FRONTEND[::2], *inputs(tmp_path, text), "--opt=build-arg:WHO=me", "--opt=label:l=v"]
    (tmp_path / "s").write_text("hush")
    secret, out = f"--secret=id=s,src={tmp_path / 's'}", tmp_path / "out"
    refused = command.run("build", *words, secret, status=1).err
    assert "network.host" in refused
    words += ["--allow=network.host"]
    assert "s" in command.run("build", *words, status=1).err, "without its secret the step fails"
    files = {
        name: tmp_path / name for name in ("ref-file", "trace", "metadata-file", "debug-json-cache-metrics")
    }
    done = command.run(
        "build", *words, secret, f"--output=type=local,dest={out}", *(f"--{k}={v}" for k, v in files.items())
    )
    assert ((out / "f").read_text(), (out / "who").read_text()) == ("1", "me\n")
    assert json.loads(files["metadata-file"].read_text()) == {}
    ref = files["ref-file"].read_text().strip()
    assert command.run("history", "ls", "-q", "--limit", "1").out.strip() == ref
    traced = shown(files["trace"].read_text())
    assert traced == shown(done.err)
    copy = next(name for name in traced if name.endswith("COPY f /"))
    metrics = json.loads(files["debug-json-cache-metrics"].read_text())
    assert (metrics["total"], metrics["completed"]) == (len(traced), len(traced))
    assert metrics["from"] == 1
    assert metrics["user_total"] == sum(not name.startswith("[internal]") for name in traced)
    assert metrics["miss"] + metrics["user_cached"] == metrics["user_cacheable"] == metrics["user_total"] - 1
    assert metrics["client_duration_ms"] > 0
    again = command.run("build", *words, secret, "--no-cache", "--debug-json-cache-metrics=stdout", "-o", out)
    assert shown(again.err)[copy] is False
    assert json.loads(again.out)["user_cached"] == 0
    rules = tmp_path / "rules.json"
    rules.write_text('{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}')
    command.run("build", *words, secret, f"--source-policy-file={rules}", status=3)
    assert "/nowhere/t" in command.run("build", *words, "--trace=/nowhere/t", status=2).err


@row("CLI-01")
def test_caches(command: Runner, tmp_path: Path) -> None:
    words = [*FRONTEND, *inputs(tmp_path / "in", "FROM scratch\nCOPY f /cli-caches\n")]
    command.run("build", *words, f"--export-cache=type=local,dest={tmp_path / 'cache'}")
    assert (tmp_path / "cache/index.json").is_file()
    elsewhere = Runner(tmp_path / "other")
    done = elsewhere.run(
        "build", *words, f"--import-cache=type=local,src={tmp_path / 'cache'}", "-o", tmp_path / "out"
    )
    (step,) = [name for name in shown(done.err) if "COPY f" in name]
    assert shown(done.err)[step] is True
    assert (tmp_path / "out/cli-caches").read_text() == "1"


@row("CLI-01")
def test_layouts_and_locals_of_a_frontend(command: Runner, tmp_path: Path) -> None:
    command.run(
        "build", *FRONTEND[:2], *inputs(tmp_path / "base", "FROM scratch\nCOPY f /base\n"),
        "-o", f"type=oci,tar=false,dest={tmp_path / 'layout'}",
    )  # fmt: skip
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    words = inputs(tmp_path / "in", "FROM base\nCOPY --from=more f /more\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/f").write_text("2")
    command.run(
        "build", *FRONTEND, *words, f"--oci-layout=lay={tmp_path / 'layout'}", f"--local=more={tmp_path / 'more'}",
        f"--opt=context:base=oci-layout://lay@{entry['digest']}", "--opt=context:more=local:more",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "base": "1",
        "more": "2",
    }


@row("CLI-01")
def test_without_a_frontend_a_definition_is_read(command: Runner, tmp_path: Path) -> None:
    """From standard input, with the sources that the flags name; a PATH forgotten is still an error."""
    folder = tmp_path / "in"
    inputs(folder, "FROM busybox AS b\nFROM scratch\nCOPY f /\nCOPY --from=b /bin/busybox /b\n")
    file = folder / "dockerfile/Dockerfile"
    definition = command.run("debug", "dump-llb", "--format=pb", "-f", file, folder / "context").stdout
    command.run("build", f"--local=context={folder / 'context'}", "-o", tmp_path / "out", stdin=definition)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "f"]
    assert (tmp_path / "out/f").read_text() == "1"
    missing = command.run("build", "-o", tmp_path / "out", stdin=definition, status=1).err
    assert "local://context: there is no context of that name" in missing
    file.write_text("FROM scratch\nCOPY <<EOF /inline\ntext\nEOF\n")
    definition = command.run("debug", "dump-llb", "--format=pb", "-f", file, folder / "context").stdout
    done = command.run("build", "-o", tmp_path / "alone", "--progress=quiet", stdin=definition)
    assert (tmp_path / "alone/inline").read_text() == "text\n"
    assert "reading a definition from standard input" in done.err
    (tmp_path / "file.llb").write_bytes(definition)
    command.run("build", f"--llb={tmp_path / 'file.llb'}", "-o", tmp_path / "named", "--progress=quiet")
    assert (tmp_path / "named/inline").read_text() == "text\n"
    assert "standard input is empty" in command.run("build", stdin=b"", status=2).err
    assert "requires 1 argument" in command.run("build", status=2).err
    assert "definition" in command.run("build", stdin=b"FROM scratch\n", status=None).err


@row("CLI-01")
def test_tls_of_one_registry(command: Runner, tmp_path: Path) -> None:
    ca, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", ca, "-subj", "/CN=registry", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ca, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(ca)
    words = [*FRONTEND[:2], *inputs(tmp_path / "in", "FROM scratch\nCOPY f /tls\n")]
    with running_registry(tls) as registry:  # which takes nobody without that certificate
        output = f"--output=type=registry,name={registry.host}/tls:1"
        context = f"--registry-auth-tlscontext=host={registry.host},ca={ca},cert={ca},key={key}"
        command.run("build", *words, output, context)
        assert registry.tags["tls", "1"]
