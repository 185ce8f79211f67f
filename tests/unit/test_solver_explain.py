"""The differences between two trees of key parts, and which steps of two builds correspond."""

from __future__ import annotations

from typing import Any

import pytest

from builder.cache import keys
from builder.llb.ops import ChownOpt, Copy, ExecMeta, ExecOp, FileAction, FileOp, MkFile, Mount, UserOpt
from builder.solver.causes import Cause
from builder.solver.explain import diff, nearest
from builder.solver.filecauses import MAX_FILES
from builder.solver.steppairs import match_steps

ROOT = Mount(dest="/", input=0, output=0)
BASE = {"key": "sha256:k1", "name": "docker-image://docker.io/library/busybox:latest@sha256:aaa"}


def no_files(digest: str, position: int) -> None:
    return None


def run(
    command: str = "RUN make", inputs: tuple[dict[str, str], ...] = (BASE,), **fields: Any
) -> dict[str, Any]:
    """The parts of a RUN."""
    mounts = fields.pop("mounts", ())
    op_fields = {name: fields.pop(name) for name in ("network", "security", "secret_env") if name in fields}
    meta = ExecMeta(args=fields.pop("args", ("/bin/sh", "-c", command.removeprefix("RUN "))), **fields)
    _, parts = keys.op_digest(ExecOp(meta=meta, mounts=(ROOT, *mounts), **op_fields), None)
    return {**parts, "inputs": list(inputs), "command": command}


def copy(
    command: str = "COPY a /b",
    content: str = "sha256:c1",
    action: Any = None,
    bases: tuple[Any, ...] = (BASE,),
) -> dict[str, Any]:
    """The parts of a COPY."""
    action = action or Copy(src="/a", dest="/b")
    _, parts = keys.op_digest(
        FileOp(actions=(FileAction(action=action, input=len(bases) - 1, secondary=len(bases), output=0),)),
        None,
    )
    context = {"content": content, "name": "local://context"}
    return {**parts, "inputs": [*bases, context], "command": command}


def test_equal_parts_have_no_cause() -> None:
    assert diff(run(), run(), no_files) == ()


@pytest.mark.parametrize(
    ("before", "after", "causes"),
    [
        (run("RUN a"), run("RUN b"), [Cause("command", "", "RUN a", "RUN b")]),
        (run(env=("V=1",)), run(env=("V=2",)), [Cause("variable", "V", "1", "2")]),
        (run(env=()), run(env=("V=2",)), [Cause("variable", "V", "", "2")]),
        (run(env=("V=2",)), run(env=()), [Cause("variable", "V", "2", "")]),
        (run(env=("V=2",)), run(env=("V=",)), [Cause("variable", "V", "2", '""')]),
        (run(env=("A=1", "B=1")), run(env=("B=1", "A=1")), [Cause("option", "the order of variables")]),
        (run(env=("API_TOKEN=x",)), run(env=("API_TOKEN=y",)), [Cause("variable", "API_TOKEN")]),
        (run(cwd="/a"), run(cwd="/b"), [Cause("workdir", "", "/a", "/b")]),
        (run(), run(user="app"), [Cause("user", "", "root", "app")]),
        (run(), run(args=("/bin/bash", "-c", "make")), [Cause("shell", "", "/bin/sh -c", "/bin/bash -c")]),
        (run(), run(network="none"), [Cause("network", "", "default", "none")]),
        (run(), run(extra_hosts=(("h", "1"),)), [Cause("option", "--add-host", "none", "h")]),
        (
            run(mounts=(Mount(dest="/c", type="cache", id="x", sharing="locked"),)),
            run(mounts=(Mount(dest="/c", type="cache", id="y", sharing="locked"),)),
            [Cause("mount", "the mount at /c", "type=cache, id=x, sharing=locked", "type=cache, id=y, sharing=locked")],
        ),
        (copy(), copy("COPY a /c", action=Copy(src="/a", dest="/c")), [Cause("command", "", "COPY a /b", "COPY a /c")]),
        (copy(), copy(action=Copy(src="/a", dest="/w/b")), [Cause("value", "its destination", "/b", "/w/b")]),
        (copy(), copy(action=Copy(src="/x", dest="/b")), [Cause("value", "its source", "a", "x")]),
        (copy(), copy(action=Copy(src="/a", dest="/b", mode=0o755)), [Cause("option", "--chmod", "as it is", "0755")]),
        (
            copy(),
            copy(action=Copy(src="/a", dest="/b", owner=ChownOpt(user=UserOpt(name="app"), group=UserOpt(id=7)))),
            [Cause("option", "--chown", "root", "app:7")],
        ),
        (
            copy(action=MkFile(path="/f", data=b"1")),
            copy(action=MkFile(path="/f", data=b"2")),
            [Cause("value", "the text of /f")],
        ),
        ({**run(), "version": 0}, run(), [Cause("version")]),
        ({**run(), "platform": "linux/arm64"}, {**run(), "platform": "linux/amd64"},
         [Cause("platform", "", "linux/arm64", "linux/amd64")]),
    ],
)  # fmt: skip
def test_operation(before: dict[str, Any], after: dict[str, Any], causes: list[Cause]) -> None:
    assert list(diff(before, after, no_files)) == causes


