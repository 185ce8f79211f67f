"""A build that is recognised without being planned must answer what planning it would answer."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.build import BuildRequest, memo
from builder.build.run import run_build
from builder.errors import PybuildError
from builder.solver.types import Secret
from tests.support.buildlab import Built, Lab
from tests.support.solving import Watcher

pytestmark = pytest.mark.root

COPY_ALL = "FROM scratch\nCOPY . /\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("memo"))
    yield made
    made.close()


class Case:
    """One context that is built, changed, and built again; every answer is compared with the long way's."""

    def __init__(self, lab: Lab, files: dict[str, Any], **more: Any) -> None:
        self.lab, self.more = lab, more
        self.root = lab.context()
        lab.write(self.root, files)
        age(self.root)
        self.first = self.build()
        again = self.build()
        assert again.id == self.first.id
        assert self.known(), "an unchanged build is recognised"

    def known(self, **more: Any) -> bool:
        """Whether the build is recognised now."""
        return memo.recall(self.lab.store, self._request(more), Watcher()) is not None

    def build(self, **more: Any) -> Built:
        """Build and compare with planning it; the context may be given as ``context``."""
        request = self._request(more)
        result = self.lab.build(**{"context": str(self.root), **self.more, **more})
        image = Built(self.lab, result)
        planned = run_build(self.lab.store, request, on_event=Watcher(), machine=self.lab._machine.machine())
        assert result.image_id == planned.image_id
        assert result.names == planned.names
        assert result.metadata == planned.metadata
        return image

    def fails(self, **more: Any) -> str:
        """Build; the message of its failure."""
        with pytest.raises(PybuildError) as caught:
            self.lab.build(**{"context": str(self.root), **self.more, **more})
        return str(caught.value)

    def _request(self, more: dict[str, Any]) -> BuildRequest:
        return BuildRequest(**{"network": "none", "context": str(self.root), **self.more, **more})


def age(root: Path) -> None:
    """Let the files be old enough for their stats to be trusted."""
    import time

    time.sleep(0.03)
    for path in (root, *root.rglob("*")):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    time.sleep(0.05)


