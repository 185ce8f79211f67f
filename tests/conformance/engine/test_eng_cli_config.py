"""The configuration file (CLI-08)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import UsageError
from cli import settings as settings_module
from cli.config import line_of, load
from cli.registries import registry_config
from cli.settings import Settings
from tests.support.cli import REPO, Runner
from tests.support.registry import running_registry
from tests.support.rows import row

root_only = pytest.mark.root
EVERYTHING = """
root = "/data"
progress = "plain"
max-parallelism = 3
insecure-registries = ["old.lan:5000"]
allow = "network.host"
cdi-spec-dirs = ["/cdi"]
cgroup-parent = "/builds"
platforms = ["linux/arm64"]
snapshotter = "native"

[labels]
"org.example.team" = "core"

[entitlements]
allow = ["device"]
deny = ["security.insecure"]

[dns]
nameservers = ["10.0.0.1"]
search = ["lan"]
options = ["ndots:2"]

[history]
max-age = "7d"
max-entries = 20

[proxies]
http = "http://proxy:1"
no = ["localhost", ".lan"]

[gc]
max-used = "20GB"
min-free = "10%"
reserved = 1000
enabled = false

[[gc.policies]]
filters = ["type==source.local"]
keep-duration = "48h"
max-used = "512MB"

[[gc.policies]]
all = true

[registry."docker.io"]
mirrors = ["mirror.lan/hub", "http://second.lan"]

[registry."mirror.lan"]
http = true