def test_base_that_moved_and_base_that_was_replaced() -> None:
    moved = {"key": "sha256:k2", "name": "docker-image://docker.io/library/busybox:latest@sha256:bbb"}
    (cause,) = diff(run(), run(inputs=(moved,)), no_files)
    assert cause.text == "base image docker.io/library/busybox:latest moved: sha256:aaa -> sha256:bbb"
    other = {"key": "sha256:k2", "name": "docker-image://docker.io/library/alpine:3@sha256:ccc"}
    (cause,) = diff(run(), run(inputs=(other,)), no_files)
    assert cause.kind == "base"
    assert "busybox:latest@" in cause.before
    assert "alpine:3@" in cause.after


def test_what_a_step_starts_from_may_be_of_another_kind() -> None:
    """An image, a step of another place or nothing takes the place of each other."""
    step = {"key": "1", "name": "[stage-1 2/3] COPY x /x"}
    name = "docker.io/library/busybox:latest"
    (cause,) = diff(run(inputs=(step,)), run(), no_files)
    assert cause.text == f"it builds on {name} now, not on {step['name']}"
    (cause,) = diff(run(inputs=()), run(), no_files)
    assert cause.text == f"base image changed: scratch -> {name}"
    none = copy(bases=())
    assert [cause.text for cause in diff(copy(), none, no_files)] == [
        f"it builds on scratch now, not on {name}"
    ]
    assert [cause.text for cause in diff(none, copy(), no_files)] == [
        f"it builds on {name} now, not on scratch"
    ]


def test_upstream_step_is_named_after_the_steps_own_reasons() -> None:
    before = run("RUN a", inputs=({"key": "1", "name": "[2/3] COPY . ."},))
    after = run("RUN b", inputs=({"key": "2", "name": "[2/4] COPY . ."},))
    own = Cause("command", "", "RUN a", "RUN b")
    assert diff(before, after, no_files) == (own, Cause("upstream", "[2/4] COPY . ."))
    assert diff(before, after, no_files, same=lambda _at, old: old["key"] == "1") == (own,)


def test_files_added_removed_changed_and_modes() -> None:
    reg = 0o100644
    trees = {
        "sha256:c1": {"a": ("1", reg, 5), "gone": ("2", reg, 1), "x": ("3", reg, 4), "y": ("4", reg, 4)},
        "sha256:c2": {
            "a": ("9", reg, 5),
            "new": ("2", reg, 1),
            "x": ("8", 0o100755, 4),
            "y": ("7", 0o100755, 9),
        },
    }
    assert list(diff(copy(), copy(content="sha256:c2"), lambda digest, _: trees.get(digest))) == [
        Cause("file-changed", "a"),
        Cause("file-renamed", "new", "gone", "new"),
        Cause("file-mode", "x", "0644", "0755"),
        Cause("file-mode", "y", "0644", "0755"),
        Cause("file-changed", "y"),
    ]


def test_files_that_are_not_known_any_more_and_very_many() -> None:
    assert diff(copy(), copy(content="sha256:c2"), no_files) == (Cause("files"),)
    many = {f"f{number:03}": ("1", 0o100644, 1) for number in range(MAX_FILES + 7)}
    trees = {"sha256:c1": {}, "sha256:c2": many}
    found = diff(copy(), copy(content="sha256:c2"), lambda digest, _: trees.get(digest))
    assert len(found) == MAX_FILES + 1
    assert found[-1].text == "7 more files"


def test_nearest_is_the_one_with_the_fewest_differences() -> None:
    after = run(env=("A=2", "B=1"))
    earlier = [run(env=("A=1", "B=2")), run(env=("A=1", "B=1")), run("RUN other", env=("A=2", "B=9"))]
    assert nearest(diff(item, after, no_files) for item in earlier) == (Cause("variable", "A", "1", "2"),)
    assert nearest([]) == ()


def test_private_values_are_never_shown() -> None:
    (cause,) = diff(run(env=("DB_PASSWORD=hunter2",)), run(env=("DB_PASSWORD=hunter3",)), no_files)
    assert "hunter" not in f"{cause.text} {cause.to_json()}"
    (cause,) = diff(run(env=("U=https://u:p1@h/",)), run(env=("U=https://u:p1@h/x",)), no_files)
    assert "p1" not in cause.text


def test_causes_survive_the_history() -> None:
    cause = Cause("variable", "V", "1", "2")
    assert Cause.from_json(cause.to_json()) == cause
    assert Cause.from_json({"kind": "from the future"}) is None


@pytest.mark.parametrize(
    ("now", "earlier", "pairs"),
    [
        (["[1/2] RUN a", "[2/2] RUN b"], ["[1/2] RUN a", "[2/2] RUN b"], {0: 0, 1: 1}),
        (["[1/3] RUN a", "[2/3] RUN new", "[3/3] RUN b"], ["[1/2] RUN a", "[2/2] RUN b"], {0: 0, 2: 1}),
        (["[1/2] RUN a", "[2/2] RUN b2"], ["[1/2] RUN a", "[2/2] RUN b"], {0: 0, 1: 1}),
        (["[1/2] RUN a", "[2/2] COPY x y"], ["[1/2] RUN a", "[2/2] RUN b"], {0: 0}),
        (["[x 1/1] RUN a", "[y 1/1] RUN a"], ["[y 1/1] RUN a"], {1: 0}),
        (["RUN a"], [], {}),
    ],
)
def test_match_steps(now: list[str], earlier: list[str], pairs: dict[int, int]) -> None:
    assert match_steps(now, earlier) == pairs
