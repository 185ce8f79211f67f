"""What a build puts into the image's config: metadata, arguments, history, triggers, platforms."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from builder.errors import PybuildError
from builder.images.select import platform_manifest
from builder.oci.platform import Platform, host_platform
from tests.support.buildlab import Built, Lab

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("config"))
    yield made
    made.close()


def layered(built: Built) -> int:
    return sum(1 for entry in built.config.history if not entry.empty_layer)


EVERYTHING = """\
FROM busybox
MAINTAINER somebody
ARG A=1
ARG B
ENV K=v S="a b"
LABEL one=1 two="$K"
WORKDIR /w
WORKDIR /
RUN echo $A
RUN ["true", "x"]
COPY --chown=1:2 --chmod=700 --link f g* /d/
ADD --exclude=x f /e/
COPY --parents f /p/
USER app
EXPOSE 80 443/udp
VOLUME /v ["/u"]
VOLUME ["/x", "/y"]
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-e", "-c"]
HEALTHCHECK --interval=30s --retries=3 CMD wget x
ENTRYPOINT ["a", "b"]
CMD run it
ONBUILD RUN touch /triggered
"""


def test_history_and_layers(lab: Lab) -> None:
    """HIS-01…06."""
    built = lab.quick(EVERYTHING, {"f": "f", "g1": "g"}, build_args=(("B", "two words"),))
    entries = [(h.created_by, h.empty_layer) for h in built.config.history[1:]]
    assert entries == [
        ("MAINTAINER somebody", True),
        ("ARG A=1", True),
        ("ARG B=two words", True),
        ("ENV K=v S=a b", True),
        ("LABEL one=1 two=v", True),
        ("WORKDIR /w", False),
        ("WORKDIR /", True),
        ("RUN |2 A=1 B=two words /bin/sh -c echo $A # buildkit", False),
        ("RUN |2 A=1 B=two words true x # buildkit", False),
        ("COPY --chown=1:2 --chmod=700 f g* /d/ # buildkit", False),
        ("ADD f /e/ # buildkit", False),
        ("COPY --parents f /p/ # buildkit", False),
        ("USER app", True),
        ("EXPOSE [443/udp 80/tcp]", True),
        ("VOLUME [/v [/u]]", True),
        ("VOLUME [/x /y]", True),
        ("STOPSIGNAL SIGINT", True),
        ("SHELL [/bin/sh -e -c]", True),
        (
            "HEALTHCHECK {Test:[CMD-SHELL wget x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
            True,
        ),
        ('ENTRYPOINT ["a" "b"]', True),
        ('CMD ["/bin/sh" "-e" "-c" "run it"]', True),
    ]
    assert layered(built) == built.layers == len(built.config.diff_ids)
    assert all(entry.comment == "buildkit.dockerfile.v0" for entry in built.config.history[1:])
    assert all(entry.created for entry in built.config.history)


def test_config_fields(lab: Lab) -> None:
    """IMG-01, FRM-12, MET rows."""
    config = lab.quick(EVERYTHING, {"f": "f", "g1": "g"}).json
    assert config["author"] == "somebody"
    run = config["config"]
    assert run["User"] == "app"
    assert run["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "K=v", "S=a b"]
    assert run["Labels"] == {"one": "1", "two": "v"}
    assert sorted(run["ExposedPorts"]) == ["443/udp", "80/tcp"]
    assert {"/x", "/y", "/v"} <= set(run["Volumes"])
    assert run["Healthcheck"] == {"Test": ["CMD-SHELL", "wget x"], "Interval": 30_000_000_000, "Retries": 3}
    assert (run["Entrypoint"], run["Cmd"]) == (["a", "b"], ["/bin/sh", "-e", "-c", "run it"])
    assert (run["StopSignal"], run["WorkingDir"], run["OnBuild"]) == ("SIGINT", "/", ["RUN touch /triggered"])
    assert run["ArgsEscaped"] is True
    scratch = lab.quick("FROM scratch\nCOPY f /\n", {"f": ""}).json["config"]
    assert scratch["WorkingDir"] == "/"
    assert [entry.partition("=")[0] for entry in scratch["Env"]] == ["PATH"]


def test_labels_of_the_command_win(lab: Lab) -> None:
    """LBL-01."""
    built = lab.quick("FROM scratch\nLABEL a=file b=file\n", labels=(("a", "flag"), ("c", "")))
    assert built.json["config"]["Labels"] == {"a": "flag", "b": "file", "c": ""}
    assert built.layers == 0


def test_argument_scopes(lab: Lab) -> None:
    """ARG-01…08."""
    text = (
        "ARG BASE=busybox\nARG G=global\nARG H=${G}-derived\nFROM $BASE AS one\n"
        "ARG G\nARG H=own\nARG L=local M=${L}x\nRUN echo $G:$H:$L:$M:$BASE: > /1\nENV L=env\nRUN echo $L > /2\n"
        "ARG L=again\nRUN echo $L > /3\n"
        "FROM one AS two\nRUN echo $G:$H:$M: > /4\n"
        "FROM busybox\nRUN echo $G:$H: > /5\nARG EMPTY=default\nRUN echo [$EMPTY] > /6\nCOPY --from=two /1 /2 /3 /4 /\n"
    )
    plain = lab.quick(text)
    assert plain.read("1").startswith("global:own:local:")
    assert plain.read("4").startswith("global:own:")
    assert [plain.read(name) for name in "2356"] == ["env\n", "again\n", "::\n", "[default]\n"]
    given = lab.quick(text, build_args=(("G", "g"), ("H", "h"), ("L", "l"), ("EMPTY", ""), ("UNKNOWN", "u")))
    assert given.read("1").startswith("g:h:l:")
    assert given.read("6") == "[]\n"
    assert given.result.unused_build_args == ("UNKNOWN",)
    assert not [entry for entry in given.json["config"]["Env"] if entry.startswith(("G=", "H="))]


def test_platform_arguments(lab: Lab) -> None:
    """ARG-09."""
    here = host_platform()
    text = (
        "FROM busybox AS last\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH TARGETSTAGE\n"
        'RUN echo "$TARGETPLATFORM $TARGETOS $TARGETARCH [$TARGETVARIANT] $BUILDPLATFORM $BUILDARCH $TARGETSTAGE" > /p\n'
        "RUN echo [$BUILDOS] > /q\n"
    )
    built = lab.quick(text)
    assert built.read("p") == f"{here} linux {here.architecture} [] {here} {here.architecture} last\n"
    assert built.read("q") == "[]\n"
    cross = lab.quick(
        "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo for $TARGETARCH > /out\n"
        "FROM scratch\nARG TARGETPLATFORM\nENV P=$TARGETPLATFORM\nCOPY --from=make /out /\n",
        platforms=("linux/arm/v7",),
    )
    assert cross.read("out") == "for arm\n"
    assert (cross.json["architecture"], cross.json["variant"]) == ("arm", "v7")
    assert "P=linux/arm/v7" in cross.json["config"]["Env"]


def test_several_platforms_make_an_index(lab: Lab) -> None:
    """PLT-03."""
    root = lab.context({"f": "f"})
    result = lab.build(
        root,
        "FROM --platform=$BUILDPLATFORM busybox AS make\nRUN echo once > /once\nFROM scratch\nARG TARGETARCH\n"
        "COPY --from=make /once /\nCOPY f /$TARGETARCH\n",
        platforms=("linux/amd64", "linux/arm64", "linux/amd64"),
        tags=("multi:1",),
    )
    assert lab.steps_run().count("[linux/amd64 make 2/2] RUN echo once > /once") <= 1
    assert sum("echo once" in name for name in lab.steps_run()) == 1
    image = lab.store.images.resolve("multi:1")
    assert image is not None
    index = json.loads(lab.store.blobs.read(image.manifest.digest, 1 << 20))
    assert index["mediaType"].endswith("index.v1+json")
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]
    for arch in ("amd64", "arm64"):
        found = platform_manifest(lab.store, image.manifest, Platform.parse(f"linux/{arch}"), "multi")
        assert found.config.platform.architecture == arch
        assert Built(lab, result, f"linux/{arch}").has(arch)
    again = lab.build(root, platforms=("linux/amd64", "linux/arm64"), tags=("multi:1",))
    assert again.digest == result.digest


def test_onbuild(lab: Lab) -> None:
    """ONB rows."""
    parent = lab.quick(
        "FROM busybox\nONBUILD ARG who=nobody\nONBUILD COPY f /copied\nONBUILD RUN echo $who > /ran\nONBUILD WORKDIR /on\n",
        tags=("parent:1",),
    )
    assert parent.json["config"]["OnBuild"][1] == "COPY f /copied"
    child = lab.quick("FROM parent:1\nRUN pwd > /pwd\n", {"f": "child"}, build_args=(("who", "me"),))
    assert (child.read("copied"), child.read("ran"), child.read("pwd")) == ("child", "me\n", "/on\n")
    assert "OnBuild" not in child.json["config"]
    assert any(name.startswith("[3/5] ONBUILD RUN") for name in lab.watcher.ran()), lab.watcher.ran()
    stages = lab.quick("FROM busybox AS p\nONBUILD RUN touch /t\nFROM p AS c\nFROM c\nRUN ls / > /ls\n")
    assert stages.has("t")
    broken = "FROM parent:1\n"
    with pytest.raises(PybuildError, match=r"\"/f\": not found") as caught:
        lab.quick(broken)
    assert getattr(caught.value, "first_line", None) == 1


def test_base_config_is_inherited(lab: Lab) -> None:
    """FRM-11, MET-04."""
    lab.quick(
        'FROM busybox\nENV A=1\nUSER app\nWORKDIR /x\nENTRYPOINT ["e"]\nCMD ["c"]\nLABEL l=1\nEXPOSE 1\n',
        tags=("base:1",),
    )
    child = lab.quick("FROM base:1\nENV A=2\nRUN pwd; id -u > /tmp/u\n")
    run = child.json["config"]
    assert (run["User"], run["WorkingDir"], run["Cmd"], run["Labels"]) == ("app", "/x", ["c"], {"l": "1"})
    assert [entry for entry in run["Env"] if entry.startswith("A=")] == ["A=2"]
    reset = lab.quick('FROM base:1\nENTRYPOINT ["new"]\n').json["config"]
    assert "Cmd" not in reset or reset["Cmd"] is None
    assert layered(child) == child.layers == 3


def test_cached_rebuild_gives_the_same_image(lab: Lab) -> None:
    """HIS-01: times come from the steps, not from the moment of export."""
    text = "FROM busybox\nENV A=1\nRUN echo x > /x\nLABEL l=1\nCOPY f /f\n"
    root = lab.context({"f": "f"})
    first = lab.build(root, text)
    assert lab.build(root).image_id == first.image_id
    (root / "Dockerfile").write_text(text + "LABEL l=2\n")
    second = Built(lab, lab.build(root))
    assert not lab.steps_run()
    one, two = Built(lab, first).config.history, second.config.history
    assert [h.created for h in one if not h.empty_layer] == [h.created for h in two if not h.empty_layer]
    third = lab.build(root, labels=(("x", "y"),))
    assert third.image_id not in (first.image_id, second.id)
    assert not lab.steps_run()


def test_source_date_epoch(lab: Lab) -> None:
    """EPO-01."""
    built = lab.quick(
        "FROM scratch\nWORKDIR /w\nCOPY f /f\n", {"f": "f"}, build_args=(("SOURCE_DATE_EPOCH", "1000000000"),)
    )
    assert built.json["created"].startswith("2001-09-09T01:46:40")
    assert {h.created[:19] for h in built.config.history} == {"2001-09-09T01:46:40"}
    assert built.stat("w").st_mtime == 1_000_000_000


def test_stage_targets(lab: Lab) -> None:
    """FRM-06, FRM-07."""
    text = "FROM busybox AS One\nRUN touch /one\nFROM nowhere.invalid/x AS bad\nRUN x\nFROM one AS two\nRUN touch /two\n"
    root = lab.context({"Dockerfile": text})
    assert Built(lab, lab.build(root, target="ONE")).has("one")
    assert Built(lab, lab.build(root)).has("two")
    for wrong in ("tow", "0"):
        with pytest.raises(PybuildError, match=f'target stage "{wrong}" could not be found'):
            lab.build(root, target=wrong)
