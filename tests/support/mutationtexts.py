"""Cases of the mutation test of the cache: changes of the Dockerfile and of the options of a build."""

from __future__ import annotations

from collections.abc import Iterator

from builder.solver.causes import Cause
from builder.solver.types import Secret
from tests.support.mutationcases import FINAL, NOTHING, RUNS, Case, argument, each, variable
from tests.support.mutations import NAMES, all_of, content, dockerfile, options

DEFAULT = "the default in the Dockerfile"
GIVEN = "given with --build-arg"
COPY_RUN = "[build 3/6] COPY --chmod=0755 run.sh /usr/bin/run"
COPY_SRC = "[build 4/6] COPY src src"
BUILD = (
    "RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token "
    "    cp -R src /out && echo $USED > /out/used"
)


def text_cases() -> Iterator[Case]:
    for old, new in (
        ("FROM base AS build\n", "# a comment\nFROM base AS build\n"),
        ("COPY src src\n", "\n\n\nCOPY src src\n"),
        ("COPY src src\n", "copy src src\n"),
        ("COPY src src\n", "COPY    src   src\n"),
        ("WORKDIR /src", "workdir /src"),
        ("WORKDIR /src", "WORKDIR /src/"),
        ("FROM base AS test", "from base as test"),
        ("RUN ls tests", "RUN ls tests && false"),
        ("COPY tests tests", "COPY tests checks"),
        ("LABEL stage=final", "LABEL stage=other"),
        ('CMD ["/usr/bin/run"]', 'CMD ["/usr/bin/run", "-v"]'),
        ('CMD ["/usr/bin/run"]\n', 'CMD ["/usr/bin/run"]\nEXPOSE 80\nUSER 12\nSTOPSIGNAL 9\n'),
        ("ARG BASE=busybox\n", "ARG BASE=busybox\nARG LATER=1\n"),
        ("ARG BASE=busybox", "ARG BASE=docker.io/library/busybox:latest"),
        ("FROM busybox AS final", "FROM busybox AS finale"),
        ("FROM busybox AS final", "FROM busybox AS between\nRUN touch /b\n\nFROM busybox AS final"),
        ("RUN --mount=type=cache", "RUN --network=none --mount=type=cache"),  # as all builds of the lab
        ("--mount=type=cache,target=/root/.cache ", "--mount=target=/root/.cache,type=cache "),
        ("COPY --from=build /deps /deps", "COPY --from=BUILD /deps /deps"),
    ):
        yield Case(f"text {new!r}", dockerfile(old, new), NOTHING)
    yield Case(
        "prepare text",
        dockerfile("RUN echo prepare", "RUN echo prepare1"),
        {"RUN echo prepare1"},
        (Cause("command", "", "RUN echo prepare", "RUN echo prepare1"),),
    )
    yield Case(
        "prepare leaves a file",
        dockerfile("RUN echo prepare", "RUN echo prepare > /p"),
        {"RUN echo prepare > /p", "mods", "deps", "src", "run", "build", "assets"},
        (Cause("command", "", "RUN echo prepare", "RUN echo prepare > /p"),),
        own={"mods": (Cause("upstream", "[base 3/3] RUN echo prepare > /p"),)},
    )
    for name, old, new in (
        ("secret's id", "id=token", "id=token2"),
        ("no secret mount", "--mount=type=secret,id=token ", ""),
        ("cache mount's place", "/root/.cache", "/root/.other"),
        ("a mount more", "RUN --mount=type=cache", "RUN --mount=type=tmpfs,target=/t --mount=type=cache"),
    ):
        text = Cause("command", "", BUILD, BUILD.replace(old, new))
        yield Case(name, dockerfile(old, new), {"build"}, (text,))
    yield Case(
        "order of two copies",
        dockerfile(
            "COPY src src\nCOPY --chmod=0755 run.sh /usr/bin/run\n",
            "COPY --chmod=0755 run.sh /usr/bin/run\nCOPY src src\n",
        ),
        {"run", "src", "build", "assets"},
        (Cause("upstream", NAMES["deps"], NAMES["src"], NAMES["deps"]),),
        own={
            "src": (Cause("upstream", COPY_RUN, NAMES["deps"], COPY_RUN),),
            "build": (Cause("upstream", COPY_SRC, NAMES["run"], COPY_SRC),),
        },
    )
    chown = "COPY --chown=7 docs /docs"
    yield Case(
        "owner of a copy",
        dockerfile("COPY docs /docs", chown),
        {chown, "mode"},
        (Cause("command", "", "COPY docs /docs", chown),),
        own={"mode": (Cause("upstream", f"[final 4/5] {chown}"),)},
    )
    chmod = "COPY --chmod=0700 run.sh /usr/bin/run"
    yield Case(
        "mode of a copy",
        dockerfile("--chmod=0755", "--chmod=0700"),
        {chmod, "build", "assets"},
        (Cause("command", "", "COPY --chmod=0755 run.sh /usr/bin/run", chmod),),
        own={"build": (Cause("upstream", f"[build 4/6] {chmod}"),)},
    )
    yield Case(
        "a step more",
        dockerfile("ENV MODE=prod", "RUN touch /inserted\nENV MODE=prod"),
        {"RUN touch /inserted", "mode"},
        (Cause("new"),),
        own={"mode": (_moved("[final 5/6] RUN touch /inserted", "[final 4/5] COPY docs /docs"),)},
    )
    yield Case(
        "a step less",
        dockerfile("COPY docs /docs\n", ""),
        {"mode"},
        (_moved("[final 3/4] COPY --from=build /deps /deps", "[final 4/5] COPY docs /docs"),),
    )
    yield Case(
        "a here-document",
        dockerfile("RUN echo prepare\n", "RUN <<EOF\ntouch /h\nEOF\n"),
        {"RUN <<EOF (touch /h)", "mods", "deps", "src", "run", "build", "assets"},
        (Cause("command", "", "RUN echo prepare", "RUN <<EOF"),),
        own={"mods": (Cause("upstream", "[base 3/3] RUN <<EOF (touch /h)"),)},
    )
    yield Case(
        "another name of a stage, and a file",
        all_of(dockerfile("FROM busybox AS final", "FROM busybox AS finale"), content("docs/index.md", "n")),
        {"docs", "mode"},
        (Cause("file-changed", "docs/index.md"),),
        names={"docs": "[finale 4/5] COPY docs /docs"},
    )


