"""Where the mounts of a RUN go: rows MNT-17 to MNT-19."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import PybuildError, SolveError
from builder.solver.types import Secret
from tests.support.buildlab import Lab
from tests.support.dockerfiles import converted, execs
from tests.support.rows import row

root = pytest.mark.root


@root
@row("MNT-17")
def test_nested_and_repeated_targets(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN --mount=source=in,target=/t/a/b --mount=type=tmpfs,target=/t"
        " --mount=type=tmpfs,target=/d --mount=source=in,target=/d ls /t/a/b /d > /o\n",
        {"in/f": ""},
    )
    assert built.read("o").split().count("f") == 2
    assert built.layer_names() == ["o"]
    (op,) = execs(converted("FROM a\nRUN --mount=target=/b/c --mount=target=/a --mount=target=/b x\n"))
    assert [mount.dest for mount in op.mounts] == ["/", "/a", "/b", "/b/c"]


@root
@row("MNT-17")
def test_mounts_over_generated_files_and_in_read_only_ones(lab: Lab) -> None:
    files = {"in/f": "", "in/sub/g": ""}
    step = "FROM busybox\nRUN --mount=source=in,target=/etc --mount=type=cache,target=/etc/sub ls /etc > /o\n"
    built = lab.quick(step, files)
    assert (built.read("o"), "passwd" in built.names("etc")) == ("f\nsub\n", True)
    for flags, hint in (
        ("--mount=source=in,target=/m --mount=type=tmpfs,target=/m/new", "/m/new is below a read-only mount"),
        (
            "--mount=source=in,target=/etc/passwd",
            "is /etc/passwd a file in the image and the source a directory",
        ),
    ):
        with pytest.raises(PybuildError) as caught:
            lab.quick(f"FROM busybox\nRUN {flags} true\n", files)
        assert str(caught.value.hint).startswith(hint)


@root
@row("MNT-18")
def test_mount_points_leave_no_trace(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN touch /etc/new /root/new && touch -d '2001-02-03 04:05:06' /etc /root\n"
        "RUN --mount=source=f,target=/etc/stub --mount=type=tmpfs,target=/root/x/y --mount=type=cache,target=/new/dir"
        " --mount=type=secret,id=s,target=/root/s true\n",
        {"f": ""},
        secrets=(Secret(id="s", data=b"x"),),
    )
    assert built.layer_names() == []
    assert int(built.stat("etc").st_mtime) == int(built.stat("root").st_mtime)
    assert int(built.stat("etc").st_mtime) < 1_000_000_000
    assert not any(built.has(path) for path in ("etc/stub", "root/x", "root/s", "new"))
    kept = lab.quick("FROM busybox\nRUN --mount=type=tmpfs,target=/k/t touch /k/own\n")
    assert kept.layer_names() == ["k", "k/own"], "what the step made beside a mount point stays"


@root
@row("MNT-19")
def test_a_link_does_not_lead_out_of_a_cache(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("outside")
    plant = (
        "FROM busybox\nRUN --mount=type=cache,id=mnt19,target=/c mkdir -p /c/in && echo in > /c/in/f"
        f" && ln -sfn {tmp_path}/outside /c/abs && ln -sfn ../../../../../../../../../../..{tmp_path}/outside /c/rel"
        " && ln -sfn in /c/fine && ln -sfn /in /c/own && ln -sfn me /c/me\n"
    )
    lab.quick(plant)
    use = "FROM busybox\nRUN --mount=type=cache,id=mnt19,target=/x,source={0} cat /x/f > /o # {0}\n"
    for name in ("fine", "own"):
        assert lab.quick(use.format(name)).read("o") == "in\n", "a link's root is that of the cache"
    missing = "not found in the cache"
    for name, why in (
        ("abs", missing),
        ("rel", missing),
        ("none", missing),
        ("me", "too many symbolic links"),
    ):
        with pytest.raises(SolveError) as caught:
            lab.quick(use.format(name))
        error = caught.value
        assert (error.code, error.message) == (
            "cache-source-missing",
            f'cache mount /x: source "{name}": {why}',
        )
        assert (error.filename, error.first_line) == ("Dockerfile", 2)
        assert (error.hint or "").startswith("source= is a path inside the cache; a link in it is followed")
    assert (tmp_path / "outside/f").read_text() == "outside"


@root
@pytest.mark.parametrize("more", ["", ",rw"])
def test_a_bind_source_that_is_not_there(lab: Lab, more: str) -> None:
    """Said as for a COPY, whichever side finds out (CHK-08)."""
    with pytest.raises(PybuildError) as caught:
        lab.quick(
            f"FROM busybox AS a\nFROM busybox\nRUN --mount=from=a,source=/no/such,target=/x{more} true\n"
        )
    assert caught.value.message.endswith('"/no/such": not found')
    assert "failed to compute cache key" in caught.value.message and "/x" in str(caught.value.hint)
