"""Outline and doc comments (rows LEX-12, SUB-04), hints about undeclared variables (ARG-02, ARG-04, DIA-03)."""

from __future__ import annotations

import pytest

from builder.frontend.convert import outline
from builder.frontend.errors import DockerfileError, LintViolation
from builder.frontend.parser import parse
from tests.support.dockerfiles import FakeResolver, base_image, converted, options, text_of

TEXT = """
    ARG inherited=box
    ARG unused=abc
    # sfx is a suffix
    ARG sfx=usy${inherited}
    FROM b${sfx} AS first
    # FOO is the first number
    ARG FOO=123
    RUN --mount=type=secret,id=first --mount=type=ssh true

    FROM alpine${unused} AS second
    ARG BAZ
    RUN --mount=type=secret,id=second,required=true true

    # target makes the thing
    FROM scratch AS target
    ARG ABC=a
    ARG inherited
    ARG TARGETARCH
    COPY --from=first /foo /
    RUN --mount=type=secret,id=first,required=true --mount=type=ssh,id=other,required=true true
"""


def outline_of(text, **changes):
    return outline(parse(text_of(text)), options(**changes), FakeResolver())


def test_outline_lists_what_the_target_uses_sub_04() -> None:
    found = outline_of(TEXT, target="target", build_args=(("ABC", "b"),))
    assert (found.name, found.description) == ("target", "makes the thing")
    assert [(arg.name, arg.value, arg.description, arg.span.start) for arg in found.args] == [
        ("inherited", "box", "", 1),
        ("sfx", "usybox", "is a suffix", 4),
        ("FOO", "123", "is the first number", 7),
        ("ABC", "b", "", 16),
    ]
    assert [(need.name, need.required) for need in found.secrets] == [("first", True)]
    assert [(need.name, need.required, need.span.start) for need in found.ssh] == [
        ("default", False, 8),
        ("other", True, 20),
    ]


def test_outline_of_another_target_leaves_out_the_rest() -> None:
    found = outline_of(TEXT, target="second")
    assert [arg.name for arg in found.args] == ["unused", "BAZ"]
    assert [need.name for need in found.secrets] == ["second"]
    assert found.ssh == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FROM a\nENV X=$LATE\nARG LATE=1\n", "ARG LATE is declared on line 3, after its use: move it up"),
        (
            "ARG EARLY=1\nFROM a\nENV X=$EARLY\n",
            "ARG EARLY on line 1 is for FROM only: declare it again in this stage, with ARG EARLY",
        ),
        ("FROM a\nENV X=$TARGETARCH\n", "declare it in this stage, with ARG TARGETARCH"),
        ("FROM a\nENV X=$NOTHING\n", ""),
    ],
)
def test_a_variable_that_is_declared_elsewhere(text: str, hint: str) -> None:
    (warning,) = converted(text).warnings
    assert (warning.rule, warning.hint) == ("UndefinedVar", hint)


def test_from_sees_no_argument_of_a_stage() -> None:
    with pytest.raises(DockerfileError, match="should not be blank") as caught:
        converted("FROM a\nARG B=b\nFROM $B\n")
    assert "inside a stage" in str(caught.value.hint)
    assert [warning.rule for warning in caught.value.warnings][:1] == ["UndefinedArgInFrom"]


def test_build_arguments_without_use_are_explained_dia_03() -> None:
    given = (("VERSIO", "1"), ("OTHER", "2"), ("LATER", "3"))
    found = converted(
        "FROM a AS one\nARG VERSION\nFROM a AS two\nARG LATER\n", target="one", build_args=given
    )
    assert found.unused_build_args == ("VERSIO", "OTHER", "LATER")
    assert found.unused_hints == (
        "VERSIO: did you mean VERSION?",
        "ARG LATER is declared, but the target does not use it",
    )


def test_nothing_is_said_about_a_base_that_is_not_known_frm_06() -> None:
    class Offline(FakeResolver):
        def image(self, ref, platform, *, mode):
            return super().image(ref, platform, mode=mode)._replace(known=False)

    text = "FROM golang AS a\nWORKDIR $GOPATH/src\nFROM a\nENV X=$GOPATH Y=$Z\nARG Z\n"
    assert [w.message for w in converted(text, Offline()).warnings] == ["Usage of undefined variable '$Z'"]
    assert len(converted(text).warnings) == 3
    known = FakeResolver({"docker.io/library/golang:latest": base_image(env=("GOPATH=/go",))})
    assert len(converted(text, known).warnings) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("COPY a b /d", 1),
        ("ADD a b d", 1),
        ("COPY a b /d/", 0),
        ("COPY a b .", 0),
        ("COPY a b ./", 0),
        ("COPY a /d", 0),
        ("COPY a* /d", 0),
        ("COPY a b* /d", 0),
        ("COPY a b /site", 0),
        ("COPY a b /site/sub", 1),
        ("COPY a <<b /d\nx\nb", 1),
    ],
)
def test_several_sources_to_a_name_cpy_09(text: str, count: int) -> None:
    found = converted(f"FROM x\nWORKDIR /site\n{text}\n").warnings
    assert [warning.rule for warning in found] == ["MultipleSourcesToFile"] * count


def test_error_true_tells_what_was_found_lnt_04() -> None:
    with pytest.raises(LintViolation, match="lint violation found for rules: LegacyKeyValueFormat") as caught:
        converted("# check=error=true\nFROM a\nENV A b\n")
    assert caught.value.context == (str(caught.value.warnings[0]),)
