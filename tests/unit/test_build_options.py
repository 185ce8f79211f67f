"""Frontend options onto a build request (OPT rows, ARG-13, FWD-02)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from builder.build.options import FrontendOptions, with_options
from builder.build.request import BuildInput, BuildRequest
from builder.errors import PybuildError, UsageError
from builder.llb.ops import Ulimit
from runtime.spec import Limits

REQUEST = BuildRequest(context=".", build_args=(("kept", "1"), ("v", "old")), labels=(("l", "old"),))


def mapped(*options: tuple[str, str], **more: Any) -> FrontendOptions:
    return with_options(REQUEST, options, **more)


def refused(*options: tuple[str, str], **more: Any) -> str:
    with pytest.raises(PybuildError) as caught:
        mapped(*options, **more)
    return caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("target", "t", "target", "t"),
        ("platform", "linux/arm64,linux/amd64", "platforms", ("linux/arm64", "linux/amd64")),
        ("no-cache", "", "no_cache", True),
        ("no-cache", "a,b", "no_cache_filter", ("a", "b")),
        ("image-resolve-mode", "pull", "pull", True),
        ("image-resolve-mode", "local", "resolve_mode", "local"),
        ("add-hosts", "Some.Host=10.0.0.1,six=::1", "extra_hosts", (("some.host", "10.0.0.1"), ("six", "::1"))),
        ("force-network-mode", "none", "network", "none"),
        ("shm-size", "67108864", "shm_size_bytes", 64 << 20),
        ("ulimit", "nofile=1:2,core=3", "ulimits", (Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=3, hard=3))),
        ("cgroup-parent", "/c", "cgroup_parent", "/c"),
        ("hostname", "h", "hostname", "h"),
        ("label:l", "new", "labels", (("l", "new"),)),
        ("build-arg:v", "new", "build_args", (("kept", "1"), ("v", "new"))),
        ("context", "https://h/r.git#v1", "context", "https://h/r.git#v1"),
        ("context:n::linux/arm64", "docker-image://x", "build_contexts", (("n::linux/arm64", "docker-image://x"),)),
        ("contextsubdir", "a/b", "context_subdir", "a/b"),
        ("filename", "in/D", "dockerfile", "in/D"),
        ("memory", "1000", "limits", Limits(memory_bytes=1000)),
        ("memswap", "-1", "limits", Limits(memory_swap_bytes=-1)),
        ("cpushares", "5", "limits", Limits(cpu_shares=5)),
        ("cpusetcpus", "0-2,4", "limits", Limits(cpuset_cpus="0-2,4")),
    ],
)  # fmt: skip
def test_each_option_has_its_place(key: str, value: str, field: str, expected: object) -> None:
    assert getattr(mapped((key, value)).request, field) == expected


def test_what_is_no_part_of_a_request() -> None:
    found = mapped(
        ("requestid", "frontend.lint"),
        ("attest:sbom", "generator=g"),
        ("attest:provenance", "false"),
        ("cache-imports", json.dumps([{"Type": "local", "Attrs": {"src": "/a,b"}}])),
        ("cache-from", "r1,r2"),
        ("vcs:revision", "abc"),
        ("local-sessionid:context", "id"),
        ("sharedkey:localdir:context", "k"),
        ("frontend.caps", "moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts+forward"),
        ("cmdline", "docker/dockerfile:1 x"),
        ("source", "docker/dockerfile:1"),
        ("override-copy-image", ""),
    )
    assert found.request == REQUEST
    assert found.call == "frontend.lint"
    assert found.attests == ("type=sbom,generator=g", "type=provenance,disabled=true")
    assert found.cache_from == ('type=local,"src=/a,b"', "type=registry,ref=r1", "type=registry,ref=r2")
    assert found.facts == (("vcs:revision", "abc"),)


def test_build_arguments_win_over_options_of_the_same_meaning() -> None:
    found = mapped(("multi-platform", "1")).request
    assert dict(found.build_args)["BUILDKIT_MULTI_PLATFORM"] == "1"
    found = mapped(("multi-platform", "1"), ("build-arg:BUILDKIT_MULTI_PLATFORM", "0")).request
    assert dict(found.build_args)["BUILDKIT_MULTI_PLATFORM"] == "0"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("targt", "x", "unknown frontend option targt (did you mean target?)"),
        ("image-resolve-mode", "never", "invalid image-resolve-mode: never"),
        ("add-hosts", "a", "failed to parse additional hosts: invalid key-value pair a"),
        ("add-hosts", "a=1.2.3", "failed to parse IP 1.2.3"),
        ("force-network-mode", "foo", "invalid netmode foo"),
        ("shm-size", "64m", "failed to parse shm size"),
        ("ulimit", "nofile=x", "failed to parse ulimit"),
        ("memory", "lots", "invalid memory value: lots"),
        ("memory", "-1", "invalid memory value: -1"),
        ("memswap", "-2", "invalid memswap value: -2"),
        ("cpushares", "1.5", "invalid cpushares value: 1.5"),
        ("cpusetmems", "a", "invalid cpusetmems value: a"),
        ("cache-imports", "{", "failed to unmarshal cache-imports"),
        ("override-copy-image", "x", 'support for "override-copy-image" was removed'),
        ("source", "example.com/other:1", "frontend example.com/other:1 is not supported"),
        ("frontend.caps", "moby.buildkit.frontend.odd", "unsupported frontend capability moby.buildkit.frontend.odd"),
        ("contextkey", "src", "contextkey: there is no local directory 'src'"),
        ("dockerfilekey", "df", "dockerfilekey: there is no local directory 'df'"),
        ("context:n", "local:x", "context:n: there is no local directory 'x'"),
        ("input-metadata:k", "{", "failed to parse input metadata {"),
        ("input-metadata:k", '{"containerimage.config": "%"}', "failed to parse input metadata"),
    ],
)  # fmt: skip
def test_what_is_refused(key: str, value: str, message: str) -> None:
    assert message in refused((key, value))


def test_local_directories_by_name(tmp_path: Path) -> None:
    (tmp_path / "df").mkdir()
    (tmp_path / "df" / "dockerfile").write_text("FROM scratch\n")
    directories = {
        "context": "/ctx",
        "dockerfile": str(tmp_path / "df"),
        "src": "/src",
        "df": str(tmp_path / "df"),
    }

    def request(*options: tuple[str, str]) -> BuildRequest:
        return mapped(*options, locals_=directories).request

    assert request().context == "/ctx"
    assert request().dockerfile == str(tmp_path / "df" / "dockerfile")
    assert request(("contextkey", "src")).context == "/src"
    assert request(("context:n", "local:src")).build_contexts == (("n", "/src"),)
    remote = ("context", "https://h/r.git")
    assert request(remote).dockerfile is None, "it comes with the context"
    assert request(remote, ("filename", "D")).dockerfile == "D"
    found = request(remote, ("dockerfilekey", "df"))
    assert (found.dockerfile, found.dockerfile_data) == (None, b"FROM scratch\n")
    with pytest.raises(UsageError, match="failed to read dockerfile"):
        request(remote, ("dockerfilekey", "df"), ("filename", "none"))


def test_results_of_other_builds() -> None:
    config = b'{"architecture":"amd64","os":"linux"}'
    metadata = json.dumps({"containerimage.config": base64.b64encode(config).decode()})
    options = (("context:n", "input:k"), ("input-metadata:k", metadata))
    found = mapped(*options, inputs={"k": "sha256:1", "unused": "sha256:2"}).request
    assert found.build_contexts == (("n", "input:k"),)
    assert found.inputs == (BuildInput("k", "sha256:1", config),)
