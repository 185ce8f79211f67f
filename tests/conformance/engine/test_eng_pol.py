"""Source policies (POL rows)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.build import BuildRequest
from builder.build.memo import is_eligible, key_of
from builder.build.policy import plain_url
from builder.errors import InvalidValue, PybuildError
from builder.solver.progress import VertexEvent
from builder.sources.policy import Policy, SourceDenied, evaluate, match_wildcard
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.rows import row

root_only = pytest.mark.root
IMAGE = "docker-image://docker.io/library/busybox:latest"


def rule(action: str | int, identifier: str, **more: Any) -> dict[str, Any]:
    updates = more.pop("updates", None)
    return {
        "action": action,
        "selector": {"identifier": identifier, **more},
        **({"updates": updates} if updates else {}),
    }


def policy(*rules: dict[str, Any], name: str = "p.json") -> Policy:
    return Policy.parse(json.dumps({"version": 1, "rules": rules}).encode(), name)


def verdict(found: Policy, identifier: str, **attrs: str) -> str:
    try:
        return evaluate([found], identifier, tuple(attrs.items()))[0]
    except SourceDenied:
        return "denied"


@row("POL-01")
def test_kinds_of_match() -> None:
    assert verdict(policy(rule("DENY", "docker-image://*/library/*")), IMAGE) == "denied"
    assert verdict(policy(rule("DENY", "docker-image://*/library/*", matchType="EXACT")), IMAGE) == IMAGE
    assert verdict(policy(rule("DENY", IMAGE, matchType="EXACT")), IMAGE) == "denied"
    assert verdict(policy(rule("DENY", r"library/(busy|alp)", matchType="REGEX")), IMAGE) == "denied"
    assert verdict(policy(rule("DENY", r"^library", matchType="REGEX")), IMAGE) == IMAGE
    assert match_wildcard("a*b*c", "aXbYbZc") == ("XbY", "Z")  # the first takes as much as it can
    assert match_wildcard("a*a", "a") is None
    assert match_wildcard("*", "") == ("",)


@row("POL-01")
def test_constraints_and_numbers() -> None:
    def constrained(condition: str | int, value: str) -> Policy:
        return policy(
            rule(1, "https://*", constraints=[{"key": "k", "value": value, "condition": condition}])
        )

    url = "https://e/x"
    assert verdict(constrained("EQUAL", "v"), url, k="v") == "denied"
    assert verdict(constrained(0, "v"), url, k="w") == url
    assert verdict(constrained("NOTEQUAL", "v"), url) == "denied"
    assert verdict(constrained(1, "v"), url, k="v") == url
    assert verdict(constrained("MATCHES", "^v+$"), url, k="vvv") == "denied"
    assert verdict(constrained(2, "^v+$"), url, k="w") == url
    numeric = policy(rule(2, "https://(.*)/x", match_type=2, updates={"identifier": "https://$1.org/y"}))
    assert verdict(numeric, url) == "https://e.org/y"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "want a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"version": 2}', "version 2 is not supported"),
        (b'{"rulez": []}', "unknown key 'rulez'"),
        (b'{"rules": [{"action": "FORBID", "selector": {"identifier": "x"}}]}', "rule 1: action 'FORBID'"),
        (b'{"rules": [{"action": "DENY"}]}', "rule 1: selector is missing"),
        (b'{"rules": [{"action": "CONVERT", "selector": {"identifier": "x"}}]}', "missing updates for convert"),
        (b'{"rules": [{"action": "DENY", "selector": {"identifier": "("}}]}', ""),
        (b'{"rules": [{"action": "DENY", "selector": {"identifier": "(", "matchType": "REGEX"}}]}', "rule 1: regular"),
        (b'{"rules": [{"action": 7, "selector": {"identifier": "x"}}]}', "rule 1: action '7'"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
@row("POL-01")
def test_bad_documents(data: bytes, said: str) -> None:
    if not said:
        assert len(Policy.parse(data).rules) == 1  # no regular expression: nothing wrong with it
        return
    with pytest.raises(InvalidValue, match=said):
        Policy.parse(data, "p.json")


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|ab)*c", "(a?a?)*b", r"(a)\1", "(?=a)b", "(a{1,9}){1,9}b", "(?:a*?)*b"]
)
@row("POL-01")
def test_patterns_without_end_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue, match="may take without end"):
        policy(rule("DENY", pattern, matchType="REGEX"))


@row("POL-01")
def test_matching_takes_bounded_time() -> None:
    started = time.monotonic()
    text = "https://" + "a" * 5000
    assert verdict(policy(rule("DENY", "https://" + "*a" * 500 + "b")), text) == text
    with pytest.raises(InvalidValue, match="too many repetitions"):
        verdict(policy(rule("DENY", ".*a.*a.*a.*a.*b", matchType="REGEX")), text)
    assert verdict(policy(rule("DENY", "(?:foo|bar)+x", matchType="REGEX")), text) == text
    assert time.monotonic() - started < 2


@row("POL-02")
def test_the_last_match_decides() -> None:
    both = policy(rule("DENY", "docker-image://*"), rule("ALLOW", "docker-image://*busybox*"))
    assert verdict(both, IMAGE) == IMAGE
    assert verdict(both, "docker-image://docker.io/library/alpine:3") == "denied"
    assert verdict(policy(*reversed([rule("DENY", "*"), rule("ALLOW", "*")])), IMAGE) == "denied"
    assert verdict(policy(), IMAGE) == IMAGE
    with pytest.raises(SourceDenied) as caught:
        evaluate([policy(rule("ALLOW", "*"), rule("DENY", "docker*"))], IMAGE)
    assert caught.value.message == f'source "{IMAGE}" denied by policy: source denied by policy'
    assert caught.value.context == ("rule 2 of p.json: DENY docker*",)


@row("POL-02")
def test_conversion_is_evaluated_again() -> None:
    swap = rule(
        "CONVERT", "docker-image://docker.io/*:*", updates={"identifier": "docker-image://mirror/${1}:$2-x", "attrs": {"a": "b"}}
    )  # fmt: skip
    assert evaluate([policy(swap)], IMAGE) == (
        "docker-image://mirror/library/busybox:latest-x",
        (("a", "b"),),
    )
    assert verdict(policy(swap, rule("DENY", "docker-image://mirror/*")), IMAGE) == "denied"
    named = rule("CONVERT", "x/(?P<rest>.*)", matchType="REGEX", updates={"identifier": "y/${rest}$$"})
    assert verdict(policy(named), "x/z") == "y/z$"
    chain = [rule("CONVERT", f"n{i}", updates={"identifier": f"n{i + 1}"}) for i in range(21)]
    assert verdict(policy(*chain[:20]), "n0") == "n20"
    with pytest.raises(InvalidValue, match="converted by policy more than 20 times"):
        verdict(policy(*chain), "n0")


@row("POL-02")
@root_only
def test_denied_with_the_line(lab: Lab) -> None:
    gate = policy(rule("DENY", "https://example.com/*"))
    context = lab.context({"a": ""})
    with pytest.raises(SourceDenied) as caught:
        lab.build(
            context, "FROM busybox\nRUN true\nADD HTTPS://u:p@Example.COM:443/x /\n", source_policies=(gate,)
        )
    assert (caught.value.first_line, caught.value.exit_status) == (3, 3)
    assert "rule 1 of p.json: DENY https://example.com/*" in caught.value.context
    assert not lab.fresh()
    assert plain_url("https://u:p@Host:8443/P?q#f") == "https://host:8443/P?q#f"
    assert plain_url("docker-image://a@sha256:1") == "docker-image://a@sha256:1"


@row("POL-02", "POL-03")
@root_only
def test_a_base_is_replaced(lab: Lab) -> None:
    images.import_(lab.store, lab_tar(lab), "other:1")
    swap = policy(rule("CONVERT", IMAGE, updates={"identifier": "docker-image://docker.io/library/other:1"}))
    built = lab.quick("FROM busybox\nCOPY a /\n", {"a": "1"}, source_policies=(swap,))
    assert built.names() == ["a", "from-other"]
    assert lab.quick("FROM busybox\nCOPY a /\n", {"a": "1"}).has("bin/sh")


def lab_tar(lab: Lab) -> Any:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("from-other"), io.BytesIO())
    out.seek(0)
    return out


@row("POL-03")
@root_only
def test_every_kind_of_source(lab: Lab, site: tuple[str, Path], repository: tuple[str, str]) -> None:
    url, root = site
    (root / "f").write_text("1")
    (root / "g").write_text("2")
    host = url.partition("://")[2]
    context = lab.context({"a": "", "Dockerfile": "FROM scratch\nCOPY a /\n"})

    def denied(identifier: str, text: str, source: Any = context, **more: Any) -> None:
        with pytest.raises(SourceDenied, match="denied by policy: source denied by policy"):
            lab.build(
                source,
                text if source == context else None,
                source_policies=(policy(rule("DENY", identifier)),),
                **more,
            )

    denied("docker-image://*busybox*", "FROM busybox\n")
    denied("docker-image://*busybox*", "FROM scratch\nCOPY --from=busybox /bin/sh /\n")
    denied("docker-image://*busybox*", "FROM scratch\nRUN --mount=from=busybox,target=/b true\n")
    denied("docker-image://*busybox*", "FROM x\n", build_contexts=(("x", "docker-image://busybox"),))
    denied(
        "docker-image://*@sha256:*", "FROM busybox\nRUN true\n"
    )  # with the digest that the name stands for
    denied(f"http://{host}/*", f"FROM scratch\nADD {url}/f /\n")
    denied(f"http://{host}/*", "FROM scratch\nCOPY --from=x / /\n", build_contexts=(("x", f"{url}/f"),))
    denied("git://*", f"FROM scratch\nADD {repository[0]}#v1 /\n")
    denied("git://*", "FROM scratch\nCOPY --from=x / /\n", build_contexts=(("x", repository[0]),))
    denied("git://*", "", source=repository[0])
    denied("http://*", "", source=f"{url}/f")
    denied("local://context", "FROM scratch\nCOPY a /\n")
    swap = policy(rule("CONVERT", f"http://{host}/f", updates={"identifier": f"{url}/g"}))
    built = Built(lab, lab.build(context, f"FROM scratch\nADD {url}/f /d/\n", source_policies=(swap,)))
    assert built.read("d/f") == "2"
    remote = repository[0].partition("://")[2]
    to_tag = policy(rule("CONVERT", f"git://{remote}#main", updates={"identifier": f"git://{remote}#v1"}))
    built = Built(
        lab, lab.build(context, f"FROM scratch\nADD {repository[0]}#main /\n", source_policies=(to_tag,))
    )
    assert built.read("a") == "one"


@row("POL-03")
@root_only
def test_policies_stack_and_the_short_way_knows_them(lab: Lab) -> None:
    context = lab.context({"a": "", "Dockerfile": "FROM busybox\nCOPY a /\n"})
    first, second = policy(rule("ALLOW", "*")), policy(rule("DENY", IMAGE), name="second.json")
    lab.build(context)
    lab.build(context)  # answered from what is known of the first
    with pytest.raises(SourceDenied, match="busybox:latest"):
        lab.build(context, source_policies=(first, second))
    lab.build(context, source_policies=(first,))
    requests = [
        BuildRequest(context=str(context), source_policies=found) for found in ((), (first,), (second,))
    ]
    assert len({key_of(request) for request in requests}) == 3
    assert not is_eligible(BuildRequest(context=str(context), source_policy_command=("true",)))


@row("POL-04")
@root_only
def test_a_program_decides(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "decide"
    program.write_text(
        "#!/bin/sh\n"
        f'tee -a {tmp_path}/asked | grep -q busybox && echo \'{{"action": "DENY", "message": "not today"}}\''
        ' || echo \'{"action": "ALLOW"}\'\n'
    )
    program.chmod(0o755)
    context = lab.context({"a": "", "Dockerfile": "FROM scratch\nCOPY a /\n"})
    lab.build(context, source_policy_command=(str(program),))
    asked = (tmp_path / "asked").read_text().replace("}}{", "}}\n{").splitlines()
    questions = [json.loads(line)["source"]["identifier"] for line in asked]
    assert questions == ["local://dockerfile", "local://context"]
    with pytest.raises(SourceDenied) as caught:
        lab.build(context, "FROM busybox\n", source_policy_command=(str(program),))
    assert any("not today" in line for line in caught.value.context)
    with pytest.raises(SourceDenied, match="denied"):
        lab.build(context, "FROM busybox\n", source_policy_command=("false",))
    for wrong in (("/does/not/exist",), ("echo", "x"), ("echo", '{"action": "PERHAPS"}')):
        with pytest.raises(PybuildError, match="source policy command"):
            lab.build(context, "FROM busybox\n", source_policy_command=wrong)


@row("POL-05")
@root_only
def test_flag_and_environment(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    deny, allow = tmp_path / "deny.json", tmp_path / "allow.json"
    deny.write_text(json.dumps({"rules": [rule("DENY", "docker-image://*")]}))
    allow.write_text(json.dumps({"rules": []}))
    flags = (f"--source-policy-file={allow}", f"--source-policy-file={deny}")
    said = command.build(tmp_path, *flags, status=3).err
    assert f'ERROR: failed to solve: source "{IMAGE}" denied by policy: source denied by policy' in said
    assert f"rule 1 of {deny}" in said
    assert "Dockerfile:1" in said
    command.build(tmp_path, flags[0])
    env = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(deny)}
    assert "denied by policy" in command.build(tmp_path, status=3, env=env).err
    deny.write_text("{")
    assert f"source policy {deny}: not valid JSON" in command.build(tmp_path, status=2, env=env).err
    missing = command.build(tmp_path, "--source-policy-file=/nowhere", status=2).err
    assert "source policy /nowhere: No such file or directory" in missing


@root_only
@row("POL-02")
@pytest.mark.parametrize(("match", "kind"), [(r"/library/(\w+):(.*)", "REGEX"), ("*/library/*", "WILDCARD")])
def test_a_rule_that_matches_what_it_gives_is_no_loop(lab: Lab, match: str, kind: str) -> None:
    """An image is looked at by its tag and, once resolved, with its digest: the rule matches both."""
    found = policy(rule("CONVERT", match, matchType=kind, updates={"identifier": IMAGE}))
    lab.quick("FROM other:1\nRUN true\n", source_policies=(found,))
    names = {event.name for event in lab.watcher.events if isinstance(event, VertexEvent)}
    (base,) = (name for name in names if " FROM " in name)
    assert base.split(" FROM ")[1].startswith("docker.io/library/busybox:latest@sha256:")
