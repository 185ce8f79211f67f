"""When steps run again and when they do not (CKY, CHK and SLV rows), and what failed builds leave behind."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.errors import Cancelled, PybuildError
from builder.solver.cancel import Cancel
from tests.support.buildlab import Built, Lab

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


def ran(lab: Lab) -> list[str]:
    """The steps that ran, without their numbers."""
    return sorted(name.partition("] ")[2] for name in lab.steps_run())


TEXT = "FROM busybox\nARG USED=1\nCOPY src /src\nRUN cat /src/a; echo $USED > /out\n"


def test_what_does_not_run_a_copy_again(lab: Lab) -> None:
    """CKY-15, CPY-26."""
    root = lab.context({"src/a": "1", "src/b": "1", "other": "1", ".dockerignore": "src/b\n"})
    lab.build(root, TEXT)
    assert ran(lab) == ["COPY src /src", "RUN cat /src/a; echo 1 > /out"]
    first = lab.build(root).image_id

    def unchanged(text: str = TEXT, **more: object) -> None:
        again = lab.build(root, text, **more)
        assert ran(lab) == []
        assert again.image_id == first

    os.utime(root / "src/a", (1, 1))
    unchanged()
    (root / "src/b").write_text("ignored")
    unchanged()
    (root / "other").write_text("2")
    (root / "new").write_text("2")
    unchanged()
    os.chown(root / "src/a", 5, 5)
    unchanged()
    unchanged("# comment\n\n" + TEXT.replace("COPY", "# another\ncopy"))
    unchanged(build_args=(("UNKNOWN", "1"),))
    (root / "src").rename(root / "src2")
    (root / "deep").mkdir()
    (root / "src2").rename(root / "deep/src")
    lab.write(root, {".dockerignore": "deep/src/b\n"})
    lab.build(root, TEXT.replace("COPY src", "COPY deep/src"))
    assert ran(lab) == []


def test_what_does(lab: Lab) -> None:
    root = lab.context({"src/a": "1"})
    lab.build(root, TEXT)
    (root / "src/a").chmod(0o600)
    lab.build(root)
    assert len(ran(lab)) == 2
    (root / "src/a").write_text("2")
    lab.build(root)
    assert len(ran(lab)) == 2
    lab.build(root, build_args=(("USED", "2"),))
    assert ran(lab) == ["RUN cat /src/a; echo 2 > /out"] or len(ran(lab)) == 1
    lab.build(root, TEXT.replace("ARG", "ENV X=1\nARG"))
    assert len(ran(lab)) == 1, "an ENV concerns RUN only"
    lab.build(root, TEXT.replace("cat ", "cat  "))
    assert len(ran(lab)) == 1
    lab.build(root, TEXT.replace("/src\n", "/src2\n").replace("/src/a", "/src2/a"))
    assert len(ran(lab)) == 2
    (root / "src/empty").mkdir()
    lab.build(root, TEXT)
    assert len(ran(lab)) == 2
    (root / "src/a").unlink()
    (root / "src/a").symlink_to("empty")
    lab.build(root, TEXT.replace("cat /src/a;", ""))
    assert len(ran(lab)) == 2


def test_names_count_whatever_the_pattern(lab: Lab) -> None:
    """CHK-06."""
    root = lab.context({"a1": "same", "Dockerfile": "FROM scratch\nCOPY a* /d/\n"})
    assert Built(lab, lab.build(root)).names("d") == ["a1"]
    (root / "a1").rename(root / "a2")
    assert Built(lab, lab.build(root)).names("d") == ["a2"]
    text = "FROM busybox AS s\nRUN mkdir /o && echo 1 > /o/{0}\nFROM scratch\nCOPY --from=s /o/a* /d/\n"
    assert lab.quick(text.format("a1")).names("d") == ["a1"]
    assert lab.quick(text.format("a2")).names("d") == ["a2"]


def test_bytes_that_are_no_text(lab: Lab) -> None:
    """File names are bytes; what is printed and published is UTF-8."""
    root = lab.context(
        {
            "Dockerfile": b"# caf\xe9\nFROM busybox\nENV A=\xe9\nCOPY d /d\nRUN ls /d | wc -l > /n; echo \xe9 > /o\n"
        }
    )
    os.mkdir(root / "d")
    with open(os.fsencode(root) + b"/d/caf\xe9", "wb"):
        pass
    built = Built(lab, lab.build(root))
    assert built.names("d") == ["caf\udce9"]
    assert built.read("n") == "1\n"
    assert "A=\ufffd" in built.config.env
    assert lab.build(root).image_id == built.id


def test_base_moved_to_the_same_and_to_other_layers(lab: Lab) -> None:
    """CKY-14."""
    images.tag(lab.store, "busybox", "base:1")
    text = "FROM base:1\nRUN echo based\n"
    lab.quick(text)
    lab.quick("FROM busybox\nENV ONLY=config\n", tags=("base:1",))
    lab.quick(text)
    assert len(ran(lab)) == 1, "the environment is another"
    lab.quick("FROM busybox\nLABEL only=label\n", tags=("base:1",))
    built = lab.quick(text)
    assert ran(lab) == []
    assert built.json["config"]["Labels"] == {"only": "label"}
    lab.quick("FROM busybox\nRUN touch /more\n", tags=("base:1",))
    lab.quick(text)
    assert len(ran(lab)) == 1


def test_early_cut_off(lab: Lab) -> None:
    """A step that ran again with the same outcome lets those after it be."""
    text = "FROM busybox AS make\nRUN echo {} > /dev/null; echo same > /made\nFROM busybox\nCOPY --from=make /made /\nRUN cat /made > /copy\n"
    lab.quick(text.format(1))
    first = lab.quick(text.format(1))
    second = lab.quick(text.format(2))
    assert ran(lab) == ["RUN echo 2 > /dev/null; echo same > /made"]
    assert second.id == first.id
    chained = "FROM busybox\nRUN echo same > /x\nCOPY f /f\nRUN echo {} > /dev/null\nRUN touch /after\n"
    lab.quick(chained.format(1), {"f": "1"})
    lab.quick(chained.format(2), {"f": "1"})
    assert "RUN echo 2 > /dev/null" in ran(lab)


def test_no_cache_and_its_filter(lab: Lab) -> None:
    """CKY-11."""
    text = (
        "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /1\nFROM busybox AS two\n"
        "RUN cat /proc/sys/kernel/random/uuid > /2\nFROM busybox\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
    )
    root = lab.context()
    first = Built(lab, lab.build(root, text))
    only = Built(lab, lab.build(root, no_cache_filter=("TWO",)))
    assert only.read("1") == first.read("1")
    assert only.read("2") != first.read("2")
    every = Built(lab, lab.build(root, no_cache=True))
    assert every.read("1") != first.read("1")
    assert every.read("2") != only.read("2")
    after = Built(lab, lab.build(root))
    assert after.id == every.id, "what ran without cache is what is used afterwards"


def test_equal_steps_of_one_build_run_once(lab: Lab) -> None:
    """SLV-04."""
    stage = "FROM busybox AS {}\nRUN cat /proc/sys/kernel/random/uuid > /id\n"
    built = lab.quick(
        stage.format("a") + stage.format("b") + "FROM scratch\nCOPY --from=a /id /a\nCOPY --from=b /id /b\n"
    )
    assert built.read("a") == built.read("b")


def test_pruned_results_are_made_again(lab: Lab) -> None:
    """SLV-06."""
    root = lab.context({"f": "1"})
    text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY f /\n"
    first = Built(lab, lab.build(root, text)).id
    lab.store.prune(all=True)
    assert Built(lab, lab.build(root)).read("id")
    if first in {str(image.id) for image in lab.store.images.list()}:
        images.remove(lab.store, str(first), force=True)
    lab.store.prune(all=True)
    assert Built(lab, lab.build(root)).read("id")


def leftovers(lab: Lab) -> dict[str, object]:
    """What a build may leave behind that nobody wants."""
    tmp = lab.store.root / "tmp"
    kept = sorted(p.name for p in tmp.iterdir() if not p.name.startswith(("lock", "own-", "hold")))
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if str(lab.store.root) in line
    ]
    active = lab.store.db.all("SELECT id FROM snapshots WHERE kind='active'")
    known = {info.id for info in lab.store.snapshots.list()}
    strays = [p.name for p in (lab.store.root / "snapshots").iterdir() if p.name not in known]
    return {"tmp": kept, "mounts": mounts, "active": active, "strays": strays}


NOTHING: dict[str, object] = {"tmp": [], "mounts": [], "active": [], "strays": []}

FAILING = [
    "FROM busybox\nRUN touch /x && false\n",
    "FROM busybox\nRUN --mount=target=/c --mount=type=cache,target=/k --mount=type=tmpfs,target=/t false\n",
    "FROM busybox\nCOPY missing /\n",
    "FROM busybox\nCOPY --chown=ghost f /\n",
    "FROM busybox\nCOPY f /f\nCOPY d /f\n",
    "FROM busybox AS a\nRUN sleep 30\nFROM busybox AS b\nRUN sleep 0.2; false\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n",
    "FROM busybox\nADD http://127.0.0.1:1/x /\n",
    "FROM busybox\nUSER ghost\nRUN true\n",
    "FROM busybox\nWORKDIR /f/x\nRUN true\nCOPY f /g\nWORKDIR /g/x\n",
    "FROM nowhere.invalid/x\nRUN true\n",
    "FROM busybox\nRUN --mount=from=nosuch.invalid/x,target=/m true\n",
    "FROM busybox\nRUN --mount=source=missing,target=/m true\n",
    "FROM busybox\nRUN --mount=type=secret,id=no,required true\n",
]


@pytest.mark.parametrize("text", FAILING)
def test_failed_builds_leave_nothing(lab: Lab, text: str) -> None:
    """EXE-25, LCS-05."""
    root = lab.context({"f": "", "d/x": ""})
    began = time.monotonic()
    with pytest.raises(PybuildError) as caught:
        lab.build(root, text)
    assert time.monotonic() - began < 10
    assert leftovers(lab) == NOTHING
    assert "Traceback" not in str(caught.value)
    assert getattr(caught.value, "filename", "Dockerfile") == "Dockerfile"
    assert getattr(caught.value, "first_line", 1) >= 1, caught.value


def test_a_cancelled_build_stops_and_leaves_nothing(lab: Lab) -> None:
    """EXE-26."""
    from builder.build import BuildRequest, build
    from tests.support.solving import Watcher

    root = lab.context({"Dockerfile": "FROM busybox\nRUN sleep 77\n"})
    cancel = Cancel()
    threading.Timer(0.5, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        request = BuildRequest(context=str(root), network="none")
        build(lab.store, request, on_event=Watcher(), machine=lab._machine.machine(), cancel=cancel)
    assert time.monotonic() - began < 5
    assert leftovers(lab) == NOTHING
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 77" not in left


def test_a_failed_step_is_tried_again(lab: Lab) -> None:
    """SLV-07: what went before stays, the failure is not kept."""
    text = "FROM busybox\nRUN touch /before\nRUN --mount=type=cache,target=/c,id=retry test -e /c/x || { touch /c/x; false; }\n"
    with pytest.raises(PybuildError):
        lab.quick(text)
    lab.quick(text)
    assert ran(lab) == [text.splitlines()[2]] or len(ran(lab)) == 1