[registry."own.lan"]
ca = "/ca.pem"
insecure = false
[[registry."own.lan".keypair]]
key = "/key.pem"
cert = "/cert.pem"
"""


@row("CLI-08")
def test_everything_that_can_be_said(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(EVERYTHING)
    found = load((str(file),))
    assert (found.root, found.progress, found.max_parallelism) == ("/data", "plain", 3)
    assert (found.allow, found.deny) == (("network.host", "device"), ("security.insecure",))
    assert (found.cgroup_parent, found.platforms, found.snapshotter) == (
        "/builds",
        ("linux/arm64",),
        "native",
    )
    assert (found.nameservers, found.dns_search, found.dns_options) == (("10.0.0.1",), ("lan",), ("ndots:2",))
    assert (found.history_max_age_s, found.history_max_entries) == (7 * 86400, 20)
    assert found.proxies == (("HTTP_PROXY", "http://proxy:1"), ("NO_PROXY", "localhost,.lan"))
    assert (found.gc.max_used, found.gc.min_free, found.gc.reserved, found.gc.enabled) == (
        "20GB",
        "10%",
        "1000",
        False,
    )
    first, second = found.gc.policies
    assert (first.filters, first.keep_duration_s, first.max_used) == (
        ("type==source.local",),
        48 * 3600,
        "512MB",
    )
    assert second.all
    hosts = {
        host.prefix: host
        for host in registry_config(Settings({"PYBUILD_CONFIG": str(file), "HOME": str(tmp_path)})).hosts
    }
    mirrors = hosts["docker.io"].mirrors
    assert [(mirror.prefix, mirror.plain_http) for mirror in mirrors] == [
        ("mirror.lan/hub", True),
        ("second.lan", True),
    ]
    assert (
        hosts["own.lan"].tls.ca_file,
        hosts["own.lan"].tls.client_cert,
        hosts["own.lan"].tls.client_key,
    ) == ("/ca.pem", "/cert.pem", "/key.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# comment\nroto = 'x'\n", ":2: unknown key roto (did you mean root?)"),
        ("[gc]\n\nmax-usde = '1GB'\n", ":3: unknown key [gc] max-usde (did you mean max-used?)"),
        ("[gc]\nmax-used = '1 parsec'\n", ":2: gc.max-used must be a size"),
        ("[gc]\nmin-free = '120%'\n", ":2: gc.min-free must be a size"),
        ("[[gc.policies]]\nall = true\n[[gc.policies]]\nkeep-duration = 'long'\n", ":4: gc.policies.keep-duration must be a duration"),
        ("[registry.'a.b']\nmirror = []\n", ":2: unknown key [registry.a.b] mirror (did you mean mirrors?)"),
        ("allow = 3\n", ":1: allow must be a list of texts"),
        ("max-parallelism = true\n", ":1: max-parallelism must be a whole number"),
        ("labels = 'x'\n", ":1: labels must be a table"),
        ("snapshotter = 'zfs'\n", ":1: snapshotter must be one of auto, overlay, native"),
        ("progress = ]\n", ":1: "),
        ("root = 'x'\nroot = 'y'\n", ":2: Cannot overwrite a value"),
        ("[gc]\npolicies = 3\n", ":2: gc.policies must be a list of tables"),
    ],
)  # fmt: skip
@row("CLI-08")
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load((str(file),))
    assert f"config file {file}{said}" in caught.value.message


def test_lines_of_quoted_and_dotted_keys() -> None:
    text = "a.b = 1\n[x.\"y.z\"]\n'k' = 2\n"
    assert [line_of(text, at) for at in (("a", "b"), ("x", "y.z", "k"), ("x", "y.z"), ("q",))] == [1, 3, 2, 0]


@row("CLI-08")
def test_which_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, user, other = tmp_path / "system.toml", tmp_path / "pybuild/config.toml", tmp_path / "other.toml"
    user.parent.mkdir()
    monkeypatch.setattr(settings_module, "SYSTEM_FILE", str(system))
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert Settings(environ).config is None
    system.write_text(
        "max-parallelism = 1\nprogress = 'plain'\n[labels]\na = '1'\nb = '1'\n[entitlements]\ndeny = ['device']\n"
    )
    user.write_text("max-parallelism = 2\n[labels]\nb = '2'\n[entitlements]\ndeny = ['network.host']\n")
    found = Settings(environ).config
    assert found is not None
    assert (found.max_parallelism, found.progress, found.labels) == (2, "plain", (("a", "1"), ("b", "2")))
    assert found.deny == ("device", "network.host")
    other.write_text("max-parallelism = 9\n")
    assert Settings(environ, config_dir=str(other)).max_parallelism == 9
    assert Settings({**environ, "PYBUILD_CONFIG": str(other)}).progress == "auto"
    assert Settings(environ, config_dir="/some/dir").docker_config_dir == Path("/some/dir")
    with pytest.raises(UsageError, match="No such file"):
        _ = Settings({**environ, "PYBUILD_CONFIG": "/nowhere.toml"}).config


@row("CLI-08")
def test_no_file_costs_nothing() -> None:
    code = (
        "import sys; from cli.settings import Settings; s = Settings({'HOME': '/nowhere', 'XDG_CONFIG_HOME': '/nowhere'});"
        "assert s.config is None and s.root and not s.allow and not s.labels and not s.dns;"
        "assert not {'tomllib', 'cli.config', 'json'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


@row("CLI-08")
@root_only
def test_what_a_build_makes_of_it(command: Runner, tmp_path: Path) -> None:
    with running_registry() as registry:
        file = tmp_path / "c.toml"
        file.write_text(
            "snapshotter = 'native'\nprogress = 'plain'\n"
            "[labels]\nteam = 'core'\nl = 'file'\n"
            "[dns]\nnameservers = ['10.9.8.7']\nsearch = ['lan']\noptions = ['ndots:2']\n"
            f"[registry.'upstream.example']\nmirrors = ['{registry.host}/cache']\n"
        )
        text = "FROM busybox\nRUN cat /etc/resolv.conf > /r\n"
        flags = ("--config", file, "--label=l=flag", "-t", "eng-config", "--network=none")
        command.dockerfile(tmp_path / "a", text, *flags)
        assert command.inspect("eng-config", "--type=image")["Config"]["Labels"] == {
            "team": "core",
            "l": "flag",
        }
        written = command.run("run", "--rm", "--network=none", "eng-config", "cat", "/r").out
        assert {"nameserver 10.9.8.7", "search lan", "options ndots:2"} <= set(written.splitlines())
        layer = registry.put_blob("cache/thing", b"")
        assert layer
        failed = command.dockerfile(
            tmp_path / "b", "FROM upstream.example/thing:1\nRUN true\n", "--config", file, status=1
        )
        assert "upstream.example" in failed.err
        assert registry.count("HEAD", "/v2/cache/thing/manifests/1") == 1  # the mirror was asked first


@row("CLI-08")
@root_only
def test_errors_reach_the_user(command: Runner, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[gc]\nmax-usedd = 1\n")
    said = command.run("--config", file, "images", status=2).err
    assert said == f"pybuild: config file {file}:2: unknown key [gc] max-usedd (did you mean max-used?)\n"
    shown = command.run("--error-format=json", "--config", file, "images", status=2).err
    assert json.loads(shown)["error"]["code"] == "config-file"
