"""The true cause where several could be meant: here-documents, arguments, other contexts, imports, failures."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.build import BuildResult
from builder.build.report import find_report
from builder.errors import PybuildError
from builder.solver.causes import Cause
from tests.support.buildlab import Lab
from tests.support.machines import cache, machines
from tests.support.web import directory

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("causes"))
    yield lab
    lab.close()


def why(result: BuildResult) -> dict[str, list[Cause]]:
    """The causes of every step that ran, by its text."""
    return {
        step.name.partition("] ")[2] or step.name: list(step.causes)
        for step in result.steps
        if step.status == "ran" and not step.name.startswith("[internal]")
    }


def command(before: str, after: str) -> Cause:
    return Cause("command", "", before, after)


def given(name: str, before: str, after: str) -> Cause:
    return Cause("argument", name, before, after, "given with --build-arg")


TEXTS: dict[str, tuple[str, str, dict[str, list[Cause]]]] = {
    "body of a here-document": (
        "RUN <<EOF\necho a\necho b\nEOF",
        "RUN <<EOF\necho a\necho c\nEOF",
        {"RUN <<EOF (echo a...)": [command("echo a\necho b\n", "echo a\necho c\n")]},
    ),
    "a script": (
        "RUN <<EOF\n#!/bin/sh\necho d\nEOF",
        "RUN <<EOF\n#!/bin/sh\necho e\nEOF",
        {"RUN <<EOF (#!/bin/sh...)": [Cause("value", "the text of <<EOF")]},
    ),
    "one of two files": (
        "COPY <<A <<B /x/\na\nA\nb\nB",
        "COPY <<A <<B /x/\na\nA\nc\nB",
        {"COPY <<A <<B /x/": [Cause("value", "the text of <<B")]},
    ),
    "a copy without --link": (
        "RUN touch /l\nCOPY --link a /l1",
        "RUN touch /l\nCOPY a /l1",
        {"COPY a /l1": [command("COPY --link a /l1", "COPY a /l1")]},
    ),
    "a source that an argument names": (
        "ARG S=a\nCOPY $S /s",
        "ARG S=b\nCOPY $S /s",
        {"COPY b /s": [Cause("value", "its source", "a", "b")]},
    ),
    "a mode that an argument names": (
        "ARG M=700\nCOPY --chmod=$M a /m",
        "ARG M=711\nCOPY --chmod=$M a /m",
        {"COPY --chmod=711 a /m": [Cause("option", "--chmod", "0700", "0711")]},
    ),
    "fewer files": (
        "COPY *.txt /w/",
        "COPY --exclude=2.txt *.txt /w/",
        {"COPY --exclude=2.txt *.txt /w/": [command("COPY *.txt /w/", "COPY --exclude=2.txt *.txt /w/")]},
    ),
    "the source of a mount": (
        "RUN --mount=source=a,target=/z wc /z",
        "RUN --mount=source=b,target=/z wc /z",
        {
            "RUN --mount=source=b,target=/z wc /z": [
                command("RUN --mount=source=a,target=/z wc /z", "RUN --mount=source=b,target=/z wc /z")
            ]
        },
    ),
    "a secret in the environment": (
        "RUN echo s",
        "RUN --mount=type=secret,id=s,env=S echo s",
        {
            "RUN --mount=type=secret,id=s,env=S echo s": [
                command("RUN echo s", "RUN --mount=type=secret,id=s,env=S echo s"),
                Cause("secret", "", "none", "S"),
            ]
        },
    ),
    "WORKDIR": (
        "WORKDIR /w1\nCOPY a .",
        "WORKDIR /w2\nCOPY a .",
        {
            "WORKDIR /w2": [command("WORKDIR /w1", "WORKDIR /w2")],
            "COPY a .": [
                Cause("value", "its destination", "/w1/", "/w2/"),
                Cause("upstream", "[3/4] WORKDIR /w2"),
            ],
        },
    ),
    "a name that ARG and ENV share": (
        "ARG V=1\nENV V=$V\nRUN echo v",
        "ARG V=2\nENV V=$V\nRUN echo v",
        {"RUN echo v": [Cause("argument", "V", "1", "2", "the default in the Dockerfile")]},
    ),
    "the ENV that hides an ARG": (
        "ARG V=1\nENV V=3\nRUN echo h",
        "ARG V=2\nENV V=4\nRUN echo h",
        {"RUN echo h": [Cause("variable", "V", "3", "4")]},
    ),
    "two of many": (
        "RUN echo 1\nRUN echo 2\nRUN echo 3",
        "RUN echo 1x\nRUN echo 2\nRUN echo 3x",
        {
            "RUN echo 1x": [command("RUN echo 1", "RUN echo 1x")],
            "RUN echo 3x": [command("RUN echo 3", "RUN echo 3x")],
        },
    ),
    "another stage": (
        "RUN echo base",
        "FROM scratch\nCOPY a /base",
        {"COPY a /base": [Cause("new")]},
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(lab: Lab, name: str) -> None:
    before, after, expected = TEXTS[name]
    root = lab.context({"a": "a\n", "b": "bb\n", "1.txt": "1", "2.txt": "2", "c": name})
    head = "FROM busybox\nCOPY c /case\n"
    lab.build(root, head + before)
    assert why(lab.build(root, head + after)) == expected


def test_a_context_of_another_name(lab: Lab) -> None:
    """Files of equal content at other paths and in other contexts are not mixed up."""
    root, lib = lab.context({"a": "1"}), lab.context({"l": "1"})
    named: Any = (("lib", str(lib)),)
    lab.build(root, "FROM busybox\nCOPY --from=lib l /l\nCOPY a /named\n", build_contexts=named)
    lab.write(lib, {"l": "2"})
    found = why(lab.build(root, build_contexts=named))
    assert found["COPY --from=lib l /l"] == [Cause("file-changed", "l", note="in the build context lib")]
    assert found["COPY a /named"] == [Cause("upstream", "[2/3] COPY --from=lib l /l")]


def test_the_build_before_was_answered_as_a_whole(lab: Lab) -> None:
    root = lab.context()
    lab.build(root, "FROM busybox\nARG V=1\nRUN echo whole $V")
    for value in "23":
        found = why(lab.build(root, build_args=(("V", value),)))
        assert found == {f"RUN echo whole {value}": [given("V", "1", value)]}
        assert lab.build(root).steps == ()


def test_no_cache_of_another_stage(lab: Lab) -> None:
    text = "FROM busybox AS a\nRUN cat /proc/uptime > /x\nFROM busybox\nCOPY --from=a /x /x\nRUN wc /x\n"
    root = lab.context()
    lab.build(root, text)
    found = why(lab.build(root, no_cache_filter=("a",)))
    assert found["RUN cat /proc/uptime > /x"] == [Cause("no-cache", "--no-cache-filter=a")]
    assert found["COPY --from=a /x /x"] == [Cause("upstream", "[a 2/2] RUN cat /proc/uptime > /x")]


def test_mended_after_a_failure(lab: Lab) -> None:
    root = lab.context({"a": "mended"})
    with pytest.raises(PybuildError):
        lab.build(root, "FROM busybox\nCOPY a /a\nRUN exit 3\nRUN echo after")
    found = why(lab.build(root, "FROM busybox\nCOPY a /a\nRUN exit 0\nRUN echo after"))
    assert found == {"RUN exit 0": [Cause("unfinished")], "RUN echo after": [Cause("new")]}


def test_failure_is_explained_by_what_changed(lab: Lab) -> None:
    """A context is looked at although the build is over."""
    root = lab.context({"a": "one", ".dockerignore": "x\n", "x": "there"})
    lab.build(root, "FROM busybox\nCOPY . /f\nRUN test ! -e /f/x")
    (root / ".dockerignore").unlink()
    with pytest.raises(PybuildError):
        lab.build(root, build_id="explained")
    copied, ran = find_report(lab.store, "explained").steps
    assert Cause("unignored", "x", note=".dockerignore had x") in copied.causes
    assert (ran.status, ran.causes) == ("failed", (Cause("upstream", "[2/3] COPY . /f"),))


def test_pruned_and_changed(lab: Lab) -> None:
    root = lab.context({"a": "p"})
    first = lab.build(root, "FROM busybox\nCOPY a /pruned\nRUN echo pruned")
    for step in first.steps:
        lab.store.records.forget(step.key)
    (root / "a").write_text("p2")
    found = why(lab.build(root))
    assert found == {"COPY a /pruned": [Cause("gone")], "RUN echo pruned": [Cause("gone")]}


def test_of_the_same_platform(lab: Lab) -> None:
    """A build of one platform in between is not what the steps of another are compared with."""
    root = lab.context({"c": "1", "amd64": "1", "arm64": "2"})
    text = (
        "FROM scratch AS c\nCOPY c /\nFROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /a\nCOPY --from=c c /c"
    )
    both = ("linux/amd64", "linux/arm64")
    lab.build(root, text, platforms=both)
    (root / "c").write_text("2")
    lab.build(root, platforms=both[1:])
    (step,) = [step for step in lab.build(root, platforms=both).steps if step.causes]
    assert step.name == "[linux/amd64 stage-1 2/2] COPY --from=c c /c"
    assert [(cause.kind, cause.subject) for cause in step.causes] == [
        ("upstream", "[linux/amd64 c 1/1] COPY c /")
    ]


def test_imported(tmp_path: Path) -> None:
    text = "FROM busybox\nCOPY a /a\nRUN cat a > /b; echo new >> /b\nRUN echo last > /c\n"
    with machines(tmp_path) as many:
        here, there, third = many.new(), many.new(), many.new()
        here.build(here.context({"a": "1"}), text, cache_to=cache(f"type=local,dest={tmp_path}/c,mode=max"))
        imports = cache(f"type=local,src={tmp_path}/c")
        root = there.context({"a": "1"})
        first = there.build(root, text, cache_from=imports)
        assert {step.status for step in first.steps} == {"cached"}
        (root / "a").write_text("2")
        found = why(there.build(root, cache_from=imports))
        assert found["COPY a /a"] == [Cause("file-changed", "a")]
        assert found["RUN cat a > /b; echo new >> /b"] == [Cause("upstream", "[2/4] COPY a /a")]
        found = why(third.build(third.context({"a": "3"}), text, cache_from=imports))
        assert found["COPY a /a"] == [Cause("new", note="no imported cache has it either")]


def test_sources_that_moved(lab: Lab, tmp_path: Path) -> None:
    """A file and a repository elsewhere, from what to what."""
    env = {**os.environ, "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str, given: str = "") -> str:
        words = ("git", "-C", str(tmp_path / "r.git"), "-c", "user.name=t", "-c", "user.email=t@t", *words)
        done = subprocess.run(words, check=True, env=env, capture_output=True, text=True, input=given)
        return done.stdout.strip()

    def commit(text: str) -> str:
        blob = git("hash-object", "-w", "--stdin", given=text)
        tree = git("mktree", given=f"100644 blob {blob}\tname\n")
        made = git("commit-tree", "-m", text, tree)
        git("update-ref", "refs/heads/main", made)
        git("update-server-info")
        return f"sha1:{made}"

    with directory(tmp_path) as url:
        (tmp_path / "f").write_text("one")
        (tmp_path / "r.git").mkdir()
        git("init", "-q", "--bare", "-b", "main")
        before = commit("one")
        root = lab.context()
        lab.build(root, f"FROM busybox\nADD {url}/f /f\nADD {url}/r.git#main /g\n")
        (tmp_path / "f").write_text("two!")
        os.utime(tmp_path / "f", (2e9, 2e9))
        after = commit("two")
        first, second = why(lab.build(root)).values()
        (file,) = first
        assert (file.kind, file.subject) == ("source", f"{url}/f")
        assert file.before.startswith("sha256:")
        assert file.after.startswith("sha256:")
        assert file.before != file.after
        (repository,) = [cause for cause in second if cause.kind == "source"]
        assert (repository.before, repository.after) == (before, after)