def rewrite(path: Path, text: str) -> None:
    """Change a file and put its size and modification time back."""
    before = path.stat()
    assert len(text) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_of_the_same_size_and_time(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one"})
    rewrite(case.root / "a", "two")
    assert case.build().read("a") == "two"


def test_touching_changes_nothing(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one"})
    os.utime(case.root / "a")
    assert case.build().id == case.first.id


def test_mode_link_target_new_and_deleted_files(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one", "b": "two"})
    (case.root / "a").chmod(0o755)
    changed = case.build()
    assert changed.id != case.first.id
    assert changed.stat("a").st_mode & 0o777 == 0o755
    (case.root / "l").symlink_to("a")
    assert case.build().names() == ["Dockerfile", "a", "b", "l"]
    (case.root / "l").unlink()
    (case.root / "l").symlink_to("b")
    with case.build().tree() as view:
        assert view.readlink("l") == "b"
    (case.root / "l").unlink()
    (case.root / "b").unlink()
    assert case.build().names() == ["Dockerfile", "a"]


def test_empty_directories_and_kinds(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/a": "one"})
    (case.root / "d/sub").mkdir()
    assert case.build().names("d") == ["a", "sub"]
    (case.root / "d/sub").rmdir()
    assert case.build().id == case.first.id
    (case.root / "d/a").unlink()
    (case.root / "d/a").mkdir()
    assert case.build().names("d/a") == []


def test_a_link_that_a_source_goes_through(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM scratch\nCOPY link/a /a\n", "link/a": "w", "x/a": "x", "y/a": "y"})
    shutil.rmtree(case.root / "link")
    (case.root / "link").symlink_to("x")
    assert case.build().read("a") == "x"
    (case.root / "link").unlink()
    (case.root / "link").symlink_to("y")
    assert case.build().read("a") == "y"
    (case.root / "y/a").write_text("z")
    assert case.build().read("a") == "z"


def test_a_wildcard_that_matches_more(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM scratch\nCOPY *.txt dir?/ /\n", "a.txt": "a", "dir1/x": "x"})
    lab.write(case.root, {"b.txt": "b"})
    assert case.build().names() == ["a.txt", "b.txt", "x"]
    lab.write(case.root, {"dir2/y": "y"})
    assert case.build().names() == ["a.txt", "b.txt", "x", "y"]


def test_dockerfile_text(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM scratch\nENV A=1\nCOPY a /\n", "a": "one"})
    rewrite(case.root / "Dockerfile", "FROM scratch\nENV A=2\nCOPY a /\n")
    assert "A=2" in case.build().config.env
    (case.root / "Dockerfile").write_text("# a comment\nFROM scratch\nENV A=1\nCOPY a /\n")
    assert case.build().id == case.first.id


def test_dockerfile_appears_beside_the_lower_case_one(lab: Lab) -> None:
    case = Case(lab, {"dockerfile": "FROM scratch\nCOPY a /lower\n", "a": "one"})
    assert case.first.names() == ["lower"]
    (case.root / "Dockerfile").write_text("FROM scratch\nCOPY a /upper\n")
    assert case.build().names() == ["upper"]
    (case.root / "Dockerfile").unlink()
    assert case.build().id == case.first.id
    (case.root / "dockerfile").unlink()
    assert "no such file" in case.fails()


def test_named_dockerfile_falls_back_to_lower_case_too(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "sub/dockerfile": "FROM scratch\nCOPY a /lower\n", "a": "one"})
    case.more["dockerfile"] = str(case.root / "sub/Dockerfile")
    assert case.build().names() == ["lower"]
    (case.root / "sub/Dockerfile").write_text("FROM scratch\nCOPY a /upper\n")
    assert case.build().names() == ["upper"]


def test_dockerfile_behind_a_link(lab: Lab) -> None:
    case = Case(lab, {"real": "FROM scratch\nCOPY a /one\n", "Dockerfile": COPY_ALL, "a": "one"})
    (case.root / "Dockerfile").unlink()
    (case.root / "Dockerfile").symlink_to("/real")  # absolute links stay inside the context
    assert case.build().names() == ["one"]
    (case.root / "real").write_text("FROM scratch\nCOPY a /two\n")
    assert case.build().names() == ["two"]


def test_dockerfile_of_the_working_directory_comes_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = lab.context()
    monkeypatch.chdir(elsewhere)
    case = Case(lab, {"dev": "FROM scratch\nCOPY a /inside\n", "a": "one"}, dockerfile="dev")
    assert case.first.names() == ["inside"]
    (elsewhere / "dev").write_text("FROM scratch\nCOPY a /outside\n")
    assert case.build().names() == ["outside"]
    other = lab.context({"dev": "FROM scratch\nCOPY a /other\n"})
    monkeypatch.chdir(other)
    assert case.build().names() == ["other"]


def test_another_dockerfile_outside_the_context(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one", "b": "two"})
    outside = lab.context({"D": "FROM scratch\nCOPY . /\n"}) / "D"
    assert case.build(dockerfile=str(outside)).names() == ["Dockerfile", "a", "b"]
    assert case.known(dockerfile=str(outside))
    outside.with_name("D.dockerignore").write_text("b\n")
    assert case.build(dockerfile=str(outside)).names() == ["Dockerfile", "a"]
    outside.with_name("D.dockerignore").unlink()
    assert case.build(dockerfile=str(outside)).names() == ["Dockerfile", "a", "b"]
    outside.write_text("FROM scratch\nCOPY a /\n")
    assert case.build(dockerfile=str(outside)).names() == ["a"]


def test_ignore_files_come_change_and_go(lab: Lab) -> None:
    """IGN-01."""
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one", "b": "two"})
    lab.write(case.root, {".dockerignore": "a\n.dockerignore\n"})
    assert case.build().names() == ["Dockerfile", "b"]
    rewrite(case.root / ".dockerignore", "b\n.dockerignore\n")
    assert case.build().names() == ["Dockerfile", "a"]
    lab.write(case.root, {"Dockerfile.dockerignore": "*\n!b\n"})
    assert case.build().names() == ["b"]
    (case.root / "Dockerfile.dockerignore").write_text("")
    assert case.build().names() == [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a", "b"]
    (case.root / "Dockerfile.dockerignore").unlink()
    assert case.build().names() == ["Dockerfile", "a"]
    (case.root / ".dockerignore").unlink()
    assert case.build().names() == ["Dockerfile", "a", "b"]


def test_base_image_moves_or_goes(lab: Lab) -> None:
    images.tag(lab.store, "busybox", "moving:1")
    case = Case(lab, {"Dockerfile": "FROM moving:1\nCOPY a /\n", "a": "one"})
    other = lab.quick("FROM busybox\nENV OTHER=1\n", tags=("other:1",))
    images.tag(lab.store, "other:1", "moving:1")
    assert "OTHER=1" in case.build().config.env
    assert other.id != case.first.id
    images.tag(lab.store, "busybox", "moving:1")
    assert case.build().id == case.first.id
    images.remove(lab.store, "moving:1")
    case.fails()


def test_image_that_copy_from_names_moves(lab: Lab) -> None:
    lab.quick("FROM scratch\nCOPY v /v\n", {"v": "1"}, tags=("lib:1",))
    case = Case(lab, {"Dockerfile": "FROM scratch\nCOPY --from=lib:1 /v /v\n"})
    assert case.first.read("v") == "1"
    lab.quick("FROM scratch\nCOPY v /v\n", {"v": "2"}, tags=("lib:1",))
    assert case.build().read("v") == "2"


def test_result_is_untagged_or_pruned(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM busybox\nRUN date > /when\n"}, tags=("gone:1",))
    images.remove(lab.store, "gone:1")
    again = case.build()
    assert again.id == case.first.id
    assert again.result.names == ("docker.io/library/gone:1",)
    assert lab.store.images.resolve("gone:1") is not None
    images.remove(lab.store, "gone:1")
    lab.store.prune(all=True)
    rebuilt = case.build()
    assert rebuilt.read("when")
    assert lab.store.images.resolve("gone:1") is not None


def test_a_tag_taken_by_another_image_comes_back(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one"}, tags=("mine:1",))
    images.tag(lab.store, "busybox", "mine:1")
    assert case.build().id == case.first.id
    assert str(lab.store.images.resolve("mine:1").id) == case.first.id  # type: ignore[union-attr]


def test_other_tags_on_a_recognised_build(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one"}, tags=("mine:2",))
    again = case.build(tags=("mine:3", "mine:4"))
    assert again.result.names == ("docker.io/library/mine:3", "docker.io/library/mine:4")
    assert {"mine:2", "mine:3", "mine:4"} <= {
        name.rpartition("/")[2]
        for name in lab.store.images.resolve("mine:3").names  # type: ignore[union-attr]
    }
    with pytest.raises(PybuildError, match="invalid"):
        lab.build(case.root, tags=("UPPER:!",))
    with pytest.raises(PybuildError, match="digest"):
        lab.build(case.root, tags=(f"x@sha256:{'0' * 64}",))


def test_arguments_environment_labels_target_platform(lab: Lab) -> None:
    text = "FROM scratch AS one\nARG V=0\nENV E=$V\nCOPY a /a\nFROM one AS two\nENV LAST=1\nCOPY a /b\n"
    case = Case(lab, {"Dockerfile": text, "a": "one"})
    assert "E=0" in case.first.config.env
    assert "E=2" in case.build(build_args=(("V", "2"),)).config.env
    assert "E=3" in case.build(build_args=(("V", "3"),)).config.env
    assert case.build(target="one").names() == ["a"]
    assert case.build(target="two").id == case.first.id
    assert case.build(labels=(("l", "1"),)).json["config"]["Labels"] == {"l": "1"}
    assert case.build(labels=(("l", "2"),)).json["config"]["Labels"] == {"l": "2"}
    assert case.build(platforms=("linux/s390x",)).json["architecture"] == "s390x"
    assert case.build().id == case.first.id


def test_the_order_of_repeated_arguments_counts(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM scratch\nARG V\nENV E=$V\nCOPY a /\n", "a": "one"})
    assert "E=2" in case.build(build_args=(("V", "1"), ("V", "2"))).config.env
    assert "E=1" in case.build(build_args=(("V", "2"), ("V", "1"))).config.env


def test_context_moved_copied_or_replaced(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": COPY_ALL, "a": "one"})
    moved = case.root.with_name(f"{case.root.name}-moved")
    case.root.rename(moved)
    assert case.build(context=str(moved)).id == case.first.id
    shutil.copytree(moved, case.root)
    (case.root / "a").write_text("two")
    assert case.build().read("a") == "two"
    assert case.build(context=str(moved)).read("a") == "one"
    link = case.root.with_name(f"{case.root.name}-link")
    link.symlink_to(case.root)
    assert case.build(context=str(link)).read("a") == "two"
    link.unlink()
    link.symlink_to(moved)
    assert case.build(context=str(link)).read("a") == "one"


def test_no_cache_is_never_answered_from_memory(lab: Lab) -> None:
    case = Case(lab, {"Dockerfile": "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /id\n"})
    for more in ({"no_cache": True}, {"no_cache_filter": ("one",)}):
        built = Built(lab, lab.build(case.root, **more))
        assert built.read("id") != case.first.read("id")
        newest = built
    assert Built(lab, lab.build(case.root)).read("id") == newest.read("id")


def test_secrets_are_no_part_of_the_result(lab: Lab) -> None:
    """MNT-13: a changed value does not run a step again, and a missing one is no failure then."""
    text = "FROM busybox\nRUN --mount=type=secret,id=s,required=true wc -c < /run/secrets/s > /n\n"
    case = Case(lab, {"Dockerfile": text}, secrets=(Secret(id="s", data=b"12345"),))
    assert case.first.read("n").strip() == "5"
    assert case.build(secrets=(Secret(id="s", data=b"1"),)).id == case.first.id
    assert case.build(secrets=()).id == case.first.id


def test_a_build_with_warnings_gives_them_again(lab: Lab) -> None:
    root = lab.context({"Dockerfile": "FROM scratch as one\nCOPY a /\n", "a": "one"})
    age(root)
    assert lab.build(root).warnings == lab.build(root).warnings != ()


def test_dockerfile_edited_while_it_is_built(lab: Lab) -> None:
    """What is remembered is what was read, not what is there in the end."""
    text = "FROM busybox\nENV V=1\nCOPY a /\n"
    root = lab.context({"Dockerfile": text, "a": "one"})
    age(root)

    def edit(event: object) -> None:
        (root / "Dockerfile").write_text(text.replace("V=1", "V=2"))
        (root / ".dockerignore").write_text("zz\n")

    request = BuildRequest(context=str(root), network="none")
    run_build(lab.store, request, on_event=edit, machine=lab._machine.machine())
    assert "V=2" in Built(lab, lab.build(root)).config.env


def test_base_retagged_by_import(lab: Lab) -> None:
    out = io.BytesIO()
    import tarfile

    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("only"), None)
    images.tag(lab.store, "busybox", "imported:1")
    case = Case(lab, {"Dockerfile": "FROM imported:1\nCOPY a /\n", "a": "one"})
    images.import_(lab.store, io.BytesIO(out.getvalue()), "imported:1")
    assert case.build().names() == ["a", "only"]


def test_other_rules_for_keys_recall_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    request = BuildRequest(context=".")
    before = memo.key_of(request)
    monkeypatch.setattr(memo, "KEY_VERSION", 10_000)
    assert memo.key_of(request) != before
