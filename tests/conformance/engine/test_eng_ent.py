"""Entitlements (ENT rows)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.build.entitlements import granted
from builder.errors import SolveError, UsageError
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

root_only = pytest.mark.root


@row("ENT-01")
def test_names() -> None:
    found = granted(("network.host,security.insecure", "device=a/b=c,alias=mine", "device"))
    assert found.names == {"network.host", "security.insecure", "device"}
    assert found.real_name("mine") == "a/b=c"
    with pytest.raises(UsageError, match=r"^unknown entitlement network\.hots"):
        granted(("network.hots",))


@pytest.mark.parametrize(
    ("asked", "deny", "name"),
    [
        ("network.host", "network.host", "network.host"),
        ("security.insecure", "security.insecure", "security.insecure"),
        ("device=a/b=c", "device=a/b=c", "device=a/b=c"),
        ("device=a/b=c", "device", "device=a/b=c"),
        ("device=a/b=c,alias=x", "device=a/b=c", "device=a/b=c"),
    ],
)
@row("ENT-01")
def test_the_configuration_may_forbid(asked: str, deny: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        granted((asked,), forbidden=(deny,))
    assert caught.value.message == f"granting entitlement {name} is not allowed by build daemon configuration"
    granted((asked,), forbidden=("security.other", "device=a/b=d"))


@row("ENT-01")
def test_forbidden_by_another_door() -> None:
    with pytest.raises(UsageError, match=r"granting entitlement network\.host is not allowed"):
        granted((), network="host", forbidden=("network.host",))


@row("ENT-02")
@root_only
def test_use_without_a_grant(lab: Lab, tmp_path: Path) -> None:
    context = lab.context()
    for flag, name in (("--network=host", "network.host"), ("--security=insecure", "security.insecure")):
        with pytest.raises(SolveError, match=f"failed to load LLB: {name} is not allowed") as caught:
            lab.build(context, f"FROM busybox\nRUN echo first > /ran\nRUN {flag} true\n", no_cache=True)
        assert caught.value.first_line == 3
        assert not lab.fresh()  # nothing ran before the refusal
        lab.build(context, allow=(name,))
    spec = {"cdiVersion": "0.6.0", "kind": "a/b", "devices": [{"name": n, "containerEdits": {"env": [f"{n}=1"]}} for n in "cd"]}  # fmt: skip
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "x.json").write_text(json.dumps(spec))
    runner = Runner(lab.store.root)
    config = tmp_path / "config.toml"
    config.write_text(f'cdi-spec-dirs = ["{folder}"]\n')
    flags = ("--config", config, "--network=none")
    (context / "Dockerfile").write_text("FROM busybox\nRUN --device=a/b=c true\n")
    said = runner.build(context, *flags, status=1).err
    assert "device a/b=c is requested by the build but not allowed" in said
    (context / "Dockerfile").write_text("FROM busybox\nRUN --device=a/b=c --device=a/b=d true\n")
    assert (
        "devices a/b=c, a/b=d are requested by the build but not allowed"
        in runner.build(context, *flags, status=1).err
    )
    runner.build(context, *flags, "--allow=device=a/b=c", "--allow=device=a/b=d")


@row("ENT-03")
@root_only
def test_denied_by_default_allowed_by_flag_or_file(command: Runner, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --security=insecure true\n"
    said = command.dockerfile(tmp_path, text, "--network=none", status=1).err
    assert "hint: grant it for this build with --allow security.insecure" in said
    command.build(tmp_path, "--network=none", "--allow=security.insecure")
    home = tmp_path / "home"
    (home / "pybuild").mkdir(parents=True)
    config = home / "pybuild/config.toml"
    env = {"XDG_CONFIG_HOME": str(home)}
    config.write_text('[entitlements]\nallow = ["security.insecure"]\n')
    command.build(tmp_path, "--network=none", "--no-cache", env=env)
    config.write_text('allow = ["security.insecure"]\n')
    command.build(tmp_path, "--network=none", "--no-cache", env=env)
    config.write_text('[entitlements]\ndeny = ["security.insecure"]\n')
    said = command.build(tmp_path, "--network=none", "--allow=security.insecure", status=2, env=env).err
    assert "granting entitlement security.insecure is not allowed by build daemon configuration" in said
