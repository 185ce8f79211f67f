"""Stages, bases, global arguments, named contexts, ONBUILD: sections 5, 6, 11 and 13 of the rows."""

from __future__ import annotations

import pytest

from builder.errors import PybuildError
from builder.frontend.errors import DockerfileError
from builder.oci.platform import Platform
from tests.support.dockerfiles import (
    AMD64,
    ARM64,
    FakeResolver,
    base_image,
    converted,
    copies,
    execs,
    history,
    names,
    ops,
)


def problem(text, resolver=None, **changes):
    with pytest.raises(DockerfileError) as caught:
        converted(text, resolver, **changes)
    assert caught.value.source is not None
    return caught.value


def images(conversion):
    return [op.identifier.partition("@")[0] for op in ops(conversion, "SourceOp")]


def test_a_base_image_is_pinned_to_its_digest():
    found = converted("FROM alpine\nRUN a\n")
    (source,) = ops(found, "SourceOp")
    assert source.identifier.startswith("docker-image://docker.io/library/alpine:latest@sha256:")
    assert found.definition.vertices[0].platform == AMD64
    assert found.bases[0].ref == "docker.io/library/alpine:latest"


def test_scratch_has_no_tree():
    found = converted("FROM scratch\nENV a=b\n")
    assert found.definition.head is None
    assert found.config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "a=b")
    assert found.config.workdir == "/"
    assert found.base_config is None


def test_an_image_without_layers_is_scratch():
    resolver = FakeResolver({"docker.io/library/a:latest": base_image(diff_ids=(), history=())})
    assert converted("FROM a\nENV a=b\n", resolver).definition.head is None


def test_only_reachable_stages_are_asked_for():
    resolver = FakeResolver()
    text = "FROM a AS one\nFROM b AS two\nFROM c AS three\nCOPY --from=one x y\n"
    assert converted(text, resolver).stages == ("one", "three")
    assert sorted(ref for ref, _, _ in resolver.asked) == [
        "docker.io/library/a:latest",
        "docker.io/library/c:latest",
    ]
    assert len(resolver.prefetched) == 2
    assert converted(text, target="TWO").stages == ("two",)
    assert len(converted(text, all_stages=True).stages) == 3


def test_every_image_is_asked_for_once():
    resolver = FakeResolver()
    converted(
        "FROM a AS x\nFROM a\nCOPY --from=x b c\nCOPY --from=a b c\nRUN --mount=from=a,target=/t d\n",
        resolver,
    )
    assert len(resolver.asked) == 1


def test_from_stage_continues_it():
    found = converted('FROM a AS b\nARG v=1\nENV e=f\nWORKDIR /w\nUSER u\nSHELL ["s"]\nFROM b\nRUN echo\n')
    meta = execs(found)[0].meta
    assert (meta.cwd, meta.user, meta.args) == ("/w", "u", ("s", "echo"))
    assert meta.env == ("PATH=/usr/bin:/bin", "v=1", "e=f")
    assert history(found)[-1] == "RUN |1 v=1 s echo # buildkit"
    assert found.config.history[0].created_by == "base layer"


