"""Git references: which texts are one, what they say, which are refused (GIT-01…04, CVE-2019-13139)."""

from __future__ import annotations

import pytest

from builder.errors import InvalidValue
from builder.llb.gitref import (
    GitRef,
    check_ref,
    check_remote,
    is_git_url,
    parse_git_ref,
    split_credentials,
)


@pytest.mark.parametrize(
    ("text", "remote", "ref", "subdir"),
    [
        ("git://host/repo", "git://host/repo", "", ""),
        ("https://host/a/b.git", "https://host/a/b.git", "", ""),
        ("https://host/b.git#main", "https://host/b.git", "main", ""),
        ("https://host/b.git#main:docker/web", "https://host/b.git", "main", "docker/web"),
        ("https://host/b.git#:docker", "https://host/b.git", "", "docker"),
        ("https://host/b.git#refs/pull/3/head", "https://host/b.git", "refs/pull/3/head", ""),
        ("git@host:path/repo.git#v1", "git@host:path/repo.git", "v1", ""),
        ("ssh://git@host:2222/path", "ssh://git@host:2222/path", "", ""),
        ("github.com/user/repo", "https://github.com/user/repo", "", ""),
        ("https://h/b.git?ref=v1&subdir=d", "https://h/b.git", "v1", "d"),
        ("https://h/b.git?branch=x", "https://h/b.git", "refs/heads/x", ""),
        ("https://h/b.git?tag=x", "https://h/b.git", "refs/tags/x", ""),
        ("https://h/b.git#x:./a/../b/", "https://h/b.git", "x", "b"),
    ],
)
def test_forms(text: str, remote: str, ref: str, subdir: str) -> None:
    found = parse_git_ref(text)
    assert found is not None
    assert (found.remote, found.ref, found.subdir) == (remote, ref, subdir)


@pytest.mark.parametrize(
    "text",
    [
        "https://host/archive.tar.gz",
        "http://host/Dockerfile",
        ".",
        "./dir.git",
        "/abs/dir.git",
        "file:///repo.git",
        "ext::sh -c id",
        "-",
        "-oProxyCommand=x",
        "dir:with:colons",
        "",
    ],
)
def test_not_git(text: str) -> None:
    assert not is_git_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/b.git#--upload-pack=touch x",
        "https://h/b.git#-x",
        "https://h/b.git#a..b",
        "https://h/b.git#a b",
        "https://h/b.git#a\nb",
        "https://h/b.git#x:../..",
        "https://h/b.git#x:a/../../b",
        "ssh://-oProxyCommand=id/x",
        "git://-x/repo",
        "git@host:-x",
        "https://h/b.git?ref=a&ref=b",
        "https://h/b.git?ref=",
        "https://h/b.git?nope=1",
        "https://h/b.git?ref=b#a",
        "https://h/b.git?tag=a&branch=a",
        "https://h/b.git?checksum=xyz",
        "https://h/b.git?submodules=maybe",
        "ssh://host:99999999/x",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_git_ref(text)


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c id",
        "file:///etc",
        "/etc",
        "--upload-pack=x",
        "fd::3",
        "https:///x",
        "https://h",
        "a b",
        "x",
    ],
)
def test_refused_remotes_of_submodules(remote: str) -> None:
    with pytest.raises(InvalidValue):
        check_remote(remote)


def test_query_options() -> None:
    found = parse_git_ref("https://h/b.git?keep-git-dir&submodules=false&mtime=commit&checksum=abcdef1")
    assert found == GitRef(
        remote="https://h/b.git", keep_git_dir=True, submodules=False, mtime="commit", checksum="abcdef1"
    )


def test_credentials_are_never_shown() -> None:
    found = parse_git_ref("https://user:hunter2@host/b.git")
    assert found is not None
    assert "hunter2" not in found.display
    assert split_credentials(found.remote) == ("https://host/b.git", "user:hunter2")
    with pytest.raises(InvalidValue) as caught:
        parse_git_ref("https://user:hunter2@-bad/b.git")
    assert "hunter2" not in str(caught.value)


def test_ref_names_of_git_pass() -> None:
    for ref in ("main", "feature/x-1", "v1.0", "refs/tags/v1", "a" * 40):
        assert check_ref(ref) == ref
