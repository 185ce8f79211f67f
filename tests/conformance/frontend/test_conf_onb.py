"""Triggers (ONB rows)."""

from __future__ import annotations

import pytest

from builder.frontend.errors import DockerfileError
from tests.support.buildlab import Lab
from tests.support.dockerfiles import FakeResolver, base_image, converted, execs, history, names
from tests.support.rows import row


def with_triggers(*triggers):
    return FakeResolver({"docker.io/library/a:latest": base_image(on_build=triggers)})


def problem(text, resolver=None):
    with pytest.raises(DockerfileError) as caught:
        converted(text, resolver)
    return caught.value


@row("ONB-01")
def test_a_trigger_is_kept_and_not_run() -> None:
    found = converted("FROM a\nONBUILD RUN touch x\nonbuild COPY  a   b\n")
    assert found.config.on_build[0] == "RUN touch x"
    assert len(found.config.on_build) == 2
    assert execs(found) == []
    assert history(found) == []
    assert found.config.to_json()["config"]["OnBuild"][0] == "RUN touch x"


@row("ONB-02")
def test_triggers_run_first() -> None:
    found = converted("FROM a\nRUN own\n", with_triggers("RUN one", "ENV a=b", "RUN two"))
    assert [op.meta.args[2] for op in execs(found)] == ["one", "two", "own"]
    assert "a=b" in found.config.env
    assert found.config.on_build == ()
    stages = converted("FROM a AS p\nONBUILD RUN t\nFROM p AS c\nFROM c\nRUN own\n")
    assert [op.meta.args[2] for op in execs(stages)] == ["t", "own"], "in the child only, once"


@row("ONB-02")
@pytest.mark.root
def test_triggers_for_real(lab: Lab) -> None:
    parent = lab.quick("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN echo ran >> /f\n", tags=("onb:1",))
    assert not parent.has("f")
    child = lab.quick("FROM onb:1\nRUN echo own >> /f\n", {"f": "copied\n"})
    assert child.read("f") == "copied\nran\nown\n"
    assert "OnBuild" not in child.json["config"]


@row("ONB-03")
def test_what_is_no_trigger() -> None:
    chained = problem("FROM a\nONBUILD ONBUILD RUN x\n").message
    assert "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed" in chained
    for name in ("FROM", "MAINTAINER"):
        assert f"{name} isn't allowed as an ONBUILD trigger" in problem(f"FROM a\nONBUILD {name} x\n").message
    for text in ("RUN a\nRUN b", "", "# words"):
        found = problem("FROM a\n", with_triggers(text))
        assert found.message == "onbuild trigger should be a single expression"
    for text in ("FROM b", "onbuild RUN x"):  # an image's config may hold anything
        found = problem("# one\n\nFROM a\n", with_triggers(text))
        assert found.message == f"{text.split()[0].upper()} isn't allowed as an ONBUILD trigger"
        assert [span.start for span in found.spans] == [3]


@row("ONB-04")
def test_triggers_are_counted_and_named() -> None:
    found = converted("FROM a\nRUN own\n", with_triggers("RUN one", "env a=b", "copy x y"))
    assert [name for name in names(found) if "FROM" not in name and "[internal]" not in name] == [
        "[2/4] ONBUILD RUN one",
        "[3/4] ONBUILD COPY x y",
        "[4/4] RUN own",
    ]
    bad = problem("# one\n\nFROM a\nRUN own\n", with_triggers("STOPSIGNAL nope"))
    assert [span.start for span in bad.spans] == [3]


@row("ONB-05")
def test_triggers_name_further_stages_and_images() -> None:
    resolver = FakeResolver(
        {
            "docker.io/library/a:latest": base_image(
                on_build=("COPY --from=tool x y", "COPY --from=dep p q")
            ),
            "docker.io/library/b:latest": base_image(on_build=("RUN --mount=from=deeper,target=/t z",)),
        }
    )
    found = converted("FROM b AS dep\nFROM unused AS other\nFROM a\n", resolver)
    asked = {ref.removeprefix("docker.io/library/").removesuffix(":latest") for ref, _, _ in resolver.asked}
    assert asked == {"a", "b", "tool", "deeper"}
    assert len(execs(found)) == 1
