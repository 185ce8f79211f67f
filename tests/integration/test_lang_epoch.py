"""SOURCE_DATE_EPOCH from remote sources (rows EPO-02…04)."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.frontend.errors import BadOption
from tests.integration.test_git_source import Server
from tests.support.buildlab import Built, Lab
from tests.support.web import Handler, serving

pytestmark = pytest.mark.root

COMMITTED, MODIFIED, MEMBER = 1_500_000_000, 1_577_836_800, 1_400_000_000
DOCKERFILE = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY f /\nLABEL when=$SOURCE_DATE_EPOCH\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def git(tmp_path: Path) -> Iterator[Server]:
    work = tmp_path / "repos/app.git"
    work.mkdir(parents=True)
    (work / "Dockerfile").write_text(DOCKERFILE)
    (work / "f").write_text("F")
    env = {
        **os.environ,
        "GIT_AUTHOR_DATE": "@1 +0000",
        "GIT_COMMITTER_DATE": f"@{COMMITTED} +0000",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    name = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*name, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(work), *words], check=True, env=env)
    server = Server(tmp_path / "repos")
    yield server
    server.close()


@pytest.fixture
def site() -> Iterator[str]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, when in (("f", MEMBER), ("Dockerfile", 5)):
            data = (DOCKERFILE if name == "Dockerfile" else "F").encode()
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), when
            tar.addfile(info, io.BytesIO(data))

    class Dated(Handler):
        def do_GET(self) -> None:
            data = archive.getvalue() if self.path == "/a.tar.gz" else b"text"
            dated = {"Last_Modified": "Wed, 01 Jan 2020 00:00:00 GMT"} if self.path == "/dated" else {}
            self.answer(data, **dated)

        do_HEAD = do_GET

    with serving(Dated) as url:
        yield url


def created(lab: Lab, context: Path | str, text: str | None = None, **more: object) -> tuple[str, str]:
    """What the history's last entry and the label say."""
    built = Built(lab, lab.build(context, text, **more))
    return str(built.config.history[-1].created), dict(built.config.labels).get("when", "")


def test_the_commit_of_a_git_context(lab: Lab, git: Server) -> None:
    url = git.url("app.git")
    found = created(lab, url, build_args=(("SOURCE_DATE_EPOCH", "context"),))
    assert found == ("2017-07-14T02:40:00Z", str(COMMITTED))
    built = Built(lab, lab.build(url, build_args=(("SOURCE_DATE_EPOCH", "1"),)))
    assert built.config.history[-1].created == "1970-01-01T00:00:01Z"


def test_files_of_a_git_context_are_as_old_as_the_commit_epo_04(lab: Lab, git: Server) -> None:
    late = str(COMMITTED + 1000)
    built = Built(lab, lab.build(git.url("app.git"), build_args=(("SOURCE_DATE_EPOCH", late),)))
    assert int(built.stat("f").st_mtime) == COMMITTED


def test_the_times_of_an_archive_and_of_a_directory(lab: Lab, site: str) -> None:
    args = (("SOURCE_DATE_EPOCH", "context"),)
    assert created(lab, f"{site}/a.tar.gz", build_args=args)[1] == str(MEMBER)
    stamp, label = created(lab, lab.context({"f": "F"}), DOCKERFILE, build_args=args)
    assert label == ""
    assert stamp > "2020"


def test_named_contexts(lab: Lab, git: Server, site: str, tmp_path: Path) -> None:
    for value, expected in (
        (git.url("app.git", "#main"), COMMITTED),
        (f"{site}/dated", MODIFIED),
        (f"{site}/a.tar.gz", MEMBER),
        (str(tmp_path), None),
    ):
        found = created(
            lab,
            lab.context({"f": "F"}),
            DOCKERFILE,
            build_args=(("SOURCE_DATE_EPOCH", "other"),),
            build_contexts=(("other", value),),
        )
        assert found[1] == ("" if expected is None else str(expected))


def test_a_stage_that_is_only_a_source(lab: Lab, site: str) -> None:
    text = f"ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {site}/dated /\n{DOCKERFILE}"
    context = lab.context({"f": "F"})
    assert created(lab, context, text) == ("2020-01-01T00:00:00Z", str(MODIFIED))
    assert created(lab, context) == ("2020-01-01T00:00:00Z", str(MODIFIED))
    with pytest.raises(BadOption, match="must contain exactly one remote ADD"):
        lab.build(context, text.replace(f"ADD {site}/dated /", "ARG X"))
    with pytest.raises(BadOption, match="invalid SOURCE_DATE_EPOCH: sometime"):
        lab.build(context, text.replace("EPOCH=src", "EPOCH=sometime"))
