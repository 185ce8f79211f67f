"""References to git repositories (GIT rows)."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from builder.errors import PybuildError
from builder.frontend.errors import DockerfileError
from builder.frontend.gitref import parse_git_ref
from builder.llb.gitref import parse_git_ref as parse_context
from builder.solver.types import Secret
from tests.support.buildlab import Built, Lab
from tests.support.dockerfiles import converted, ops
from tests.support.rows import row
from tests.support.web import Handler, serving


@row("GIT-01")
@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("git://h/r", "git://h/r"),
        ("ssh://git@h:22/r", "ssh://git@h:22/r"),
        ("git@h:user/r.git", "git@h:user/r.git"),
        ("https://h/r.git", "https://h/r.git"),
        ("http://h/r.git?ref=x", "http://h/r.git"),
        ("https://h/r.git#v1", "https://h/r.git"),
        ("github.com/user/repo", "https://github.com/user/repo"),
    ],
)
def test_what_is_a_repository(text: str, remote: str) -> None:
    found, context = parse_git_ref(text), parse_context(text)
    assert found is not None
    assert found.remote.removesuffix(".git") == remote.removesuffix(".git")
    assert context is not None
    assert context.remote.removesuffix(".git") == remote.removesuffix(".git")


@row("GIT-01")
@pytest.mark.parametrize("text", ["https://h/r", "http://h/x.git.tar", "h/r.git", "./r.git", "/srv/r.git", "file:///r.git"])  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert parse_git_ref(text) is None
    assert parse_context(text) is None


@row("GIT-02")
@pytest.mark.parametrize(
    ("fragment", "ref", "subdir"),
    [
        ("", "", ""),
        ("#main", "main", ""),
        ("#:sub/dir", "", "sub/dir"),
        ("#v1:sub", "v1", "sub"),
        ("#refs/pull/1/head", "refs/pull/1/head", ""),
        ("#" + "a" * 40, "a" * 40, ""),
        ("#", "", ""),
    ],
)
def test_fragments(fragment: str, ref: str, subdir: str) -> None:
    found, context = parse_git_ref("https://h/r.git" + fragment), parse_context("https://h/r.git" + fragment)
    assert found is not None
    assert context is not None
    assert (found.ref, found.subdir) == (context.ref, context.subdir) == (ref, subdir)


@row("GIT-03")
def test_queries() -> None:
    found = parse_git_ref(
        "https://h/r.git?ref=v1&subdir=d&checksum=abcdef1&keep-git-dir&submodules=false&mtime=commit&fetch-by-commit=1"
    )
    assert found is not None
    assert (found.ref, found.subdir, found.checksum, found.mtime) == ("v1", "d", "abcdef1", "commit")
    assert (found.keep_git_dir, found.submodules, found.fetch_by_commit) == (True, False, True)
    for query, ref in (("tag=t", "refs/tags/t"), ("branch=b", "refs/heads/b"), ("commit=abcdef1", "")):
        found = parse_git_ref(f"https://h/r.git?{query}")
        assert found is not None
        assert found.ref == ref


@row("GIT-03")
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?ref=", 'query "ref" has no value'),
        ("?subdir=", 'query "subdir" has no value'),
        ("?ref=a&ref=b", 'query "ref" has multiple values'),
        ("?ref=a#b", 'ref conflicts: "b" vs "a"'),
        ("?tag=a&branch=b", "branch conflicts with tag"),
        ("?foo=1", 'unexpected query "foo"'),
    ],
)
def test_bad_queries(query: str, message: str) -> None:
    for parse in (parse_git_ref, parse_context):
        with pytest.raises(PybuildError) as caught:
            parse(f"https://h/r.git{query}")
        assert message in caught.value.message, parse.__module__


@row("GIT-04")
@pytest.mark.root
def test_checksums(lab: Lab, repository: tuple[str, str]) -> None:
    url, commit = repository
    for line in (f"ADD {url}?ref=v1&checksum={commit} /d", f"ADD {url}?tag=v1&checksum={commit[:10]} /d",
                 f"ADD --checksum={commit[:12]} {url}#v1 /d"):  # fmt: skip
        assert lab.quick(f"FROM scratch\n{line}\n").read("d/a") == "one"
    with pytest.raises(PybuildError, match="expected checksum to match"):
        lab.quick(f"FROM scratch\nADD {url}?checksum={commit} /d\n")
    with pytest.raises(DockerfileError, match=r"invalid checksum .* expected hex commit hash"):
        converted("FROM a\nADD --checksum=xyz https://h/r.git /\n")


@pytest.fixture
def locked() -> Iterator[tuple[str, list[str]]]:
    """A server that lets nobody in, and the Authorization headers that it was given."""
    seen: list[str] = []

    class Locked(Handler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.answer(b"", 401, WWW_Authenticate='Basic realm="x"')

    with serving(Locked) as url:
        yield url, seen


@row("GIT-05")
@pytest.mark.root
def test_head_and_credentials(lab: Lab, repository: tuple[str, str], locked: tuple[str, list[str]]) -> None:
    url, _ = repository
    assert Built(lab, lab.build(url)).read("a") == "newer", "no ref is the remote's HEAD"
    server, seen = locked
    for secret, header in (
        (
            Secret(id="GIT_AUTH_TOKEN", data=b"tok"),
            "Basic " + base64.b64encode(b"x-access-token:tok").decode(),
        ),
        (Secret(id="GIT_AUTH_HEADER", data=b"basic aGk="), "basic aGk="),
        (Secret(id="GIT_AUTH_HEADER.127.0.0.1", data=b"basic aG8="), "basic aG8="),
    ):
        seen.clear()
        with pytest.raises(PybuildError) as caught:
            lab.quick(f"FROM scratch\nADD {server}/private.git /d\n", secrets=(secret,))
        assert header in seen, secret.id
        assert secret.data.decode() not in f"{caught.value} {caught.value.context}"
    for text, attr, value in (
        ("https://h/r.git?submodules=0", "git.skipsubmodules", "true"),
        ("https://h/r.git", "git.skipsubmodules", ""),
        ("https://h/r.git", "git.authtokensecret", "GIT_AUTH_TOKEN"),
        ("git@h:r.git", "git.mountsshsock", "default"),
    ):
        assert ops(converted(f"FROM a\nADD {text} /\n"), "SourceOp")[1].attr(attr) == value
