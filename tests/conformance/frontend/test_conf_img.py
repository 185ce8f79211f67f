"""The image's config and history (IMG and HIS rows)."""

from __future__ import annotations

import pytest

from builder.oci.platform import Platform
from tests.support.buildlab import Lab
from tests.support.dockerfiles import AMD64, FakeResolver, base_image, converted, history
from tests.support.rows import row

COMMENT = "buildkit.dockerfile.v0"
EVERYTHING = """\
FROM busybox
MAINTAINER me
ENV K=v
LABEL one=1
USER app
EXPOSE 80
VOLUME /v
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-c"]
HEALTHCHECK --interval=30s --timeout=1s --start-period=2s --start-interval=3s --retries=3 CMD x
ENTRYPOINT ["a"]
CMD ["b"]
ONBUILD RUN t
WORKDIR /w
"""


@row("IMG-01")
@pytest.mark.root
def test_the_whole_config(lab: Lab) -> None:
    found = lab.quick(EVERYTHING).json
    assert {"created", "author", "architecture", "os", "config", "rootfs", "history"} == set(found)
    assert found["rootfs"]["type"] == "layers"
    assert len(found["rootfs"]["diff_ids"]) == 2
    config = found["config"]
    assert config.pop("Env")[-1] == "K=v"
    assert config == {
        "User": "app",
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["a"],
        "Cmd": ["b"],
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Labels": {"one": "1"},
        "StopSignal": "SIGINT",
        "ArgsEscaped": True,
        "Healthcheck": {
            "Test": ["CMD-SHELL", "x"],
            "Interval": 30_000_000_000,
            "Timeout": 1_000_000_000,
            "StartPeriod": 2_000_000_000,
            "StartInterval": 3_000_000_000,
            "Retries": 3,
        },
        "OnBuild": ["RUN t"],
        "Shell": ["/bin/ash", "-c"],
    }
    assert set(lab.quick("FROM scratch\nCOPY f /\n", {"f": ""}).json["config"]) == {"Env", "WorkingDir"}


