"""Git references in Dockerfiles: section 14 of the rows."""

from __future__ import annotations

import pytest

from builder.frontend.errors import DockerfileError
from builder.frontend.gitref import parse_git_ref


@pytest.mark.parametrize(
    ("text", "identifier", "remote"),
    [
        ("git://h/r", "git://h/r", "git://h/r"),
        ("https://h/r.git", "git://h/r.git", "https://h/r.git"),
        ("http://u:p@h:80/r.git#v", "git://h:80/r.git#v", "http://u:p@h:80/r.git"),
        ("ssh://git@h:22/r#:sub//x/", "git://git@h:22/r#:sub/x", "ssh://git@h:22/r"),
        ("git@h:u/r.git#main:a", "git://git@h/u/r.git#main:a", "git@h:u/r.git"),
        ("github.com/u/r", "git://github.com/u/r", "https://github.com/u/r"),
        ("https://h/r.git?ref=v1&subdir=x", "git://h/r.git#v1:x", "https://h/r.git"),
        ("https://h/r.git?tag=1", "git://h/r.git#refs/tags/1", "https://h/r.git"),
        ("https://h/r.git?branch=b", "git://h/r.git#refs/heads/b", "https://h/r.git"),
    ],
)
def test_references(text, identifier, remote):
    found = parse_git_ref(text)
    assert (found.identifier, found.remote) == (identifier, remote)
    assert dict(found.attrs)["git.fullurl"] == remote


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "./x.git",
        "/x.git",
        "https://h/r",
        "https://h/r.git/x",
        "ftp://h/r.git",
        "a@b",
        "file:///r.git",
        "a b@c:d",
        "ext::sh",
        "--x@y:z",
    ],
)
def test_no_references(text):
    assert parse_git_ref(text) is None


def test_options():
    found = parse_git_ref(
        "https://h/r.git?keep-git-dir&submodules=false&mtime=commit&checksum=abcdef0&fetch-by-commit=1"
    )
    attrs = dict(found.attrs)
    assert attrs["git.keepgitdir"] == attrs["git.skipsubmodules"] == attrs["git.fetchbycommit"] == "true"
    assert (attrs["git.mtime"], attrs["git.checksum"]) == ("commit", "abcdef0")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("subdir=", 'query "subdir" has no value'),
        ("ref=a&ref=b", 'query "ref" has multiple values'),
        ("ref=a&tag=b", 'ref conflicts: "a" vs "refs/tags/b"'),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("x=1", 'unexpected query "x"'),
        ("checksum=zz", "invalid checksum zz expected hex commit hash"),
        ("submodules=maybe", "invalid submodules value"),
        ("mtime=now", "invalid mtime value"),
        ("ref=--upload-pack=x", "bad ref"),
    ],
)
def test_refused(query, message):
    with pytest.raises(DockerfileError) as caught:
        parse_git_ref(f"https://h/r.git?{query}")
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["ssh://-oProxyCommand=x/r", "git://h/r#-x", "ssh://a@-b/r"])
def test_nothing_looks_like_an_option(text):
    with pytest.raises(DockerfileError):
        parse_git_ref(text)
