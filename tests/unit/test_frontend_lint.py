"""Lint rules and their control: section 20 of the rows."""

from __future__ import annotations

import pytest

from builder.frontend.errors import DockerfileError
from builder.frontend.lint import LintConfig
from builder.frontend.lintrules import RULES
from tests.support.dockerfiles import converted, rules


def messages(text, **changes):
    return [(warning.rule, warning.message) for warning in converted(text, **changes).warnings]


@pytest.mark.parametrize(
    ("text", "rule", "message"),
    [
        ("FROM a AS Build\n", "StageNameCasing", "Stage name 'Build' should be lowercase"),
        ("FROM a as b\n", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match"),
        ("FROM a\nENV b=c \\\n\n d=e\n", "NoEmptyContinuation", "Empty continuation line"),
        ("FROM a\nenv b=c\n", "ConsistentInstructionCasing", "Command 'env' should match the case of the command majority (uppercase)"),
        ("from a\nenv b=c\nENV b=c\n", "ConsistentInstructionCasing", "Command 'ENV' should match the case of the command majority (lowercase)"),
        ("FROM a\nRUN b\nEnv b=c\n", "ConsistentInstructionCasing", "Command 'Env' should match the case of the command majority (uppercase)"),
        ("FROM a AS b\nFROM a AS b\n", "DuplicateStageName", 'Duplicate stage name "b", stage names should be unique'),
        ("FROM a AS context\n", "ReservedStageName", 'Stage name should not use the same name as reserved stage "context"'),
        ("FROM a\nCMD b\n", "JSONArgsRecommended", "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals"),
        ("FROM a\nENTRYPOINT b\n", "JSONArgsRecommended", "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals"),
        ("FROM a\nMAINTAINER b\n", "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label"),
        ("ARG vers=1\nFROM a:${vers:-1}$veers\n", "UndefinedArgInFrom", "FROM argument 'veers' is not declared (did you mean vers?)"),
        ("FROM a\nWORKDIR b\nWORKDIR c\n", "WorkdirRelativePath", 'Relative workdir "b" can have unexpected results if the base image changes'),
        ("FROM a\nENV b=$undefined\n", "UndefinedVar", "Usage of undefined variable '$undefined'"),
        ("FROM a\nENV b c\n", "LegacyKeyValueFormat", '"ENV key=value" should be used instead of legacy "ENV key value" format'),
        ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"),
        ("FROM a\nARG MY_API_TOKEN\n", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ARG "MY_API_TOKEN")'),
        ("FROM a\nENV password=x\n", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ENV "password")'),
        ("ARG V\nFROM a:$V\n", "InvalidDefaultArgInFrom", "Default value for ARG a:$V results in empty or invalid base image name"),
        ("FROM --platform=linux/amd64 a\n", "FromPlatformFlagConstDisallowed", 'FROM --platform flag should not use constant value "linux/amd64"'),
        ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", "Defined protocol 'TCP' in EXPOSE instruction should be lowercase"),
        ("FROM a\nEXPOSE 1:80\n", "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '1:80'"),
    ],
)  # fmt: skip
def test_rules(text, rule, message):
    changes = {"build_args": (("V", "1"),)} if "FROM a:$V" in text else {}
    assert messages(text, **changes) == [(rule, message)]


def test_the_earlier_of_two_commands_is_reported():
    found = converted('FROM a\nCMD ["x"]\nHEALTHCHECK NONE\nCMD ["y"]\nHEALTHCHECK CMD z\n')
    assert rules(found) == [("MultipleInstructionsDisallowed", 2), ("MultipleInstructionsDisallowed", 3)]
    assert found.warnings[0].message == (
        "Multiple CMD instructions should not be used in the same stage because only the last one will be used"
    )


@pytest.mark.parametrize(
    "text",
    [
        "FROM a AS b\nRUN c\n",
        "from a as b\nrun c\n",
        'FROM a\nSHELL ["s"]\nCMD b\n',
        "FROM a\nWORKDIR /b\nWORKDIR c\n",
        "FROM --platform=linux/amd64 a AS b-amd64\n",
        "FROM --platform=$BUILDPLATFORM a\n",
        "FROM a\nENV PUBLIC_KEY=a AUTH_TOKEN_FILE=b MONKEY=c\n",
        "ARG V=1\nFROM a:$V\n",
        "ARG S=b\nFROM a AS b\nFROM $S\n",
        "# any words\nFROM a AS b\n",
        "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR c\n",
    ],
)
def test_quiet(text):
    assert messages(text) == []


def test_experimental_rules_are_asked_for():
    text = "# wrong\nFROM a AS b\n# v is good\nARG v\n# bad\nARG w\n"
    assert rules(converted(text)) == []
    assert rules(converted("# check=experimental=all\n" + text)) == [
        ("InvalidDefinitionDescription", 3),
        ("InvalidDefinitionDescription", 7),
    ]


def test_skipping():
    text = "FROM a AS Build\nCMD b\n"
    assert rules(converted("# check=skip=all\n" + text)) == []
    assert rules(converted("# check=skip=StageNameCasing\n" + text)) == [("JSONArgsRecommended", 3)]
    assert rules(
        converted(
            "# check=skip=all\n" + text,
            build_args=(("BUILDKIT_DOCKERFILE_CHECK", "skip=JSONArgsRecommended"),),
        )
    ) == [("StageNameCasing", 2)]


def test_skipping_for_one_instruction():
    text = "FROM a\n# check=skip=JSONArgsRecommended\nCMD b\nENTRYPOINT c\n"
    assert rules(converted(text)) == [("JSONArgsRecommended", 4)]


def test_warnings_can_be_errors():
    with pytest.raises(DockerfileError) as caught:
        converted("# check=error=true\nFROM a AS Build\nCMD b\n")
    assert caught.value.message == "lint violation found for rules: JSONArgsRecommended, StageNameCasing"
    assert caught.value.code == "lint-violation"
    assert converted("# check=error=true;skip=JSONArgsRecommended\nFROM a\nCMD b\n").warnings == ()


@pytest.mark.parametrize(
    "text", ["foo", "skip", "error=maybe", "skip=a;error=true;experimental=b;x=y", "a=b"]
)
def test_bad_control(text):
    with pytest.raises(DockerfileError, match="invalid check option"):
        LintConfig.parse(text)


def test_unneeded_stages_are_checked_when_asked():
    text = "FROM a AS unused\nCMD b\nFROM c\n"
    assert rules(converted(text)) == []
    assert rules(converted(text, all_stages=True)) == [("JSONArgsRecommended", 2)]


def test_pages():
    found = converted("FROM a AS Build\n").warnings[0]
    assert found.url == "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    assert found.detail == "Stage names should be lowercase"
    assert str(found) == "StageNameCasing: Stage name 'Build' should be lowercase (line 1)"
    assert len(RULES) == 23