def _moved(now: str, before: str) -> Cause:
    return Cause("upstream", now, before, now)


def value_cases() -> Iterator[Case]:
    color = variable("COLOR", "red", "blue")
    yield Case("ENV in base", dockerfile("=red", "=blue"), RUNS, (color,), each(RUNS, color), frozenset(RUNS))
    more = variable("MORE", "", "1")
    yield Case(
        "ENV added", dockerfile("=red", "=red MORE=1"), RUNS, (more,), each(RUNS, more), frozenset(RUNS)
    )
    gone = variable("COLOR", "red", "")
    yield Case(
        "ENV gone", dockerfile("ENV COLOR=red\n", ""), RUNS, (gone,), each(RUNS, gone), frozenset(RUNS)
    )
    yield Case("ENV in final", dockerfile("=prod", "=dev"), {"mode"}, (variable("MODE", "prod", "dev"),))
    for name, change, after, note in (
        ("default of ARG", dockerfile("ARG USED=1", "ARG USED=2"), "2", DEFAULT),
        ("ARG of the step", options(build_args=(("USED", "3"),)), "3", GIVEN),
    ):
        used = argument("USED", "1", after, note)
        built = NAMES["build"].replace("echo 1", f"echo {after}")
        yield Case(
            name,
            change,
            RUNS | FINAL,
            (used,),
            each(RUNS, used),
            frozenset({"prepare", "deps"}),
            {"build": built},
        )
    idle = argument("IDLE", "1", "2", GIVEN)
    yield Case(
        "ARG that only stands in the environment",
        options(build_args=(("IDLE", "2"),)),
        RUNS,
        (idle,),
        each(RUNS, idle),
        frozenset(RUNS),
    )
    both = (argument("IDLE", "1", "7", DEFAULT), variable("COLOR", "red", "7"))
    yield Case(
        "ENV from ARG",
        all_of(dockerfile("ARG IDLE=1", "ARG IDLE=7"), dockerfile("COLOR=red", "COLOR=$IDLE")),
        RUNS,
        both,
        each(RUNS, *both),
        frozenset(RUNS),
    )
    default = argument("IDLE", "1", "8", GIVEN)
    yield Case(
        "default of ARG that --build-arg overrides",
        all_of(dockerfile("ARG IDLE=1", "ARG IDLE=7"), options(build_args=(("IDLE", "8"),))),
        RUNS,
        (default,),
        each(RUNS, default),
        frozenset(RUNS),
    )
    yield Case("ARG at its default", options(build_args=(("USED", "1"),)), NOTHING)
    yield Case("ARG nobody declares", options(build_args=(("NOBODY", "2"),)), NOTHING)
    yield Case(
        "variable and file",
        all_of(dockerfile("=prod", "=dev"), content("docs/index.md", "v")),
        {"docs", "mode"},
        (Cause("file-changed", "docs/index.md"),),
        own={"mode": (variable("MODE", "prod", "dev"),)},
    )


def option_cases() -> Iterator[Case]:
    yield Case("proxy", options(build_args=(("HTTP_PROXY", "http://127.0.0.1:9"),)), NOTHING)
    yield Case("label", options(labels=(("a", "b"),)), NOTHING)
    yield Case("tag", options(tags=("other:1",)), NOTHING)
    yield Case("secret's value", options(secrets=(Secret(id="token", data=b"2"),)), NOTHING)
    yield Case("no secret", options(secrets=()), NOTHING)
    yield Case("a secret nobody asks for", options(secrets=(Secret(id="x", data=b"2"),)), NOTHING)
    yield Case("parallelism", options(max_parallelism=1), NOTHING)
    yield Case("target base", options(target="base"), NOTHING)
    yield Case("target test", options(target="test"), NOTHING)
    runs = RUNS | {"mode"}
    host = Cause("option", "--add-host", "none", "db")
    yield Case(
        "a host's address",
        options(extra_hosts=(("db", "10.0.0.1"),)),
        runs,
        (host,),
        each(runs, host),
        frozenset(RUNS),
    )
    size = Cause("mount", "the mount at /dev/shm", "none", "type=tmpfs, size_bytes=1048576")
    yield Case(
        "size of /dev/shm",
        options(shm_size_bytes=1 << 20),
        runs,
        (size,),
        each(runs, size),
        frozenset(RUNS),
    )
    every = {*NAMES} - {"tests", "ls"}
    anew = Cause("no-cache", "--no-cache")
    yield Case("no cache", options(no_cache=True), every, (anew,), each(every, anew))
    some = Cause("no-cache", "--no-cache-filter=final")
    yield Case("no cache for a stage", options(no_cache_filter=("final",)), FINAL, (some,), each(FINAL, some))
