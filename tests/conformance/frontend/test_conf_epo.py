"""SOURCE_DATE_EPOCH (EPO rows)."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from builder.errors import PybuildError
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import FakeResolver, converted, execs
from tests.support.rows import row
from tests.support.web import Handler, serving

NAME = "SOURCE_DATE_EPOCH"
COMMITTED = 1_323_785_716  # 2011-12-13T14:15:16Z, as the repository of these tests says
root_only = pytest.mark.root


def epoch(text, resolver=None, value=None):
    return converted(text, resolver, build_args=((NAME, value),) if value is not None else ()).epoch


@row("EPO-01")
def test_where_it_comes_from() -> None:
    assert epoch("FROM a\n", value="12") == 12
    assert epoch(f"ARG {NAME}=34\nFROM a\n") == 34
    assert epoch(f"ARG {NAME}=34\nFROM a\n", value="12") == 12
    assert epoch(f"ARG {NAME}=34\nFROM a\n", value="") is None
    assert epoch(f"FROM a\nARG {NAME}=34\n") is None
    assert epoch("FROM a\n") is None


@row("EPO-01")
@root_only
def test_what_it_is_used_for(lab: Lab) -> None:
    built = lab.quick("FROM scratch\nWORKDIR /w\nCOPY f /f\n", {"f": ""}, build_args=((NAME, "1000000000"),))
    assert {entry.created[:19] for entry in built.config.history if entry.created} == {"2001-09-09T01:46:40"}
    assert built.json["created"].startswith("2001-09-09T01:46:40")
    assert built.stat("w").st_mtime == 1_000_000_000


@row("EPO-02")
@pytest.mark.parametrize("value", ["-1", "12.5", "yesterday", "0x10"])
def test_bad_values(value: str) -> None:
    with pytest.raises(PybuildError) as caught:
        epoch("FROM a\n", value=value)
    assert caught.value.message == f"invalid SOURCE_DATE_EPOCH: {value}"


@row("EPO-02")
@root_only
def test_by_name(lab: Lab, site: tuple[str, Path], repository: tuple[str, str]) -> None:
    url, root = site
    git = f"{repository[0]}#v1"
    (root / "dated").write_text("x")
    os.utime(root / "dated", (1_400_000_000, 1_400_000_000))
    local = lab.context({"f": ""})

    def made(value: str, context: Path | str | None = None, text: str = "FROM scratch\nLABEL a=b\n") -> str:
        more = {"build_contexts": (("git", git), ("web", f"{url}/dated"), ("here", str(local)))}
        built = Built(
            lab,
            lab.build(
                context or lab.context(),
                None,
                dockerfile_data=text.encode(),
                build_args=((NAME, value),),
                **more,
            ),
        )
        return str(built.json["created"])[:19]

    assert made("context", git) == "2011-12-13T14:15:16"
    assert made("git") == "2011-12-13T14:15:16"
    assert made("web") == "2014-05-13T16:53:20"
    stage = f"FROM scratch AS src\nADD {git} /\nFROM scratch\nLABEL a=b\n"
    assert made("src", text=stage) == "2011-12-13T14:15:16"
    now = made("")[:2]
    for unset in ("here", "context"):
        assert made(unset)[:2] == now
    with pytest.raises(PybuildError, match="invalid SOURCE_DATE_EPOCH: nosuch"):
        made("nosuch")


@row("EPO-02")
@root_only
def test_the_newest_file_of_a_tar(lab: Lab, site: tuple[str, Path]) -> None:
    """Where the server gives no date."""
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, when, kind in (("a", 1_300_000_000, tarfile.REGTYPE), ("b", 1_200_000_000, tarfile.REGTYPE),
                                 ("d", 1_600_000_000, tarfile.DIRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.mtime, info.type = when, kind
            tar.addfile(info)

    class Undated(Handler):
        def do_GET(self) -> None:
            self.answer(out.getvalue())

        do_HEAD = do_GET

    with serving(Undated) as url:
        built = lab.quick(
            "FROM scratch\nLABEL a=b\n",
            build_args=((NAME, "web"),),
            build_contexts=(("web", f"{url}/a.tar"),),
        )
    assert built.json["created"].startswith("2011-03-13T07:06:40")


@row("EPO-03")
@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("FROM a AS src\nADD https://h/f /\n", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("FROM scratch AS src\n", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("FROM scratch AS src\nADD f /\n", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("FROM scratch AS src\nADD https://h/f https://h/g /d/\n",
         "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("FROM scratch AS src\nADD https://h/f /\nRUN x\n",
         "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN instruction"),
    ],
)  # fmt: skip
def test_stages_that_are_no_source(stage: str, message: str) -> None:
    with pytest.raises(PybuildError) as caught:
        epoch(f"{stage}FROM a\n", value="src")
    assert caught.value.message == message


@row("EPO-03")
def test_a_stage_that_is_a_source() -> None:
    resolver = FakeResolver(epochs={"https://h/1.tar": 77})
    text = "FROM scratch AS src\nARG v=1\nADD https://h/$v.tar /\nFROM a\n"
    assert epoch(text, resolver, "src") == 77


@row("EPO-04")
def test_stages_see_the_number() -> None:
    resolver = FakeResolver(epochs={"https://h/f": 77})
    text = f"FROM scratch AS src\nADD https://h/f /\nFROM a\nARG {NAME}\nRUN x\n"
    (op,) = execs(converted(text, resolver, build_args=((NAME, "src"),)))
    assert f"{NAME}=77" in op.meta.env


@row("EPO-04")
@root_only
def test_files_of_a_repository_are_as_old_as_the_commit(lab: Lab, repository: tuple[str, str]) -> None:
    text = b"FROM scratch\nCOPY a /dated\n"
    args = ((NAME, str(COMMITTED + 5)),)
    built = Built(lab, lab.build(f"{repository[0]}#v1", dockerfile_data=text, build_args=args))
    assert built.stat("dated").st_mtime == COMMITTED


@row("EPO-05")
@root_only
def test_the_command_passes_it_on(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nARG {NAME}\nLABEL at=${NAME}\n")

    def label(tag: str, *words: str) -> str:
        command.build(tmp_path, f"--tag={tag}", *words, env={NAME: "1000000000"})
        return str(command.inspect(tag)["Config"]["Labels"]["at"])

    assert label("epo:env") == "1000000000"
    assert label("epo:own", f"--build-arg={NAME}=5") == "5"
