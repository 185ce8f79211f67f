"""Named contexts that a policy puts other contexts in the place of (CTX-10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.build.policy import SourceGate
from builder.build.replaced import MAX_DEPTH, ContextRecursion, Replacer, attributes
from builder.build.request import BuildInput
from builder.errors import PybuildError
from builder.exporter.types import OutputSpec
from builder.sources.named import parse_named
from builder.sources.policy import Policy, Rule, SourceDenied
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.rows import row

root_only = pytest.mark.root
IMAGE = "docker-image://docker.io/library/busybox:latest"


def convert(old: str, new: str, regex: bool = False, **attrs: str) -> Rule:
    return Rule(
        action="CONVERT",
        identifier=old,
        match_type="REGEX" if regex else "WILDCARD",
        new_identifier=new,
        new_attrs=tuple(attrs.items()),
    )


def replacer(*rules: Rule, **more: Any) -> Replacer:
    return Replacer(
        gate=SourceGate((Policy(rules=rules),)),
        input_digest=lambda source: "sha256:" + {"k": "b", "z": "e"}[source.identifier] * 64,
        **more,
    )


def becomes(value: str, *rules: Rule, **more: Any) -> tuple[str, str]:
    found, _ = replacer(*rules, **more).source(parse_named("n", value))
    return found.kind, found.identifier


@row("CTX-10")
def test_every_form_is_read_as_what_it_becomes(tmp_path: Path) -> None:
    layout = f"oci-layout://{tmp_path}@sha256:" + "a" * 64
    (tmp_path / "in").mkdir()
    forms = {
        "docker-image://a:1": "docker-image://docker.io/library/a:1",
        "https://h/r.git#main:sub": "git://h/r.git#main:sub",
        "https://h/f.txt": "https://h/f.txt",
        layout: "oci-layout://n@sha256:a*",
        "input:k": "oci-layout://n@sha256:b*",
        str(tmp_path / "in"): "local://n",
    }
    results = {
        "docker-image://b:2": ("image", "docker.io/library/b:2"),
        "docker-image://scratch": ("image", "scratch"),
        "https://e/s.git?ref=v1": ("git", "https://e/s.git?ref=v1"),
        "git://e/s.git#v1": ("git", "git://e/s.git#v1"),
        "http://e/g": ("http", "http://e/g"),
        f"oci-layout://other@sha256:{'c' * 64}": ("oci", f"{tmp_path}/o@sha256:{'c' * 64}"),
        "local://more": ("local", "more"),
        "input:z": ("input", "z"),
    }
    more = {"layouts": {"other": tmp_path / "o"}, "locals": {"more"}}
    seen = 0
    for value, judged in forms.items():
        for new, expected in results.items():
            kind = parse_named("n", value).kind
            if kind != expected[0] or (kind, new[:5]) == ("image", "scrat"):
                seen += 1
                assert becomes(value, convert(judged, new), **more) == expected, (value, new)
    assert seen > 35


@row("CTX-10")
def test_the_limit() -> None:
    """Each conversion gives another form, and a name that is longer by one."""
    git, image = r"^git://h/(x*)\.git$", r"^docker-image://h\.org/(x*):y$"

    def chain(end: int) -> tuple[str, str]:
        stop = convert(
            r"^(git://h|docker-image://h\.org)/x{" + str(end) + r"}(\.git|:y)$", "http://end/f", regex=True
        )
        there = convert(git, "docker-image://h.org/${1}x:y", regex=True)
        back = convert(image, "https://h/${1}x.git", regex=True)
        return becomes("https://h/x.git", stop, there, back)

    assert MAX_DEPTH == 10
    assert chain(MAX_DEPTH) == ("http", "http://end/f"), "nine forms of repositories and images, then a file"
    with pytest.raises(ContextRecursion) as caught:
        chain(MAX_DEPTH + 1)
    error = caught.value
    assert (error.code, error.exit_status) == ("context-recursion", 1)
    assert "named context n: recursion limit of 10 exceeded" in error.message
    assert error.context[0] == "git://h/x.git → docker-image://h.org/xx:y"
    assert len(error.context) == MAX_DEPTH + 1
    assert error.hint is not None


@row("CTX-10")
@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("nothing", "invalid context specifier nothing for n"),
        ("/etc", "invalid context specifier /etc for n"),
        (
            "local://nobody",
            "invalid context specifier local://nobody for n: the build has no such local input",
        ),
        ("target:x", "unsupported context source target for n"),
        ("target://x", "unsupported context source target for n"),
        ("ftp://x", "unsupported context source ftp for n"),
        ("oci-layout://@sha256:" + "a" * 64, "has no name"),
        ("https://h/r.git?tag=a&branch=b", "invalid git context https://h/r.git?tag=a&branch=b for n"),
        ("docker-image://A:b:c", "invalid context specifier docker-image://A:b:c for n"),
    ],
)
def test_what_is_no_context(new: str, message: str) -> None:
    with pytest.raises(PybuildError) as caught:
        becomes("http://h/f", convert("http://h/f", new))
    assert message in caught.value.message
    assert 'the policy put it in the place of "http://h/f"' in caught.value.context


@row("CTX-10")
def test_attributes_are_not_lost() -> None:
    checksum = "sha256:" + "d" * 64
    rule = convert("docker-image://*", "https://h/f", **{"http.checksum": checksum})
    source, wanted = replacer(rule).source(parse_named("n", "docker-image://a"))
    assert attributes(source, wanted) == (
        "https://h/f",
        (("http.filename", "context"), ("http.checksum", checksum)),
    )
    git = convert("docker-image://*", "https://h/r.git", **{"git.checksum": "abcdef0"})
    identifier, found = attributes(*replacer(git).source(parse_named("n", "docker-image://a")))
    assert (identifier, dict(found)["git.checksum"]) == ("git://h/r.git", "abcdef0")
    with pytest.raises(PybuildError, match=r"wants http\.checksum of docker-image://b, which"):
        becomes("http://h/f", convert("http://*", "docker-image://b", **{"http.checksum": checksum}))


@row("CTX-10")
@root_only
def test_a_policy_puts_another_context_in_the_place_of_one(
    lab: Lab, site: tuple[str, Path], repository: tuple[str, str], tmp_path: Path
) -> None:
    url, root = site
    (root / "by-policy").write_text("page")
    layout = tmp_path / "layout"
    lab.build(
        lab.context(),
        "FROM busybox\nENV LAYOUT=1\n",
        outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),),
    )
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    remote = repository[0].partition("://")[2]
    other = lab.context({"local": "1"})

    def built(text: str, value: str, *rules: Rule, **more: Any) -> Built:
        contexts = (("n", value), ("other", str(other)))
        return lab.quick(
            text, {"main": "2"}, build_contexts=contexts, source_policies=(Policy(rules=rules),), **more
        )

    copy = "FROM scratch\nCOPY --from=n {0} /x\n"
    image, page = "docker-image://gone.invalid/a:1", f"{url}/by-policy"
    assert built(copy.format("context"), image, convert(image, page)).read("x") == "page"
    assert built(copy.format("a"), image, convert(image, f"{repository[0]}#v1")).read("x") == "one"
    assert built(copy.format("local"), page, convert(page, "local://other")).read("x") == "1"
    assert built(copy.format("main"), page, convert(page, "local://context")).read("x") == "2"
    assert (
        "LAYOUT=1"
        in built(
            "FROM n\n", repository[0], convert(f"git://{remote}", f"oci-layout://{layout}@{digest}")
        ).config.env
    )
    assert "PATH" in built("FROM n\n", page, convert(page, IMAGE)).config.env[0]
    assert built("FROM n\nCOPY main /\n", page, convert(page, "docker-image://scratch")).names() == ["main"]
    assert built(copy.format("bin/sh"), str(other), convert("local://n", IMAGE)).has("x")
    assert built(copy.format("bin/sh"), f"oci-layout://{layout}@{digest}",
                 convert("oci-layout://n@*", page), convert(page, f"git://{remote}#v1"),
                 convert(f"git://{remote}#v1", IMAGE)).has("x")  # fmt: skip
    base = lab.build(lab.context(), "FROM busybox\n")
    given = (BuildInput("k", str(base.digest)),)
    assert built(copy.format("context"), "input:k", convert("oci-layout://n@*", page), inputs=given).has("x")


@row("CTX-10")
@root_only
def test_what_goes_wrong_points_at_the_line(
    lab: Lab, command: Runner, site: tuple[str, Path], tmp_path: Path
) -> None:
    circle = Policy(
        rules=(
            convert("docker-image://docker.io/library/gone:1", f"{site[0]}/f"),
            convert(f"{site[0]}/f", "docker-image://gone:1"),
        )
    )
    contexts = (("n", "docker-image://gone:1"),)
    for text in ("FROM scratch\nCOPY --from=n x /\n", "FROM scratch\nFROM n\n"):
        with pytest.raises(ContextRecursion) as caught:
            lab.quick(text, build_contexts=contexts, source_policies=(circle,))
        assert caught.value.context[-1].endswith(f"2: {text.splitlines()[1]}")
    deny = Policy(rules=(Rule(action="DENY", identifier=f"{site[0]}/f"),))
    with pytest.raises(SourceDenied) as denied:
        lab.quick("FROM scratch\nCOPY --from=n context /\n", build_contexts=contexts,
                  source_policies=(deny, circle))  # fmt: skip
    assert (denied.value.filename, denied.value.first_line) == ("Dockerfile", 2)
    rules = [
        {
            "action": "CONVERT",
            "selector": {"identifier": one.identifier},
            "updates": {"identifier": one.new_identifier},
        }
        for one in circle.rules
    ]
    (tmp_path / "p.json").write_text(json.dumps({"rules": rules}))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY --from=n x /\n")
    said = command.run(
        "build",
        "--build-context=n=docker-image://gone:1",
        f"--source-policy-file={tmp_path}/p.json",
        tmp_path,
        status=1,
    ).err
    assert "named context n: recursion limit of 10 exceeded" in said
    assert "Dockerfile:2: COPY --from=n x /" in said
    assert "hint: what a CONVERT rule gives" in said
