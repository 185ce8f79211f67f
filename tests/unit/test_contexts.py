"""Finding the context and its Dockerfile (CTX, BLD-12…27, IGN-01, CVE-2022-4122)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from builder.errors import InvalidValue, PybuildError, SourceUnavailable, UsageError
from builder.frontend.dockerignore import IgnoreMatcher
from builder.sources.contexts import PreparedContext, prepare_context
from builder.sources.named import normal_name, parse_named
from tests.support.ministore import MiniStore

Prepare = Callable[..., PreparedContext]


@pytest.fixture
def store(tmp_path: Path) -> MiniStore:
    return MiniStore(tmp_path / "state")


@pytest.fixture
def prepare(store: MiniStore, request: pytest.FixtureRequest) -> Prepare:
    def call(spec: str | Path, *, stdin: bytes | BinaryIO | None = None, **more: object) -> PreparedContext:
        stream = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        prepared = prepare_context(store, str(spec), compile_ignore=IgnoreMatcher.parse, stdin=stream, **more)  # type: ignore[arg-type]
        request.addfinalizer(prepared.cleanup)
        return prepared

    return call


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "work" / "ctx"
    root.mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "data").write_text("data")
    monkeypatch.chdir(root.parent)
    return root


def names(prepared: PreparedContext) -> list[str]:
    assert prepared.main is not None
    return [path for path, _ in prepared.main.walk()]


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class TestDirectory:
    def test_default_dockerfile(self, ctx: Path, prepare: Prepare) -> None:
        prepared = prepare(ctx)
        assert prepared.dockerfile == b"FROM scratch\n"
        assert prepared.dockerfile_name == "Dockerfile"
        assert prepared.dockerfile_path == ctx / "Dockerfile"
        assert names(prepared) == ["Dockerfile", "data"]

    def test_lower_case_fallback(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "Dockerfile").rename(ctx / "dockerfile")
        assert prepare(ctx).dockerfile_name == "dockerfile"

    def test_no_fallback_for_another_name(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "other").write_text("x")
        with pytest.raises(SourceUnavailable, match="open Other: no such file or directory"):
            prepare(ctx, dockerfile="ctx/Other")

    def test_missing_dockerfile_says_where_and_what_to_try(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "Dockerfile").rename(ctx / "Dockerfile.prod")
        with pytest.raises(SourceUnavailable) as caught:
            prepare(ctx)
        assert caught.value.message == "failed to read dockerfile: open Dockerfile: no such file or directory"
        assert caught.value.code == "dockerfile-not-found"
        assert str(ctx / "Dockerfile") in (caught.value.hint or "")
        assert "Dockerfile.prod" in (caught.value.hint or "")

    def test_missing_context(self, ctx: Path, prepare: Prepare) -> None:
        with pytest.raises(SourceUnavailable, match='unable to prepare context: path "nope" not found'):
            prepare("nope")

    def test_file_as_context(self, ctx: Path, prepare: Prepare) -> None:
        with pytest.raises(SourceUnavailable) as caught:
            prepare("ctx/Dockerfile")
        assert "-f ctx/Dockerfile" in (caught.value.hint or "")

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
    def test_empty_dockerfile(self, ctx: Path, prepare: Prepare, content: bytes) -> None:
        (ctx / "Dockerfile").write_bytes(content)
        with pytest.raises(InvalidValue, match="cannot be empty"):
            prepare(ctx)

    def test_dash_f_is_relative_to_the_working_directory(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "sub").mkdir()
        (ctx / "sub/Dockerfile.debug").write_text("FROM a")
        prepared = prepare(ctx, dockerfile="ctx/sub/Dockerfile.debug")
        assert prepared.dockerfile_name == "sub/Dockerfile.debug"
        assert prepared.dockerfile == b"FROM a"

    def test_dash_f_falls_back_to_the_context(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "Dockerfile.debug").write_text("FROM a")
        assert prepare(ctx, dockerfile="Dockerfile.debug").dockerfile == b"FROM a"

    def test_dash_f_outside_of_the_context(self, ctx: Path, prepare: Prepare) -> None:
        (ctx.parent / "Outside").write_text("FROM o")
        (ctx.parent / "Outside.dockerignore").write_text("data")
        prepared = prepare(ctx, dockerfile="Outside")
        assert prepared.dockerfile == b"FROM o"
        assert names(prepared) == ["Dockerfile"]

    def test_dash_f_above_is_not_clamped_into_the_context(self, ctx: Path, prepare: Prepare) -> None:
        with pytest.raises(SourceUnavailable, match="no such file"):
            prepare(ctx, dockerfile="../Dockerfile")

    def test_dash_f_directory(self, ctx: Path, prepare: Prepare) -> None:
        with pytest.raises(SourceUnavailable):
            prepare(ctx, dockerfile="ctx")

    def test_dockerfile_on_stdin_with_a_directory(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / ".dockerignore").write_text("data")
        prepared = prepare(ctx, dockerfile="-", stdin=b"FROM stdin")
        assert prepared.dockerfile == b"FROM stdin"
        assert names(prepared) == [".dockerignore", "Dockerfile"]

    def test_dockerfile_data_wins(self, ctx: Path, prepare: Prepare) -> None:
        assert prepare(ctx, dockerfile_data=b"FROM data").dockerfile == b"FROM data"

    def test_own_ignore_file_wins_and_is_not_merged(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / ".dockerignore").write_text("Dockerfile")
        assert names(prepare(ctx)) == [".dockerignore", "data"]
        (ctx / "Dockerfile.dockerignore").write_text("data")
        assert names(prepare(ctx)) == [".dockerignore", "Dockerfile", "Dockerfile.dockerignore"]

    def test_link_inside_the_context_is_fine(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "real").mkdir()
        (ctx / "Dockerfile").rename(ctx / "real/file")
        (ctx / "Dockerfile").symlink_to("real/file")
        assert prepare(ctx).dockerfile == b"FROM scratch\n"

    @pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
    @pytest.mark.parametrize("up", [False, True])
    def test_link_out_of_the_context_is_refused(
        self, ctx: Path, prepare: Prepare, name: str, up: bool
    ) -> None:
        secret = ctx.parent / "secret"
        secret.write_text("FROM host-secret")
        (ctx / name).unlink(missing_ok=True)
        (ctx / name).symlink_to("../secret" if up else secret)
        with pytest.raises(SourceUnavailable) as caught:
            prepare(ctx)
        assert caught.value.code == "link-out-of-context"

    def test_directory_link_out_of_the_context_is_refused(self, ctx: Path, prepare: Prepare) -> None:
        (ctx.parent / "elsewhere").mkdir()
        (ctx.parent / "elsewhere/Dockerfile").write_text("FROM host-secret")
        (ctx / "dir").symlink_to(ctx.parent / "elsewhere")
        with pytest.raises(PybuildError):
            prepare(str(ctx), dockerfile=None, build_contexts=()) and prepare(
                ctx, dockerfile="dir/Dockerfile"
            )

    def test_fifo_as_dockerfile_inside_does_not_hang(self, ctx: Path, prepare: Prepare) -> None:
        (ctx / "Dockerfile").unlink()
        os.mkfifo(ctx / "Dockerfile")
        with pytest.raises(SourceUnavailable, match="not a regular file"):
            prepare(ctx)


class TestStdin:
    def test_dockerfile_without_a_context(self, ctx: Path, prepare: Prepare) -> None:
        prepared = prepare("-", stdin=b"FROM busybox\nRUN true\n", dockerfile="ignored")
        assert prepared.main is None
        assert prepared.dockerfile == b"FROM busybox\nRUN true\n"
        assert prepared.dockerfile_name == "Dockerfile"

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_archive(self, store: MiniStore, prepare: Prepare, mode: str) -> None:
        data = tar_of({"Dockerfile": b"FROM t", "sub/x": b"x", ".dockerignore": b"sub"}, mode)
        prepared = prepare("-", stdin=data)
        assert prepared.dockerfile == b"FROM t"
        assert names(prepared) == [".dockerignore", "Dockerfile", "sub", "sub/x"]
        prepared.cleanup()
        assert store.staged == []

    def test_archive_with_another_dockerfile(self, prepare: Prepare) -> None:
        data = tar_of({"a/Docker": b"FROM t"})
        assert prepare("-", stdin=data, dockerfile="a/Docker").dockerfile == b"FROM t"

    def test_both_from_stdin(self, prepare: Prepare) -> None:
        with pytest.raises(UsageError, match="can't use stdin for both"):
            prepare("-", stdin=b"", dockerfile="-")

    def test_empty_stdin(self, prepare: Prepare) -> None:
        with pytest.raises(InvalidValue, match="cannot be empty"):
            prepare("-", stdin=b"")

    def test_rubbish(self, prepare: Prepare) -> None:
        with pytest.raises(SourceUnavailable, match="neither an archive nor a Dockerfile"):
            prepare("-", stdin=b"\x7fELF\0\0\0")

    def test_nothing_is_left_behind_after_an_error(self, store: MiniStore, prepare: Prepare) -> None:
        with pytest.raises(PybuildError):
            prepare("-", stdin=b"\x1f\x8bnot gzip at all")
        assert store.staged == []


class TestNamed:
    def test_local_has_its_own_ignore_file(self, ctx: Path, prepare: Prepare) -> None:
        other = ctx.parent / "other"
        other.mkdir()
        (other / "a").write_text("a")
        (other / "b").write_text("b")
        (other / ".dockerignore").write_text("a")
        prepared = prepare(ctx, build_contexts=[("lib", str(other))])
        assert prepared.named["lib"].kind == "local"
        assert [path for path, _ in prepared.locals["lib"].walk()] == [".dockerignore", "b"]

    @pytest.mark.parametrize(
        ("value", "kind", "identifier"),
        [
            ("docker-image://alpine", "image", "docker.io/library/alpine:latest"),
            ("docker-image://scratch", "image", "scratch"),
            ("https://h/x.git#main", "git", "https://h/x.git#main"),
            ("https://h/x.tar", "http", "https://h/x.tar"),
        ],
    )
    def test_kinds(self, value: str, kind: str, identifier: str) -> None:
        source = parse_named("base", value)
        assert (source.kind, source.identifier) == (kind, identifier)

    def test_names_are_normalised(self) -> None:
        assert normal_name("docker.io/library/alpine:latest") == "alpine"
        assert normal_name("alpine:3") == "alpine:3"
        assert parse_named("alpine::linux/arm64", "docker-image://x").platform == "linux/arm64"

    @pytest.mark.parametrize("name", ["scratch", "context"])
    def test_reserved(self, name: str) -> None:
        with pytest.raises(UsageError):
            parse_named(name, "docker-image://x")

    def test_unknown_scheme(self) -> None:
        with pytest.raises(UsageError, match="unsupported context source s3 for x"):
            parse_named("x", "s3://bucket")

    def test_missing_directory(self) -> None:
        with pytest.raises(SourceUnavailable, match='path "nope" not found'):
            parse_named("x", "nope")

    def test_oci_layout_by_tag_and_digest(self, tmp_path: Path) -> None:
        digest = "sha256:" + "a" * 64
        (tmp_path / "index.json").write_text(
            f'{{"manifests":[{{"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}'
        )
        assert str(parse_named("x", f"oci-layout://{tmp_path}:v1").digest) == digest
        assert str(parse_named("x", f"oci-layout://{tmp_path}").digest) == digest
        assert str(parse_named("x", f"oci-layout://{tmp_path}@{digest}").digest) == digest
        with pytest.raises(SourceUnavailable):
            parse_named("x", f"oci-layout://{tmp_path}:v2")
        with pytest.raises(UsageError, match="has no name"):
            parse_named("x", "oci-layout://")
