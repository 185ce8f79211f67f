"""Cache keys in what builds do: what is found again, on this machine and on others."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.cache.basekeys import root_key
from builder.solver.types import Secret
from tests.support.buildlab import Built
from tests.support.machines import LayoutCache, Machines, cache, ran
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def unchanged(_: Path) -> None:
    """A context as it was, on another machine."""


@row("CKY-05")
def test_values_of_secrets_and_caches_count_nowhere(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    text = "FROM busybox\nRUN --mount=type=secret,id=t --mount=type=cache,target=/c cat /run/secrets/t | wc -c; date > /c/d\n"
    place = tmp_path / "cache"
    lab.build(
        lab.context(),
        text,
        secrets=(Secret(id="t", data=b"one-secret-value"),),
        cache_to=cache(f"type=local,dest={place},mode=max"),
    )
    lab.build(lab.context(), text, secrets=(Secret(id="t", data=b"other"),))
    assert ran(lab) == []
    for path in (place / "blobs/sha256").iterdir():
        assert b"one-secret-value" not in path.read_bytes()


@row("CKY-07", "CKY-15")
def test_two_files_of_one_name(many: Machines, tmp_path: Path) -> None:
    """A copy from another place of a stage is another step, although only the last element is in its digest."""
    text = "FROM busybox AS a\nRUN mkdir /x /y; echo 1 > /x/f; echo 2 > /y/f\nFROM busybox\nCOPY --from=a /{}/f /\n"
    lab, other = many.new(), many.new()
    place = f"{tmp_path / 'cache'}"
    one = Built(
        lab, lab.build(lab.context(), text.format("x"), cache_to=cache(f"type=local,dest={place},mode=max"))
    )
    assert Built(lab, lab.build(lab.context(), text.format("y"))).read("f") == "2\n"
    assert one.read("f") == "1\n"
    two = Built(
        other, other.build(other.context(), text.format("y"), cache_from=cache(f"type=local,src={place}"))
    )
    assert two.read("f") == "2\n"
    assert ran(other) == ["COPY --from=a /y/f /"]


@row("CKY-08", "CKY-09")
def test_sources_in_a_cache(
    many: Machines, tmp_path: Path, repository: tuple[str, str], site: tuple[str, Path]
) -> None:
    lab = many.new()
    url, commit = repository
    (site[1] / "file.txt").write_text("from the web")
    place = tmp_path / "cache"
    text = f"FROM scratch\nADD {url}#v1 /git\nADD {site[0]}/file.txt /web\nCOPY src /\n"
    lab.build(lab.context({"src": "local"}), text, cache_to=cache(f"type=local,dest={place},mode=max"))
    found = LayoutCache(place)
    leaves = {item["digest"] for item in found.config["records"] if "inputs" not in item}
    assert root_key(sha256(f"buildkit.source.v0:{commit}")) in leaves
    time = int(os.stat(site[1] / "file.txt").st_mtime)
    from builder.exporter.times import rfc3339

    value = {
        "Filename": "file.txt", "Perm": 0o600, "UID": 0, "GID": 0,
        "Checksum": sha256("from the web"), "LastModTime": rfc3339(time * 10**9),
    }  # fmt: skip
    name = sha256(json.dumps(value, separators=(",", ":")))
    assert root_key(sha256(f"buildkit.source.v0:{name}")) in leaves
    assert len(leaves) == 3 + 2, "two sources, and the content that three copies took"


@row("CKY-11")
def test_no_cache(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    text = "FROM busybox AS s\nRUN --mount=type=cache,target=/c cat /proc/sys/kernel/random/uuid > /id; touch /c/x; ls /c > /l\nFROM busybox\nCOPY --from=s /id /id\nRUN cat /id > /out\n"
    place = f"{tmp_path / 'cache'}"
    first = Built(lab, lab.build(lab.context(), text))
    again = Built(
        lab,
        lab.build(
            lab.context(), text, no_cache_filter=("s",), cache_to=cache(f"type=local,dest={place},mode=max")
        ),
    )
    assert len(ran(lab)) == 3, "what follows cannot be found by the key that there was"
    assert again.read("out") != first.read("out")
    kept = Built(lab, lab.build(lab.context(), text))
    assert ran(lab) == []
    assert kept.read("out") == again.read("out"), "the new result is the one that is kept"
    imported = Built(other, other.build(other.context(), text, cache_from=cache(f"type=local,src={place}")))
    assert imported.read("out") == again.read("out"), "and exported"
    other.build(other.context(), text, cache_from=cache(f"type=local,src={place}"), no_cache=True)
    assert len(ran(other)) == 3, "an import is no way around it"


@row("CKY-11")
def test_no_cache_clears_cache_mounts(many: Machines) -> None:
    lab = many.new()
    text = "FROM busybox\nRUN --mount=type=cache,target=/c ls /c > /seen; touch /c/x\n"
    lab.build(lab.context(), text)
    assert Built(lab, lab.build(lab.context(), text, no_cache=True)).read("seen") == ""


@row("CKY-12")
def test_both_ways_to_a_result(many: Machines, tmp_path: Path) -> None:
    """By the definition of its input, and by the content that the step takes from it."""
    lab, other, third = many.new(), many.new(), many.new()
    text = "FROM busybox AS one\nRUN {} > /f\nFROM busybox\nCOPY --from=one /f /f\nRUN cat /f > /g\n"
    place = tmp_path / "cache"
    lab.build(lab.context(), text.format("echo same"), cache_to=cache(f"type=local,dest={place},mode=max"))
    inputs = [
        len(item["inputs"][1])
        for item in LayoutCache(place).config["records"]
        if len(item.get("inputs", ())) == 2
    ]
    assert inputs == [2]
    imports = cache(f"type=local,src={place}")
    other.build(other.context(), text.format("echo same"), cache_from=imports)
    assert ran(other) == []
    other.build(other.context(), text.format("echo sa''me"))
    third.build(third.context(), text.format("echo s'a'me"), cache_from=imports)
    assert ran(third) == ["RUN echo s'a'me > /f"], "its output is what it was: the copy is found by content"
    third.build(third.context(), text.format("echo s'a'me"))
    assert ran(third) == []


@row("CKY-13")
def test_which_part_of_a_key_changed(many: Machines) -> None:
    lab = many.new()
    context = lab.context({"a": "1"})
    lab.build(context, "FROM busybox\nCOPY a /a\nRUN cat /a\n")
    lab.write(context, {"a": "2"})
    result = lab.build(context, "FROM busybox\nCOPY a /a\nRUN cat /a\n")
    copy, run = result.steps[-2:]
    assert [(cause.kind, cause.subject) for cause in copy.causes] == [("file-changed", "a")]
    assert [cause.kind for cause in run.causes] == ["upstream"]
    result = lab.build(context, "FROM busybox\nCOPY a /a\nRUN cat  /a\n")
    assert [cause.kind for cause in result.steps[-1].causes] == ["command"]


@row("CKY-14")
def test_equal_layers_under_another_name(many: Machines, tmp_path: Path) -> None:
    lab, other = many.new(), many.new()
    place = tmp_path / "cache"
    lab.build(lab.context(), "FROM busybox\nRUN echo a > /a\n", cache_to=cache(f"type=local,dest={place}"))
    out = io.BytesIO()
    images.save(lab.store, ["busybox:latest"], out)
    renamed = other.build(other.context(), "FROM busybox\nLABEL another=digest\n", tags=("renamed:1",))
    assert renamed.digest
    imports = cache(f"type=local,src={place}")
    other.build(other.context(), "FROM renamed:1\nRUN echo a > /a\n", cache_from=imports)
    assert ran(other) == []
    leaves = [item for item in LayoutCache(place).config["records"] if "inputs" not in item]
    assert len(leaves) == 2, "both phases of the base"


@row("CKY-15")
def test_a_copy_from_the_context(many: Machines, tmp_path: Path) -> None:
    lab = many.new()
    text = "FROM busybox\nCOPY src /app\n"
    content: dict[str, Any] = {"src/a": "1", "src/b/c": "2", "other": "x"}
    place = tmp_path / "cache"
    lab.build(lab.context(content), text, cache_to=cache(f"type=local,dest={place}"))
    imports = cache(f"type=local,src={place}")

    def on_another(change: Any) -> list[str]:
        machine = many.new()
        context = machine.context(content)
        change(context)
        machine.build(context, text, cache_from=imports)
        return ran(machine)

    assert on_another(unchanged) == [], "moved to another directory"
    assert on_another(lambda context: os.utime(context / "src/a", (1, 1))) == [], "touched"
    assert on_another(lambda context: (context / "other").write_text("changed")) == []
    assert on_another(lambda context: (context / "src/a").chmod(0o600)) == ["COPY src /app"]
    assert on_another(lambda context: (context / "src/b").chmod(0o700)) == ["COPY src /app"]
    assert on_another(lambda context: (context / "src/a").write_text("3")) == ["COPY src /app"]