@row("IMG-02")
@pytest.mark.parametrize(
    ("base", "wanted", "found"),
    [
        (Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7"), "linux/arm/v7"),
        (Platform("linux", "arm64", "v9"), Platform("linux", "arm64"), "linux/arm64/v9"),
        (Platform("linux", "arm64"), Platform("linux", "arm64", "v8"), "linux/arm64"),
        (Platform("linux", "arm64", "v9"), AMD64, "linux/amd64"),
        (AMD64, Platform("linux", "arm", ""), "linux/arm/v7"),
    ],
)
def test_the_platform_that_was_asked_for(base: Platform, wanted: Platform, found: str) -> None:
    resolver = FakeResolver({"docker.io/library/a:latest": base_image(base)})
    made = converted("FROM a\n", resolver, platform=wanted, platform_explicit=True)
    assert str(made.config.platform) == found


@row("IMG-02")
def test_versions_of_the_operating_system() -> None:
    base = Platform("windows", "amd64", os_version="10.0.1", os_features=("win32k",))
    resolver = FakeResolver({"docker.io/library/a:latest": base_image(base)})
    same = converted("FROM a\n", resolver, platform=Platform("windows", "amd64"), platform_explicit=True)
    assert (same.config.platform.os_version, same.config.platform.os_features) == ("10.0.1", ("win32k",))
    other = converted("FROM a\n", resolver, platform=AMD64, platform_explicit=True)
    assert (other.config.platform.os_version, other.config.platform.os_features) == ("", ())


@row("HIS-01", "HIS-06")
@pytest.mark.root
def test_entries(lab: Lab) -> None:
    base = lab.quick("FROM busybox\nENV B=1\n", tags=("his:1",))
    built = lab.quick("FROM his:1\nENV A=1\nRUN true\nCOPY f /\nWORKDIR /\nWORKDIR /w\n", {"f": ""})
    entries = built.config.history
    count = len(base.config.history)
    assert entries[:count] == base.config.history
    own = entries[count:]
    assert [entry.empty_layer for entry in own] == [True, False, False, True, False]
    assert {entry.comment for entry in own} == {COMMENT}
    assert all(entry.created for entry in own)
    assert sum(not entry.empty_layer for entry in entries) == len(built.config.diff_ids) == built.layers
    bare = lab.quick('FROM scratch\nENV A=1\nCMD ["x"]\n')
    assert (bare.layers, len(bare.config.history)) == (0, 2)
    assert {entry.created for entry in bare.config.history} == {bare.json["created"]}, "without any layer too"
    timed = converted("FROM a\nENV a=b\nRUN x\n", epoch=0).config.history[1:]
    assert {entry.created for entry in timed} == {"1970-01-01T00:00:00Z"}


@row("HIS-02")
def test_run() -> None:
    def last(text, **changes):
        return history(converted(text, **changes))[-1]

    assert last('FROM a\nRUN ["x", "y z"]\n') == "RUN x y z # buildkit"
    assert last("FROM a\nRUN echo  hi\n") == "RUN /bin/sh -c echo  hi # buildkit"
    text = "FROM a\nARG one\nARG two=2\nENV two=env\nARG one=1 three\nRUN x\n"
    assert last(text) == "RUN |3 one=1 two=env three= /bin/sh -c x # buildkit"
    assert last("FROM a\nARG v=1\nARG w=2\nARG v=3\nRUN x\n") == "RUN |2 v=3 w=2 /bin/sh -c x # buildkit"
    assert last("FROM a\nARG v=1\nRUN x\n", build_args=(("v", "9"),)) == "RUN |1 v=9 /bin/sh -c x # buildkit"


@row("HIS-03")
def test_copy_and_add() -> None:
    text = (
        "FROM a\nARG v=x\nCOPY --link --exclude=e --parents --chmod=700 --chown=1:2 $v b* /d/\n"
        "ADD --unpack=false f .\nCOPY <<one <<'two' p q/\n1\none\n2\ntwo\nCOPY --from=0 p q\n"
    ).replace("--from=0", "--from=other")
    assert history(converted(text))[1:] == [
        "COPY --parents --chown=1:2 --chmod=700 x b* /d/ # buildkit",
        "ADD f . # buildkit",
        "COPY p <<one <<two q/ # buildkit",
        "COPY p q # buildkit",
    ]


@row("HIS-04")
def test_workdir() -> None:
    found = history(converted("FROM a\nWORKDIR /w\nWORKDIR x\nWORKDIR /\n"))
    assert found == ["WORKDIR /w", "WORKDIR /w/x", "· WORKDIR /"]


@row("HIS-05")
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('ENV a=b c="d e"', "ENV a=b c=d e"),
        ("LABEL x=$v", "LABEL x=1"),
        ("ARG p q=2", "ARG p q=2"),
        ('CMD ["a", "b \\" c"]', 'CMD ["a" "b \\" c"]'),
        ("CMD a b", 'CMD ["/bin/sh" "-c" "a b"]'),
        ('ENTRYPOINT ["a", "b"]', 'ENTRYPOINT ["a" "b"]'),
        ("ENTRYPOINT []", "ENTRYPOINT []"),
        ("USER x", "USER x"),
        ("EXPOSE 80 443", "EXPOSE [443/tcp 80/tcp]"),
        ('VOLUME ["/a", "/b"]', "VOLUME [/a /b]"),
        ("STOPSIGNAL 9", "STOPSIGNAL 9"),
        ('SHELL ["/bin/sh", "-c"]', "SHELL [/bin/sh -c]"),
        ("MAINTAINER x y", "MAINTAINER x y"),
        ("HEALTHCHECK --interval=30s CMD x",
         "HEALTHCHECK {Test:[CMD-SHELL x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"),
    ],
)  # fmt: skip
def test_empty_layers(line: str, text: str) -> None:
    assert history(converted(f"FROM a\nARG v=1\n{line}\n"))[-1] == f"· {text}"


@row("HIS-05")
def test_triggers_leave_no_entry() -> None:
    assert history(converted("FROM a\nONBUILD RUN x\n")) == []
