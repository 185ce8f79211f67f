"""Where a build's files come from: directories, archives, URLs, repositories, named contexts, ignore files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from builder.errors import PybuildError
from builder.exporter.types import OutputSpec
from tests.support.buildlab import Built, Lab
from tests.support.web import directory

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("contexts"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("site")
    with directory(root) as url:
        yield url, root


def archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress], ids=lambda f: f.__name__
)
def test_archive_on_standard_input(lab: Lab, pack: Callable[[bytes], bytes]) -> None:
    """BLD-12: no ignore file counts there (CTX-06)."""
    data = pack(archive({"Dockerfile": "FROM scratch\nCOPY . /\n", "a/b": "x", ".dockerignore": "a\n"}))
    built = Built(lab, lab.build("-", stdin=io.BytesIO(data)))
    assert built.read("a/b") == "x"
    named = pack(archive({"sub/Other": "FROM scratch\nCOPY a /b\n", "a": "x"}))
    assert Built(lab, lab.build("-", stdin=io.BytesIO(named), dockerfile="sub/Other")).read("b") == "x"


def test_dockerfile_on_standard_input(lab: Lab) -> None:
    """BLD-12, BLD-13."""
    alone = lab.build("-", stdin=io.BytesIO(b"FROM busybox\nRUN touch /x\n"))
    assert Built(lab, alone).has("x")
    with pytest.raises(PybuildError, match="there is no build context"):
        lab.build("-", stdin=io.BytesIO(b"FROM scratch\nCOPY a /\n"))
    root = lab.context({"a": "1", ".dockerignore": "b\n", "b": "2", "Dockerfile": "FROM nothing\n"})
    built = Built(lab, lab.build(root, dockerfile="-", stdin=io.BytesIO(b"FROM scratch\nCOPY . /\n")))
    assert built.names() == [".dockerignore", "Dockerfile", "a"]
    with pytest.raises(PybuildError, match="empty"):
        lab.build(root, dockerfile="-", stdin=io.BytesIO(b""))
    with pytest.raises(PybuildError, match="stdin for both"):
        lab.build("-", dockerfile="-", stdin=io.BytesIO(b""))


def test_dockerfile_elsewhere(lab: Lab) -> None:
    """CTX-01, BLD-21."""
    outside = lab.context({"D": "FROM scratch\nCOPY a /a\n"}) / "D"
    root = lab.context({"a": "1", "sub/D": "FROM scratch\nCOPY a /sub\n"})
    assert Built(lab, lab.build(root, dockerfile=str(outside))).names() == ["a"]
    assert Built(lab, lab.build(root, dockerfile=str(root / "sub/D"))).names() == ["sub"]
    with pytest.raises(PybuildError, match="failed to read dockerfile") as caught:
        lab.build(root, dockerfile=str(root / "sub/Dockerfle"))
    assert caught.value.hint
    with pytest.raises(PybuildError, match="not found"):
        lab.build(root / "missing")
    with pytest.raises(PybuildError, match="not a directory"):
        lab.build(outside)


def test_url_contexts(lab: Lab, site: tuple[str, Path]) -> None:
    """CTX-04."""
    url, root = site
    (root / "c.tgz").write_bytes(gzip.compress(archive({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"})))
    (root / "D").write_text("FROM busybox\nRUN touch /from-url\nCOPY context /ctx\n")
    assert Built(lab, lab.build(f"{url}/c.tgz")).read("a") == "1"
    alone = Built(lab, lab.build(f"{url}/D"))
    assert alone.has("from-url")
    assert alone.read("ctx").startswith("FROM busybox")
    with pytest.raises(PybuildError, match="404"):
        lab.build(f"{url}/none")


@pytest.fixture(scope="module")
def repository(lab: Lab, site: tuple[str, Path]) -> str:
    url, root = site
    work = lab.context({"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "one", "sub/Dockerfile": "FROM scratch\nCOPY b /b\n",
                        "sub/b": "two", ".dockerignore": "a\n"})  # fmt: skip
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(root / "r.git")], check=True)
    subprocess.run(["git", "-C", str(root / "r.git"), "update-server-info"], check=True)
    return f"{url}/r.git"


def test_git_contexts(lab: Lab, repository: str) -> None:
    """CTX-03, CTX-05, CTX-06."""
    whole = Built(lab, lab.build(repository))
    assert whole.names() == [".dockerignore", "Dockerfile", "a", "sub"]
    assert Built(lab, lab.build(f"{repository}#main:sub")).names() == ["b"]
    kept = lab.build(repository, build_args=(("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),))
    assert ".git" in Built(lab, kept).names()
    with pytest.raises(PybuildError) as caught:
        lab.build(f"{repository}#nosuch")
    assert "nosuch" in f"{caught.value} {caught.value.context}"


def test_named_directory_contexts(lab: Lab) -> None:
    """CTX-07, CTX-08, CTX-12."""
    other = lab.context({"a": "named", "b": "ignored", ".dockerignore": "b\n"})
    root = lab.context({"a": "main", "Dockerfile": "FROM scratch\nCOPY a /main\nCOPY --from=other . /o/\n"})
    built = Built(lab, lab.build(root, build_contexts=(("other", str(other)),)))
    assert (built.read("main"), built.names("o")) == ("main", [".dockerignore", "a"])
    (other / "a").write_text("changed")
    assert Built(lab, lab.build(root, build_contexts=(("other", str(other)),))).read("o/a") == "changed"
    text = "FROM busybox\nRUN --mount=from=other,target=/m cat /m/a > /x\n"
    assert Built(lab, lab.build(root, text, build_contexts=(("other", str(other)),))).read("x") == "changed"
    stage = "FROM nowhere.invalid/x AS dep\nRUN false\nFROM scratch\nCOPY --from=dep a /\n"
    assert Built(lab, lab.build(root, stage, build_contexts=(("dep", str(other)),))).read("a") == "changed"
    with pytest.raises(PybuildError):
        lab.build(root, text, build_contexts=(("other", str(other / "missing")),))
    with pytest.raises(PybuildError, match=r"nosuch"):
        lab.build(root, "FROM scratch\nCOPY --from=nosuch.invalid/x a /\n")


def test_named_images(lab: Lab, tmp_path: Path) -> None:
    """CTX-07…09: an image in place of another, of a stage, from a layout, and scratch."""
    lab.quick("FROM busybox\nENV OTHER=1\nRUN touch /other\n", tags=("stand-in:1",))
    text = "FROM alpine:3\nRUN ls / > /ls\n"
    built = lab.quick(text, build_contexts=(("alpine:3", "docker-image://stand-in:1"),))
    assert "OTHER=1" in built.config.env
    stage = lab.quick("FROM x.invalid/y AS one\nRUN false\nFROM one\nRUN ls / > /ls\n", build_contexts=(("one", "docker-image://stand-in:1"),))  # fmt: skip
    assert stage.has("other")
    layout = tmp_path / "layout"
    lab.build(lab.context(), "FROM busybox\nENV LAYOUT=1\nRUN touch /layout\n",
              outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),))  # fmt: skip
    import json

    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    from_layout = lab.quick(text, build_contexts=(("alpine:3", f"oci-layout://{layout}@{digest}"),))
    assert "LAYOUT=1" in from_layout.config.env
    assert from_layout.has("layout")
    empty = lab.quick(
        "FROM base\nCOPY f /\n", {"f": ""}, build_contexts=(("base", "docker-image://scratch"),)
    )
    assert empty.names() == ["f"]
    assert empty.layers == 1
    with pytest.raises(PybuildError):
        lab.quick(text, build_contexts=(("alpine:3", "nonsense://x"),))


def test_named_remote_contexts(lab: Lab, site: tuple[str, Path], repository: str) -> None:
    """CTX-08."""
    url, root = site
    (root / "file").write_text("remote file")
    built = lab.quick(
        "FROM scratch\nCOPY --from=repo /a /a\nCOPY --from=web /context /web\n",
        build_contexts=(("repo", repository), ("web", f"{url}/file")),
    )
    assert (built.read("a"), built.read("web")) == ("one", "remote file")


IGNORED = [
    ("a\n", ["b.txt", "d", "e"]),
    ("*\n!d/keep.md\n", ["d"]),
    ("*.txt\n/d/\n", ["a", "e"]),
    ("**/*.md\n# comment\n\n", ["a", "b.txt", "d", "e"]),
    ("d/*\n!d/sub\nd/sub/x\n", ["a", "b.txt", "d", "e"]),
    ("[ab]*\n./e/../d\n", ["e"]),
    ("\ufeffa\n  b.txt  \n!a\n", ["a", "d", "e"]),
]


@pytest.mark.parametrize(("rules", "left"), IGNORED)
def test_ignore_rules(lab: Lab, rules: str, left: list[str]) -> None:
    """IGN-03…06."""
    files = {"a": "", "b.txt": "", "d/keep.md": "", "d/x": "", "d/sub/x": "", "d/sub/y": "", "e/f": ""}
    root = lab.context({**files, ".dockerignore": f"{rules}\nDockerfile\n.dockerignore\n"})
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /c/\n")
    built = Built(lab, lab.build(root))
    assert built.names("c") == left
    if "!d/sub" in rules:
        assert built.names("c/d") == ["sub"]
        assert built.names("c/d/sub") == ["y"]
    if "!d/keep.md" in rules:
        assert built.names("c/d") == ["keep.md"]


def test_a_source_that_is_ignored_names_the_rule(lab: Lab) -> None:
    """ERR-03: the file is there, and a rule hides it."""
    root = lab.context({"secret.key": "", "d/x": "", ".dockerignore": "# keys\n*.key\nd\n"})
    for source, rule, line in (("secret.key", "*.key", 2), ("d/x", "d", 3)):
        with pytest.raises(PybuildError, match=f'"/{source}": not found') as caught:
            lab.build(root, f"FROM scratch\n\nCOPY {source} /\n")
        assert (getattr(caught.value, "filename", ""), getattr(caught.value, "first_line", 0)) == (
            "Dockerfile",
            3,
        )
        hint = str(caught.value.hint)
        assert ".dockerignore" in hint
        assert rule in hint
        assert str(line) in hint
    with pytest.raises(PybuildError) as caught:
        lab.build(root, "FROM scratch\nRUN --mount=source=secret.key,target=/k true\n")
    assert "*.key" in str(caught.value.hint)
    with pytest.raises(PybuildError) as caught:
        lab.build(root, "FROM scratch\nCOPY really-missing /\n")
    assert ".dockerignore" not in str(caught.value.hint)


def test_bad_ignore_file(lab: Lab) -> None:
    """IGN-07."""
    for text in ("!\n", "[a\n"):
        root = lab.context({".dockerignore": text, "Dockerfile": "FROM scratch\nCOPY . /\n"})
        with pytest.raises(PybuildError) as caught:
            lab.build(root)
        assert ".dockerignore" in f"{caught.value} {caught.value.context}"
