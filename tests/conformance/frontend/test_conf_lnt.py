"""Warnings (LNT rows)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import DockerfileError
from builder.frontend.lintrules import RULES
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import AMD64, ARM64, FakeResolver, base_image, converted, rules
from tests.support.rows import row

WITHOUT_PAGE = ("InvalidBaseImagePlatform", "MultipleSourcesToFile")
"""The second is a rule that only this builder has (CPY-09)."""


def found(text, resolver=None, **changes):
    return [(w.rule, w.message, w.span.start) for w in converted(text, resolver, **changes).warnings]


def one(rule, message, line=2):
    return [(rule, message, line)]


@row("LNT-01")
@pytest.mark.root
def test_warnings_of_builds_and_checks(lab: Lab, command: Runner, tmp_path: Path) -> None:
    text = "FROM scratch AS Big\n"
    (warning,) = lab.quick(text).result.warnings
    assert str(warning) == "StageNameCasing: Stage name 'Big' should be lowercase (line 1)"
    assert warning.url == "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    assert warning.detail == "Stage names should be lowercase"
    (tmp_path / "Dockerfile").write_text(text)
    checked = command.run("build", "--check", tmp_path, status=1)
    assert (
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
        in checked.out
    )
    for name, rule in RULES.items():
        kebab = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)(?=[A-Z])", "-", name).lower()
        assert rule.page == kebab or name in WITHOUT_PAGE


@row("LNT-02")
@pytest.mark.root
def test_one_warning_for_several_platforms(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS Big\n")
    words = ("build", "--call=check,format=json", "--platform=linux/amd64,linux/arm64")
    checked = command.run(*words, tmp_path, status=1)
    assert len(json.loads(checked.out)["warnings"]) == 1
    built = command.run("build", "--progress=plain", "--platform=linux/amd64,linux/arm64", tmp_path)
    assert "1 warning found" in built.err


@row("LNT-03")
def test_control() -> None:
    text = "FROM a AS Big\nCMD x\n"
    both = [("StageNameCasing", 2), ("JSONArgsRecommended", 3)]
    assert rules(converted("# check=error=false\n" + text)) == both
    assert rules(converted("# check=skip=JSONArgsRecommended;error=false\n" + text)) == both[:1]
    assert rules(converted("# check=skip=JSONArgsRecommended,StageNameCasing\n" + text)) == []
    assert rules(converted("# check=skip=all\n" + text)) == []
    assert rules(converted("# check=\n" + text)) == rules(converted("# check= \n" + text)) == both
    replaced = (("BUILDKIT_DOCKERFILE_CHECK", "skip=StageNameCasing"),)
    assert rules(converted("# check=skip=all\n" + text, build_args=replaced)) == both[1:]
    assert rules(converted("# check=experimental=all\n# odd\nFROM a AS b\n")) == [
        ("InvalidDefinitionDescription", 3)
    ]
    for bad in ("foo=1", "skip=a;error=true;experimental=b;skip=c"):
        with pytest.raises(DockerfileError, match=re.escape(f'invalid check option "{bad}"')):
            converted(f"# check={bad}\nFROM a\n")
    for text, line in (
        ("# syntax=docker/dockerfile\n# check=x=1\nFROM a\n", 2),
        ("FROM a\n# check=x=1\nRUN x\n", 3),
    ):
        with pytest.raises(DockerfileError, match='invalid check option "x=1"') as caught:
            converted(text)
        assert [span.start for span in caught.value.spans] == [line]


@row("LNT-04")
def test_warnings_as_errors() -> None:
    with pytest.raises(DockerfileError) as caught:
        converted("# check=error=true\nFROM a AS Big\nCMD x\nENTRYPOINT y\n")
    assert caught.value.message == "lint violation found for rules: JSONArgsRecommended, StageNameCasing"


@row("LNT-05")
def test_control_of_one_instruction() -> None:
    text = "FROM a\n# words\n# check=skip=JSONArgsRecommended\n# more words\nCMD x\nENTRYPOINT y\n"
    assert rules(converted(text)) == [("JSONArgsRecommended", 6)]
    text = "FROM a AS x\n# odd\n# check=experimental=InvalidDefinitionDescription\nFROM a AS b\n# odd\nFROM a AS c\n"
    assert rules(converted(text)) == [("InvalidDefinitionDescription", 4)]
    text = "# check=experimental=all\n# odd\n# check=skip=all\nFROM a AS b\n# odd\nFROM a AS c\n"
    assert rules(converted(text)) == [("InvalidDefinitionDescription", 6)]


@row("LNT-10")
def test_stage_name_casing() -> None:
    assert found("FROM a AS Big\n") == one("StageNameCasing", "Stage name 'Big' should be lowercase", 1)


@row("LNT-11")
def test_from_as_casing() -> None:
    assert found("FROM a as b\n") == one("FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1)
    assert found("from a AS b\n") == one("FromAsCasing", "'AS' and 'from' keywords' casing do not match", 1)
    assert found("from a as b\n") == []


@row("LNT-12")
def test_empty_continuation() -> None:
    assert found("FROM a\nRUN x \\\n\n y\n")[0][:2] == ("NoEmptyContinuation", "Empty continuation line")
    assert found("FROM a\nRUN x \\\n# note\n y\n") == []


@row("LNT-13")
def test_instruction_casing() -> None:
    def message(name, kind):
        return f"Command '{name}' should match the case of the command majority ({kind})"

    rule = "ConsistentInstructionCasing"
    assert found("FROM a\nRUN x\nrun y\n") == one(rule, message("run", "uppercase"), 3)
    assert found("from a\nrun x\nRUN y\n") == one(rule, message("RUN", "lowercase"), 3)
    assert found("FROM a\nrun y\n") == one(rule, message("run", "uppercase")), "a tie is upper case"
    assert found("from a\nRun y\n") == one(rule, message("Run", "lowercase")), "mixed case always"


@row("LNT-14")
def test_duplicate_names() -> None:
    message = 'Duplicate stage name "b", stage names should be unique'
    assert found("FROM a AS b\nFROM a AS b\n") == one("DuplicateStageName", message)


@row("LNT-15")
@pytest.mark.parametrize("name", ["context", "scratch"])
def test_reserved_names(name: str) -> None:
    message = f'Stage name should not use the same name as reserved stage "{name}"'
    assert found(f"FROM a AS {name}\n") == one("ReservedStageName", message, 1)


@row("LNT-16")
@pytest.mark.parametrize("name", ["CMD", "ENTRYPOINT"])
def test_json_recommended(name: str) -> None:
    message = f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
    assert found(f"FROM a\n{name} x\n") == one("JSONArgsRecommended", message)
    assert found(f'FROM a\n{name} ["x"]\n') == []
    assert found(f'FROM a\nSHELL ["s"]\n{name} x\n') == []
    shell = FakeResolver({"docker.io/library/a:latest": base_image(shell=("s",))})
    assert found(f"FROM a\n{name} x\n", shell) == []


@row("LNT-17")
def test_maintainer() -> None:
    message = "Maintainer instruction is deprecated in favor of using label"
    assert found("FROM a\nMAINTAINER x\n") == one("MaintainerDeprecated", message)


@row("LNT-18")
def test_undefined_argument_in_from() -> None:
    text = "FROM argument '{}' is not declared{}"
    assert found("ARG vers=1\nFROM a$ver\n") == one(
        "UndefinedArgInFrom", text.format("ver", " (did you mean vers?)")
    )
    assert found("FROM a$other\n") == one("UndefinedArgInFrom", text.format("other", ""), 1)
    assert found("FROM --platform=linux/amd64$plat a\n") == one(
        "UndefinedArgInFrom", text.format("plat", ""), 1
    )
    assert found("FROM --platform=$BUILDPLATFORM a\n") == []
    for form in ("-1", ":-1", "+1", ":+1"):
        assert found("FROM a:x${other" + form + "}\n") == one(
            "UndefinedArgInFrom", text.format("other", ""), 1
        ), form
        assert found("ARG other\nFROM a:x${other" + form + "}\n", build_args=(("other", "2"),)) == [], form


@row("LNT-19")
def test_relative_workdir() -> None:
    message = 'Relative workdir "w" can have unexpected results if the base image changes'
    assert found("FROM a\nWORKDIR w\nWORKDIR x\n") == one("WorkdirRelativePath", message)
    assert found("FROM a AS b\nWORKDIR /w\nFROM b\nWORKDIR x\n") == []


@row("LNT-20")
def test_undefined_variables() -> None:
    message = "Usage of undefined variable '${}'{}"
    for line in ("ENV x=$un", "LABEL x=$un", "COPY $un d", "ADD f $un/d", "USER a$un", "WORKDIR /$un", "EXPOSE 1$un",
                 "VOLUME /$un", "ARG x=$un", "COPY --chown=1$un f d",
                 "RUN --mount=type=cache,target=/x$un true"):  # fmt: skip
        assert found(f"FROM a\n{line}\n") == one("UndefinedVar", message.format("un", "")), line
    near = found("FROM a\nARG name=1\nENV x=$nam\n")
    assert near == one("UndefinedVar", message.format("nam", " (did you mean $name?)"), 3)
    for form in ("-1", ":-1", "+1", ":+1", "#x", "/a/b"):
        assert found("FROM a\nENV x=${un" + form + "}\n") == one("UndefinedVar", message.format("un", "")), (
            form
        )
        assert found("FROM a\nARG un\nENV x=${un" + form + "}\n") == [], form
    assert found("FROM a\nENV x=$BUILDKIT_SBOM_SCAN_STAGE\n") == [], "never part of an environment (ARG-11)"
    for line in ("RUN $un", 'CMD ["$un"]', 'ENTRYPOINT ["$un"]', "ARG un\nENV x=$un"):
        assert found(f"FROM a\n{line}\n") == [], line


@row("LNT-21")
@pytest.mark.parametrize(
    ("name", "args"), [("CMD", '["x"]'), ("ENTRYPOINT", '["x"]'), ("HEALTHCHECK", "NONE")]
)
def test_repeated(name: str, args: str) -> None:
    message = f"Multiple {name} instructions should not be used in the same stage because only the last one will be used"
    assert found(f"FROM a\n{name} {args}\n{name} {args}\n") == one("MultipleInstructionsDisallowed", message)
    assert found(f"FROM a AS b\n{name} {args}\nFROM b\n{name} {args}\n") == []


@row("LNT-22")
@pytest.mark.parametrize("name", ["ENV", "LABEL"])
def test_legacy_pairs(name: str) -> None:
    message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
    assert found(f"FROM a\n{name} k v\n") == one("LegacyKeyValueFormat", message)


@row("LNT-23")
def test_base_platform() -> None:
    other = FakeResolver({"docker.io/library/a:latest": base_image(ARM64)})
    message = 'Base image a was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    assert found("FROM a\n", other, platform_explicit=True) == one("InvalidBaseImagePlatform", message, 1)
    assert converted("FROM a\n", other, platform_explicit=True).warnings[0].url == ""
    assert found("FROM a\n", FakeResolver({"docker.io/library/a:latest": base_image(AMD64)})) == []


@row("LNT-24")
def test_redundant_platform() -> None:
    for text in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        message = (
            f"Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        )
        assert found(f"FROM --platform={text} a\n") == one("RedundantTargetPlatform", message, 1)


@row("LNT-25")
def test_secrets() -> None:
    message = 'Do not use ARG or ENV instructions for sensitive data ({} "{}")'
    words = (
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    )
    for word in words:
        for key in (word, word.upper(), f"MY_{word}", f"{word}_X"):
            assert found(f"FROM a\nARG {key}\n") == one("SecretsUsedInArgOrEnv", message.format("ARG", key))
            assert found(f"FROM a\nENV {key}=x\n") == one("SecretsUsedInArgOrEnv", message.format("ENV", key))
    for key in ("PUBLIC_KEY", "KEY_FILE", "TOKEN_VERSION", "MONKEY", "KEYS", "AUTHOR"):
        assert found(f"FROM a\nENV {key}=x\n") == [], key


@row("LNT-26")
def test_default_of_a_base_name() -> None:
    message = "Default value for ARG {} results in empty or invalid base image name"
    given = (("V", "1"),)
    assert found("ARG V\nFROM $V\n", build_args=(("V", "a"),)) == one(
        "InvalidDefaultArgInFrom", message.format("$V")
    )
    assert found("ARG V\nFROM a:$V\n", build_args=given) == one(
        "InvalidDefaultArgInFrom", message.format("a:$V")
    )
    assert found("ARG V=2\nFROM a:$V\n", build_args=given) == []
    assert found("ARG V\nFROM a:${V:-2}\n", build_args=given) == []


@row("LNT-27")
def test_constant_platform() -> None:
    message = 'FROM --platform flag should not use constant value "linux/amd64"'
    assert found("FROM --platform=linux/amd64 a AS b\n") == one("FromPlatformFlagConstDisallowed", message, 1)
    assert found("FROM --platform=linux/amd64 a AS b_amd64\n") == []
    assert found("FROM --platform=linux/amd64 a AS b_linux\n") == []
    assert found("FROM --platform=linux/x86_64 a AS amd64-x\n") == [], "by its usual name too"


@row("LNT-28")
def test_ignored_sources() -> None:
    def of(patterns, *lines):
        text = "FROM a\n" + "\n".join(lines) + "\n"
        return [(line, message) for _, message, line in found(text, ignore=IgnoreMatcher(patterns))]

    message = 'Attempting to {} file "{}" that is excluded by .dockerignore'
    assert of(["s"], "COPY s d", "ADD s/x d") == [
        (2, message.format("Copy", "s")),
        (3, message.format("Add", "s/x")),
    ]
    assert of(["s", "!t"], "COPY s d") == []
    assert of(["s"], "COPY . d", "COPY --from=a s d") == []
    for everything in ("*", "**", "**/*"):
        assert of([everything], "COPY . d") == [(2, message.format("Copy", "."))]


@row("LNT-29")
def test_descriptions() -> None:
    text = "# odd words\nARG v=1\n# b is good\nFROM a AS b\n# odd\nFROM a AS c\n"
    assert found(text) == []
    rule, message = (
        "InvalidDefinitionDescription",
        "Comment for {} should follow the format: `# {} <description>`",
    )
    wanted = [(rule, message.format("ARG", "v"), 3), (rule, message.format("FROM", "c"), 7)]
    for control in (
        "experimental=InvalidDefinitionDescription",
        "experimental=all",
        "skip=all;experimental=all",
    ):
        assert found(f"# check={control}\n" + text) == wanted, "not skipped with the others"
    text = "# check=experimental=all\n# w is fine\nARG v=1 w\n# no\nARG x y\n# B is odd\nFROM a AS b\n# odd\n#\nARG z\n"
    assert found(text) == [
        (rule, message.format("ARG", "<arg_key>"), 5),
        (rule, message.format("FROM", "b"), 7),
    ]


@row("LNT-30")
def test_protocol_casing() -> None:
    message = "Defined protocol 'TCP' in EXPOSE instruction should be lowercase"
    assert found("FROM a\nEXPOSE 80/TCP\n") == one("ExposeProtoCasing", message)


@row("LNT-31")
@pytest.mark.parametrize("port", ["1:80", "127.0.0.1:1:80/tcp"])
def test_host_ports(port: str) -> None:
    message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
    assert found(f"FROM a\nEXPOSE {port}\n") == one("ExposeInvalidFormat", message)