def test_duplicate_names_mean_the_last_before_use():
    found = converted("FROM a AS x\nRUN 1\nFROM b AS x\nRUN 2\nFROM x\nFROM c AS x\n", target="x")
    assert images(found) == ["docker-image://docker.io/library/c:latest"]
    found = converted("FROM a AS x\nRUN 1\nFROM b AS x\nRUN 2\nFROM X\nRUN 3\n")
    assert [op.meta.args[2] for op in execs(found)] == ["2", "3"]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("ARG a\n", "empty-dockerfile", "dockerfile contains no stages to build"),
        (
            "RUN a\n",
            "dockerfile-syntax",
            "dockerfile parse error on line 1: no build stage in current context",
        ),
        ("FROM $u\n", "invalid-instruction", "base name ($u) should not be blank"),
        ("FROM A:b:c\n", "invalid-instruction", 'failed to parse stage name "A:b:c": '),
        ("FROM --platform=$u a\n", "invalid-instruction", "empty platform value from expression $u"),
        ("FROM --platform=x/y/z/w a\n", "invalid-instruction", "failed to parse platform x/y/z/w: "),
        ("FROM ${u:?no} \n", "expansion-problem", 'failed to process "${u:?no}": u: no'),
        ("FROM a AS b\nCOPY --from=b x y\n", "circular-stages", "circular dependency detected on stage: b"),
        (
            "FROM a AS b\nCOPY --from=c x y\nFROM b AS c\n",
            "circular-stages",
            "circular dependency detected on stage",
        ),
        ("FROM a\nCOPY --from=1 x y\n", "unknown-stage", "invalid stage index 1"),
        ("FROM a\nCOPY --from=0 x y\n", "circular-stages", "circular dependency detected on stage: stage-0"),
    ],
)
def test_refused(text, code, message):
    found = problem(text)
    assert found.code == code
    assert message in found.message
    assert found.spans or code == "empty-dockerfile"


def test_circular_stages_show_every_line():
    found = problem("FROM x AS a\nCOPY --from=b x y\nFROM x AS b\nCOPY --from=a x y\n")
    assert [span.start for span in found.spans] == [2, 4]


def test_a_later_stage_cannot_be_copied_from():
    found = problem("FROM x AS a\nCOPY --from=b x y\nFROM x AS b\n", target="a")
    assert found.message == 'cannot copy from stage "b", it needs to be defined before current stage "a"'
    assert found.span.start == 2
    found = problem("FROM x AS a\nRUN --mount=from=b,target=/t y\nFROM x AS b\n", target="a")
    assert found.message.startswith('cannot mount from stage "b" to "/t", stage needs')


def test_unknown_target():
    found = problem("FROM a AS build\n", target="biuld")
    assert found.message == 'target stage "biuld" could not be found (did you mean build?)'
    assert found.code == "unknown-stage"


def test_a_missing_image_names_the_line_and_a_likely_name():
    with pytest.raises(PybuildError) as caught:
        converted("FROM alpone\n", FakeResolver(missing=("docker.io/library/alpone:latest",)))
    assert caught.value.hint == "did you mean alpine?"
    assert (caught.value.filename, caught.value.first_line) == ("Dockerfile", 1)


def test_copy_from_index_stage_and_image():
    found = converted(
        "FROM a\nRUN 1\nFROM b\nCOPY --from=0 x y\nCOPY --from=c:1 x y\nCOPY --from=scratch x y\n"
    )
    assert images(found) == [f"docker-image://docker.io/library/{x}" for x in ("b:latest", "a:latest", "c:1")]
    actions = [action for op in ops(found, "FileOp") for action in op.actions]
    assert [action.secondary for action in actions] == [1, 1, -1]


# Arguments


def test_global_arguments_reach_from_lines_only():
    found = converted("ARG V=1\nARG W=x$V\nFROM a:$W\nRUN r\nARG V\nRUN r\nARG V=2\nRUN r\n")
    assert images(found) == ["docker-image://docker.io/library/a:x1"]
    assert [op.meta.env[1:] for op in execs(found)] == [(), ("V=1",), ("V=2",)]


def test_build_arguments_win_over_defaults():
    text = "ARG V=1\nFROM a:$V\nARG V=2\nARG W=${U?x}\nRUN r\n"
    found = converted(
        text, build_args=(("V", "9"), ("W", ""), ("X", "1"), ("http_proxy", "p"), ("TARGETARCH", "z"))
    )
    assert images(found) == ["docker-image://docker.io/library/a:9"]
    assert execs(found)[0].meta.env[1:] == ("V=9", "W=")
    assert found.unused_build_args == ("X",)


def test_env_and_arg_order():
    found = converted("FROM a\nENV V=1\nARG V\nRUN r\nARG V=2\nRUN r\nENV V=3\nRUN r\n")
    assert [op.meta.env[1] for op in execs(found)] == ["V=1", "V=2", "V=3"]
    assert found.config.env == ("PATH=/usr/bin:/bin", "V=3")


