"""What a wrong word must not do: remove, hang, be ignored, or end in a traceback."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

import pybuild
from builder.cache.mounttransfer import import_mount
from builder.cache.store import Store
from builder.cache.tarfields import BadArchive
from builder.errors import GraphError, UsageError
from builder.llb.definition import check_op
from builder.llb.ops import MergeOp
from builder.solver.ops.running import _deadline
from cli import main
from cli.commands import GROUPS
from cli.help import group_help


def run(root: Path, *argv: str) -> int:
    return main.main(["--root", str(root), *argv])


@pytest.mark.parametrize(
    "flag", ["--keep-storage=x", "--filter=x", "--keep-duration=x", "--free-storage=200%"]
)
def test_prune_reads_its_flags_before_it_removes_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with Store.open(tmp_path / "root") as store:
        volume = store.volumes.create()
    assert run(tmp_path / "root", "prune", "--force", "--volumes", "--all", flag) == 2
    with Store.open(tmp_path / "root") as store:
        assert [row.name for row in store.volumes.list()] == [volume.name]
    assert "Deleted" not in capsys.readouterr().out


def test_a_filter_leaves_what_is_no_build_cache(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        store.volumes.create()
    words = ("prune", "--force", "--volumes", "--filter=type==regular")
    assert run(tmp_path / "root", *words) == 0
    with Store.open(tmp_path / "root") as store:
        assert len(store.volumes.list()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--parallel=-1", "."),
        ("build", "--retry=-1", "."),
        ("du", "--filter=x"),
        ("debug", "dump-llb", "--dot", "--format=pb", "."),
    ],
)
def test_wrong_usage_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(tmp_path / "root", *words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_config_file_that_nests_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text("a=" + "[" * 5000 + "]" * 5000)
    monkeypatch.setenv("PYBUILD_CONFIG", str(tmp_path / "config.toml"))
    assert run(tmp_path / "root", "du") == 2
    assert "nested too deeply" in capsys.readouterr().err


def test_the_help_of_a_group_names_the_groups_below_it() -> None:
    text = group_help("builder")
    assert all(f"  {inner.split()[1]}" in text for inner in GROUPS if inner.startswith("builder "))


def test_completion_knows_mounts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(tmp_path / "root") as store, store.cache_mounts.acquire("/apt", "shared"):
        pass
    assert run(tmp_path / "root", "__complete", "--", "builder", "mounts", "rm", "") == 0
    assert "/apt" in capsys.readouterr().out.split()


def test_a_mount_import_says_what_is_no_archive_and_leaves_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        with pytest.raises(BadArchive, match="cache mount '/m': not a tar archive"):
            import_mount(store, "m", io.BytesIO(b"root:x:0:0:root:/root:/bin/sh\n" * 100))
        assert store.cache_mounts.list() == ()
    assert os.listdir(tmp_path / "root" / "tmp") == []


def test_forced_imports_of_one_mount_at_once_never_ask_for_force(tmp_path: Path) -> None:
    archive = b"".join(_archive())
    failed: list[str] = []
    with Store.open(tmp_path / "root") as store:

        def once() -> None:
            try:
                import_mount(store, "m", io.BytesIO(archive), replace=True)
            except pybuild.PybuildError as error:
                failed.append(f"{error.code} {error.hint}")

        threads = [threading.Thread(target=once) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.cache_mounts.list()) == 1
    assert not [text for text in failed if not text.startswith("cache-mount-in-use")]


def _archive() -> list[bytes]:
    import tarfile

    info = tarfile.TarInfo("file")
    return [info.tobuf(), bytes(1024)]


def test_a_merge_takes_no_input_from_the_end() -> None:
    with pytest.raises(GraphError, match="invalid input position -1 of 2"):
        check_op(MergeOp(inputs=(0, -1)), 2)


def test_a_limit_beyond_all_clocks_is_no_limit() -> None:
    class Handle:
        def kill(self) -> None:
            raise AssertionError("killed")

    before = threading.excepthook
    seen: list[object] = []
    threading.excepthook = seen.append
    try:
        with _deadline(Handle(), 1e18) as over:  # type: ignore[arg-type]
            assert not over.wait(0.05)
    finally:
        threading.excepthook = before
    assert not seen


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("keep_goin", True, r"unknown option keep_goin \(did you mean keep_going\?\)"),
        ("retry", -1, "retry must be a number that is not negative"),
        ("retry", 1.5, "retry must be a whole number"),
        ("step_timeout", "10m", "step_timeout must be a number"),
        ("build_id", "x" * 5000, "build_id must be printable text of at most 128"),
        ("build_id", "\x1b[31m", "build_id must be printable text"),
        ("max_parallelism", None, "max_parallelism must be a number"),
        ("labels", ["x"], r"labels must be a mapping of names to text, not \['x'\]"),
        ("build_args", {"A": None}, r"build_args\['A'\] must be text, not None"),
        ("secrets", {"t": 54321}, r"secrets\['t'\] must be bytes or text, not of type int$"),
        ("secrets", ["t=54321"], r"secrets must be a mapping of names to bytes or text, not of type list$"),
        ("build_contexts", {"n": 5}, r"build_contexts\['n'\] must be a path, a source, or"),
        ("tags", None, "tags must be a list, not None"),
        ("tags", [None], "each of tags must be text, not None"),
        ("no_cache", 5.5, "no_cache must be a list, not 5.5"),
        ("dockerfile", 5, "dockerfile must be a path, or the text as bytes, not 5"),
        ("squash", "no", "squash must be True or False, not 'no'"),
    ],
)
def test_the_library_hears_every_option(option: str, value: object, message: str) -> None:
    from pybuild._build import request_of

    with pytest.raises(UsageError, match=message):
        request_of(".", {option: value}, pybuild.RegistryConfig)  # type: ignore[misc]


@pytest.mark.parametrize("context", [None, 5, {5: "x"}, {"f": 5}, {"f": ("x", "0644")}, ["f"]])
def test_the_library_says_which_context_it_takes(context: object) -> None:
    from pybuild._build import request_of

    with pytest.raises(UsageError, match=r"context.* must be "):
        request_of(context, {}, pybuild.RegistryConfig)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("envv", {}, r"unknown option envv \(did you mean env\?\)"),
        ("env", ["A=1"], r"env must be a mapping of names to text, not \['A=1'\]"),
        ("ports", {80: "x"}, r"ports\[80\] must be a port, not 'x'"),
        ("volumes", "a:/b", "volumes is a list, not one text"),
        ("user", 5, "user must be text, not 5"),
    ],
)
def test_the_library_says_which_container_options_it_takes(option: str, value: object, message: str) -> None:
    from pybuild._run_options import fields

    with pytest.raises(UsageError, match=message):
        fields({option: value})  # type: ignore[misc]


def test_the_library_takes_source_policies() -> None:
    from pybuild._build import request_of

    rule = b'{"rules":[{"action":"DENY","selector":{"identifier":"docker-image://*"}}]}'
    request = request_of(".", {"source_policies": [rule]}, pybuild.RegistryConfig)
    assert request.source_policies[0].judge("docker-image://docker.io/library/x:latest", {}).reason