def test_platform_arguments():
    found = converted(
        "FROM --platform=$BUILDPLATFORM a AS b\n"
        "ARG TARGETPLATFORM TARGETARCH TARGETVARIANT TARGETOS BUILDARCH TARGETSTAGE\nRUN r\n",
        platform=Platform("linux", "arm", "v7"),
    )
    assert execs(found)[0].meta.env[1:] == (
        "TARGETPLATFORM=linux/arm/v7",
        "TARGETARCH=arm",
        "TARGETVARIANT=v7",
        "TARGETOS=linux",
        "BUILDARCH=amd64",
        "TARGETSTAGE=b",
    )
    assert found.definition.vertices[0].platform == AMD64


def test_proxies_go_to_every_run_but_not_into_history():
    found = converted("FROM a\nRUN r\n", build_args=(("HTTPS_PROXY", "p"), ("no_proxy", "n")))
    meta = execs(found)[0].meta
    assert meta.proxy_env == (
        ("HTTPS_PROXY", "p"),
        ("https_proxy", "p"),
        ("NO_PROXY", "n"),
        ("no_proxy", "n"),
    )
    assert history(found) == ["RUN /bin/sh -c r # buildkit"]
    assert "PROXY" not in "".join(meta.env)


def test_arguments_that_are_no_environment():
    found = converted("FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN r\n")
    assert execs(found)[0].meta.env == ("PATH=/usr/bin:/bin",)


def test_fileop_cannot_be_switched_off():
    assert (
        "BUILDKIT_DISABLE_FILEOP"
        in problem("FROM a\n", build_args=(("BUILDKIT_DISABLE_FILEOP", "1"),)).message
    )


# Platforms


def test_an_image_of_another_platform_is_linted_or_adopted():
    configs = {"docker.io/library/a:latest": base_image(ARM64)}
    found = converted("FROM a\nRUN r\n", FakeResolver(configs), platform_explicit=True)
    assert [w.rule for w in found.warnings] == ["InvalidBaseImagePlatform"]
    assert found.warnings[0].message == (
        'Base image a was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    )
    assert found.config.platform == AMD64
    found = converted("FROM a\nRUN r\n", FakeResolver(configs), supported_platforms=(AMD64, ARM64))
    assert found.warnings == ()
    assert found.platform == ARM64
    found = converted("FROM a AS b\nFROM b\nRUN r\n", FakeResolver(configs), supported_platforms=(ARM64,))
    assert found.definition.vertices[-1].platform == ARM64


def test_multi_platform_names():
    found = converted(
        "FROM --platform=$BUILDPLATFORM a AS b\nARG TARGETOS TARGETARCH\nRUN r\nFROM c\nCOPY --from=b x y\n",
        platform=ARM64,
        multi_platform=True,
    )
    assert names(found)[1:] == [
        names(found)[1],
        "[linux/amd64->arm64 b 2/2] RUN r",
        "[linux/arm64 stage-1 2/2] COPY --from=b x y",
    ]
    assert {name.partition("] ")[0] for name in names(found)[:2]} == {
        "[linux/arm64 stage-1 1/2",
        "[linux/amd64 b 1/2",
    }


# Named contexts


def test_a_named_context_replaces_a_stage():
    found = converted(
        "FROM a AS dep\nRUN slow\nFROM b\nCOPY --from=dep x y\n",
        FakeResolver(contexts={"dep": ("local", "local://dep")}),
    )
    assert images(found) == ["docker-image://docker.io/library/b:latest", "local://dep"]
    assert execs(found) == []
    assert found.contexts == ("dep",)
    assert ops(found, "SourceOp")[1].attr("local.followpaths") == '["x"]'


def test_a_named_context_replaces_an_image():
    contexts = {"alpine": ("image", "docker-image://docker.io/library/busybox:1")}
    found = converted("FROM alpine\nRUN r\n", FakeResolver(contexts=contexts))
    assert images(found) == ["docker-image://docker.io/library/busybox:1"]
    assert names(found)[0].startswith("[context alpine] docker.io/library/busybox:1@sha256:")
    found = converted("FROM docker.io/library/alpine:latest\nRUN r\n", FakeResolver(contexts=contexts))
    assert images(found) == ["docker-image://docker.io/library/busybox:1"]


@pytest.mark.parametrize(
    ("context", "identifier", "attr"),
    [
        (("git", "https://h/r.git#v1"), "git://h/r.git#v1", ("git.fullurl", "https://h/r.git")),
        (("http", "https://h/x.tar"), "https://h/x.tar", ("http.filename", "context")),
        (("local", "local://n"), "local://n", ("local.followpaths", "")),
    ],
)
def test_kinds_of_named_contexts(context, identifier, attr):
    found = converted("FROM n\nRUN r\n", FakeResolver(contexts={"n": context}))
    (source,) = ops(found, "SourceOp")
    assert source.identifier == identifier
    assert source.attr(attr[0]) == attr[1]
    assert found.config.env[0].startswith("PATH=")


def test_a_scratch_context_is_empty():
    assert converted("FROM n\n", FakeResolver(contexts={"n": ("scratch",)})).definition.head is None


# ONBUILD


def test_triggers_of_a_base_image_run_first_and_are_gone():
    configs = {
        "docker.io/library/a:latest": base_image(on_build=("COPY --from=tool x y", "RUN echo \\\n hi"))
    }
    resolver = FakeResolver(configs)
    found = converted("FROM a\nRUN own\n", resolver)
    assert [name.partition("@")[0] for name in names(found)] == [
        "[1/4] FROM docker.io/library/a:latest",
        "FROM docker.io/library/tool:latest",
        "[2/4] ONBUILD COPY --from=tool x y",
        "[3/4] ONBUILD RUN echo  hi",
        "[4/4] RUN own",
    ]
    assert found.config.on_build == ()
    assert found.definition.vertices[2].meta.source.start == 1


def test_triggers_of_a_stage_run_in_its_child_only():
    found = converted("FROM a AS b\nONBUILD RUN t\nFROM b AS c\nRUN c\nFROM c\nRUN d\n")
    assert [op.meta.args[2] for op in execs(found)] == ["t", "c", "d"]
    assert found.config.on_build == ()
    assert converted("FROM a\nONBUILD RUN t\nONBUILD ENV a=b\n").config.on_build == ("RUN t", "ENV a=b")


@pytest.mark.parametrize("trigger", ["RUN a\nRUN b", "FOO x", "RUN <<E\nx", ""])
def test_bad_triggers_point_at_from(trigger):
    configs = {"docker.io/library/a:latest": base_image(on_build=(trigger,))}
    found = problem("FROM a\n", FakeResolver(configs))
    assert found.span.start == 1


def test_trigger_heredocs():
    configs = {"docker.io/library/a:latest": base_image(on_build=("RUN <<E\nbody\nE",))}
    found = converted("FROM a\n", FakeResolver(configs))
    assert execs(found)[0].meta.args == ("/bin/sh", "-c", "body\n")


# No cache


def test_no_cache_for_named_stages():
    text = "FROM a AS x\nRUN 1\nFROM b\nCOPY --from=x p q\n"
    found = converted(text, no_cache=("X",))
    assert [v.meta.name.split("] ")[1] for v in found.definition.vertices if v.meta.ignore_cache] == ["RUN 1"]
    assert sum(v.meta.ignore_cache for v in converted(text, no_cache=True).definition.vertices) == 2


def test_copies_use_the_context_only_as_needed():
    found = converted("FROM a\nCOPY b c /d/\nRUN --mount=source=e,target=/f g\n")
    (local,) = [op for op in ops(found, "SourceOp") if op.identifier == "local://context"]
    assert local.attr("local.followpaths") == '["b","c","e"]'
    found = converted("FROM a\nCOPY b c\nCOPY . .\n")
    (local,) = [op for op in ops(found, "SourceOp") if op.identifier == "local://context"]
    assert local.attrs == ()
    assert [copy.src for copy in copies(found)] == ["/b", "/"]
