"""COPY, and what ADD has in common with it (CPY-01…18)."""

from __future__ import annotations

import os
import stat

import pytest

from builder.errors import PybuildError, SolveError
from builder.frontend.errors import DockerfileError
from builder.llb.ops import MergeOp
from tests.support.buildlab import Built, Lab
from tests.support.dockerfiles import FakeResolver, converted, copies, ops
from tests.support.rows import row

root_only = pytest.mark.root


def problem(text, **changes):
    with pytest.raises(DockerfileError) as caught:
        converted(text, **changes)
    return caught.value


@row("CPY-01")
def test_flags() -> None:
    converted(
        "FROM a AS s\nFROM a\nCOPY --from=s --chown=1 --chmod=600 --link --exclude=x --exclude=y --parents b c/\n"
        "ADD --chown=1 --chmod=600 --link --keep-git-dir=false --unpack=true --exclude=x b c\n"
    )
    for line in ("COPY --keep-git-dir a b", "COPY --unpack a b", "ADD --from=x a b", "ADD --parents a b"):
        assert "unknown flag: " + line.split()[1].partition("=")[0] in problem(f"FROM a\n{line}\n").message


@row("CPY-02")
def test_what_is_expanded() -> None:
    text = "FROM a\nARG v=7\nCOPY --chown=$v --chmod=60$v --exclude=$v $v-a /d$v\n"
    (found,) = copies(converted(text))
    assert (found.src, found.dest, found.mode, found.owner.user.id) == ("/7-a", "/d7", 0o607, 7)
    assert found.exclude_patterns == ("$v",)
    digest = "a" * 64
    added = converted(f"FROM a\nARG v={digest}\nADD --checksum=sha256:$v https://h/f /\n")
    assert ops(added, "SourceOp")[1].attr("http.checksum") == f"sha256:{digest}"
    assert (
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
        "as a workaround"
    ) in problem("FROM a\nCOPY --from=$x a b\n").message


@row("CPY-03")
def test_from() -> None:
    resolver = FakeResolver()
    text = "FROM a AS One\nRUN x\nFROM b\nCOPY --from=oNE p q\nCOPY --from=0 p q\nCOPY --from=img p q\n"
    found = converted(text, resolver)
    assert len(ops(found, "ExecOp")) == 1
    assert "docker.io/library/img:latest" in [ref for ref, _, _ in resolver.asked]
    local = FakeResolver(contexts={"named": ("local", "local://named")})
    assert [
        s.identifier for s in ops(converted("FROM scratch\nCOPY --from=named p q\n", local), "SourceOp")
    ] == ["local://named"]
    assert problem("FROM a\nCOPY --from=3 p q\n").message == "invalid stage index 3"
    assert problem("FROM a\nCOPY --from=0 p q\n").message == "circular dependency detected on stage: stage-0"
    for name in ("TWO", "1"):
        late = problem(f"FROM a AS one\nCOPY --from={name} p q\nFROM b AS two\n", target="one")
        expected = f'cannot copy from stage "{name}", it needs to be defined before current stage "one"'
        assert late.message == expected, "the name as it is typed"
    late = problem("FROM a AS one\nCOPY --from=two p q\nFROM b AS two\n", target="one")
    assert late.message == ('cannot copy from stage "two", it needs to be defined before current stage "one"')


@row("CPY-04")
@root_only
def test_sources_are_clamped_and_must_exist(lab: Lab) -> None:
    built = lab.quick("FROM scratch\nCOPY /a /1\nCOPY ../../a /2\nCOPY x/../../a /3\n", {"a": "A"})
    assert built.read("1") == built.read("2") == built.read("3") == "A"
    with pytest.raises(PybuildError, match=r'failed to calculate checksum of ref .*: "/gone": not found'):
        lab.quick("FROM busybox\nRUN echo this must not run\nCOPY gone /\n")
    assert not lab.steps_run(), "the missing file is known before anything runs"
    with pytest.raises(PybuildError, match=r'failed to calculate checksum of ref .*: "/gone": not found'):
        lab.quick("FROM busybox AS s\nFROM scratch\nCOPY --from=s gone /\n")


@row("CPY-05")
@root_only
def test_destinations(lab: Lab) -> None:
    built = lab.quick(
        "FROM scratch\nWORKDIR /w\nCOPY a rel\nCOPY a dir/\nCOPY a .\nCOPY a ./x/\nCOPY a /p/q/r\n"
        "COPY --chmod=700 --chown=3:4 a /s/t/u\n",
        {"a": "A"},
    )
    assert built.names("w") == ["a", "dir", "rel", "x"]
    assert built.read("w/dir/a") == built.read("w/x/a") == "A"
    made = built.stat("p/q")
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o755, 0, 0)
    made = built.stat("s/t")
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o700, 3, 4)


@row("CPY-06")
@root_only
def test_a_directory_means_what_is_in_it(lab: Lab) -> None:
    built = lab.quick("FROM scratch\nCOPY d /1\nCOPY d/ /2\nCOPY d d2 /3/\n", {"d/x": "x", "d2/y": "y"})
    assert (built.names("1"), built.names("2"), built.names("3")) == (["x"], ["x"], ["x", "y"])


@row("CPY-07")
@root_only
def test_modes_of_directories(lab: Lab) -> None:
    context = lab.context({"d/sub/f": "new", "Dockerfile": ""})
    for name, mode, when in (("d", 0o700, 1_000_000_000), ("d/sub", 0o711, 1_100_000_000)):
        (context / name).chmod(mode)
        os.utime(context / name, (when, when))
    built = Built(
        lab,
        lab.build(
            context,
            "FROM busybox\nRUN mkdir -p /old/sub && chmod 1777 /old && chown 5:6 /old && chmod 755 /old/sub"
            " && chown 5:6 /old/sub && echo kept > /old/kept\n"
            "COPY d /new\nCOPY d /old\nCOPY --chown=8:9 --chmod=750 d /own\n",
        ),
    )
    new, old, own = built.stat("new"), built.stat("old"), built.stat("own")
    assert (new.st_mode & 0o7777, new.st_uid, int(new.st_mtime)) == (0o755, 0, 1_000_000_000)
    assert (old.st_mode & 0o7777, old.st_uid, old.st_gid, int(old.st_mtime)) == (0o1777, 5, 6, 1_000_000_000)
    assert (own.st_mode & 0o7777, own.st_uid, own.st_gid) == (0o750, 8, 9)
    below = built.stat("old/sub")
    assert (below.st_mode & 0o7777, below.st_uid, int(below.st_mtime)) == (0o711, 0, 1_100_000_000)
    below = built.stat("own/sub")
    assert (below.st_mode & 0o7777, below.st_uid) == (0o750, 8)
    assert built.read("old/kept") == "kept\n"


@row("CPY-08")
@root_only
def test_a_file_and_its_place(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN mkdir /there && echo old > /over\nCOPY f /in/\nCOPY f /there\nCOPY f /name\nCOPY f /over\n",
        {"f": "F"},
    )
    assert built.read("in/f") == built.read("there/f") == built.read("name") == built.read("over") == "F"
    with pytest.raises(SolveError, match=r"cannot replace to directory .* with file"):
        lab.quick("FROM scratch\nCOPY d /t\nCOPY e /t\n", {"d/x/y": "", "e/x": ""})
    with pytest.raises(SolveError, match="cannot copy to non-directory: "):
        lab.quick("FROM scratch\nCOPY f /t\nCOPY d /t\n", {"d/x": "", "f": ""})


@row("CPY-09")
@root_only
def test_several_sources_to_one_name(lab: Lab) -> None:
    built = lab.quick("FROM scratch\nCOPY a b /d\n", {"a": "A", "b": "B"})
    assert built.read("d") == "B"
    assert any("/d" in str(warning) and warning.span.start == 2 for warning in built.result.warnings)
    assert not lab.quick("FROM scratch\nCOPY a b /d/\n", {"a": "A", "b": "B"}).result.warnings


@row("CPY-10")
@root_only
def test_wildcards(lab: Lab) -> None:
    files = {"a1": "1", "a2": "2", "b": "b", "x/a3": "3", "y/a3": "4"}
    built = lab.quick(
        "FROM scratch\nCOPY a? /q/\nCOPY [a-b] /class/\nCOPY */a3 /over\nCOPY none* b /with/\nCOPY none* /alone/\n"
        "COPY a* /flat/\n",
        files,
    )
    assert (built.names("q"), built.names("class"), built.names("flat")) == (
        ["a1", "a2"],
        ["b"],
        ["a1", "a2"],
    )
    assert built.read("over") == "4", "matches come in the order of their names"
    assert built.names("with") == ["b"]
    assert not built.has("alone/none")
    with pytest.raises(PybuildError, match="not found"):
        lab.quick("FROM scratch\nCOPY none /alone/\n", files)


@row("CPY-11")
@root_only
def test_links(lab: Lab) -> None:
    context = lab.context({"real/f": "F", "d/x": "x"})
    for name, target in (("dir", "real"), ("file", "/real/f"), ("d/inner", "../real/f")):
        (context / name).symlink_to(target)
    built = Built(
        lab,
        lab.build(
            context,
            "FROM busybox\nRUN mkdir /t && ln -s /t /abs && ln -s t /rel\nCOPY dir/f /1\nCOPY file /2\nCOPY fil* /3/\n"
            "COPY d /4\nCOPY file /abs/\nCOPY d /rel\n",
        ),
    )
    assert built.read("1") == built.read("2") == "F"
    assert [built.read(f"3/{name}") for name in built.names("3")] == ["F"]
    with built.tree() as view:
        assert view.readlink("4/inner") == "../real/f"
        assert view.readlink("abs") == "/t"
    assert built.names("t") == ["file", "inner", "x"]


@row("CPY-12")
@root_only
def test_owners(lab: Lab) -> None:
    context = lab.context({"f": "F", "d/x": "x"})
    os.chown(context / "f", 12, 13)
    built = Built(
        lab,
        lab.build(
            context,
            "FROM busybox AS s\nRUN echo x > /f && chown 21:22 /f\nFROM busybox\n"
            "RUN mkdir /have && echo 'me:x:9:10::/:' >> /etc/passwd && echo 'us:x:11:' >> /etc/group\n"
            "COPY f /1\nCOPY --from=s /f /2\nCOPY --chown=me f /3\nCOPY --chown=me:us f /4\nCOPY --chown=5 f /5\n"
            "COPY --chown=5:us f /new/parent/6\nCOPY --chown=me d /have\n",
        ),
    )
    owners = {name: (built.stat(name).st_uid, built.stat(name).st_gid)
              for name in ("1", "2", "3", "4", "5", "new/parent", "have", "have/x")}  # fmt: skip
    assert owners == {
        "1": (0, 0),
        "2": (21, 22),
        "3": (9, 10),
        "4": (9, 11),
        "5": (5, 5),
        "new/parent": (5, 11),
        "have": (0, 0),
        "have/x": (9, 10),
    }
    for wrong in ("nobody-here", "0:nogroup-here"):
        with pytest.raises(SolveError, match=wrong.rpartition(":")[2]) as caught:
            lab.quick(f"FROM busybox\nCOPY --chown={wrong} f /\n", {"f": ""})
        assert caught.value.first_line == 2


@row("CPY-13")
@root_only
def test_modes(lab: Lab) -> None:
    for bad in ("8", "10000", "rwx"):
        wanted = f"invalid chmod parameter: '{bad}'. it should be octal string and between 0 and 07777"
        assert problem(f"FROM a\nCOPY --chmod={bad} a b\n").message == wanted
    built = lab.quick(
        "FROM scratch\nCOPY --chmod=7751 d /octal\nCOPY --chmod=u=rwX,go=rX d /symbolic\n",
        {"d/x": ("x", 0o700), "d/y": ("y", 0o600)},
    )
    modes = {n: oct(built.stat(n).st_mode & 0o7777)
             for n in ("octal", "octal/x", "octal/y", "symbolic/x", "symbolic/y")}  # fmt: skip
    assert modes == {"octal": "0o7751", "octal/x": "0o7751", "octal/y": "0o7751",
                     "symbolic/x": "0o755", "symbolic/y": "0o644"}  # fmt: skip


@row("CPY-14")
@root_only
def test_what_a_copy_keeps(lab: Lab) -> None:
    context = lab.context({"d/a": ("1", 0o4755), "Dockerfile": "FROM scratch\nCOPY d /d\n"})
    os.link(context / "d/a", context / "d/b")
    os.setxattr(context / "d/a", "user.note", b"kept")
    os.utime(context / "d/a", ns=(1_234_567_890_123_456_789,) * 2)
    built = Built(lab, lab.build(context))
    found = built.stat("d/a")
    assert int(found.st_mtime) == 1_234_567_890
    assert found.st_mode & 0o7777 == 0o4755
    assert found.st_ino == built.stat("d/b").st_ino
    with built.tree() as view:
        assert view.xattrs("d/a")["user.note"] == b"kept"


@row("CPY-15")
@root_only
def test_the_ignore_file_filters_first(lab: Lab) -> None:
    files = {"keep": "k", "hidden": "h", ".dockerignore": "hidden\n"}
    assert "hidden" not in lab.quick("FROM scratch\nCOPY . /\n", files).names()
    with pytest.raises(PybuildError, match='"/hidden": not found'):
        lab.quick("FROM scratch\nCOPY hidden /\n", files)


@row("CPY-16")
@root_only
def test_link(lab: Lab) -> None:
    text = "FROM busybox\nRUN mkdir -m 700 /have && mkdir /t && ln -s t /ln && echo {} > /n\nCOPY --link f /have/\nCOPY --link f /ln/\n"
    one, two = (lab.quick(text.format(n), {"f": "F"}) for n in (1, 2))
    layers = [built.json["rootfs"]["diff_ids"] for built in (one, two)]
    assert layers[0][-2:] == layers[1][-2:]
    assert layers[0][-3] != layers[1][-3]
    assert not any("] COPY --link" in name for name in lab.steps_run()), "only the merge is made anew"
    assert one.names("ln") == ["f"]
    assert not one.has("t/f"), "a link of the base is not followed"
    assert stat.S_ISDIR(one.stat("ln").st_mode)
    assert one.stat("have").st_mode & 0o7777 == 0o755, "as if copied onto an empty root"
    own = text.replace("--link", "--link --chmod=640 --chown=3:4")
    one, two = (lab.quick(own.format(n), {"f": "F"}) for n in (1, 2))
    assert one.json["rootfs"]["diff_ids"][-2:] == two.json["rootfs"]["diff_ids"][-2:], "with a mode too"
    assert (one.stat("have/f").st_mode & 0o7777, one.stat("have/f").st_uid) == (0o640, 3)
    merged = converted("FROM a\nCOPY --link f /b/\n")
    assert ops(merged, "MergeOp") == [MergeOp(inputs=(0, 1))]


@row("CPY-17")
@root_only
def test_parents(lab: Lab) -> None:
    context = lab.context({"x/y/a.go": "1", "x/c.go": "2", "p/q/r/s": "3", "p/./t": "4"})
    (context / "x/y").chmod(0o700)
    built = Built(
        lab,
        lab.build(
            context,
            "FROM scratch\nCOPY --parents x/y/a.go /1/\nCOPY --parents p/./q/./r/s /2/\nCOPY --parents **/*.go /3/\n"
            "COPY --parents none/** /4/\n",
        ),
    )
    assert built.read("1/x/y/a.go") == "1"
    assert built.stat("1/x/y").st_mode & 0o7777 == 0o700
    assert built.read("2/q/r/s") == "3"
    assert (built.names("3"), built.names("3/x"), built.names("3/x/y")) == (["x"], ["c.go", "y"], ["a.go"])
    with pytest.raises(PybuildError, match="not found"):
        lab.build(context, "FROM scratch\nCOPY --parents x/none /\n")
    wild, literal = copies(converted("FROM a\nCOPY --parents x*/./none x/./none /\n"))
    assert (wild.required_paths, literal.required_paths) == ((), ("none",)), (
        "a wildcard before the pivot is one, too"
    )


@row("CPY-11", "CPY-17")
@root_only
def test_parents_through_links(lab: Lab) -> None:
    context = lab.context({"real/sub/f": "F", "real/sub/g.txt": "G", "loop/x": ""})
    (context / "real").chmod(0o711)
    for name, target in (("link", "real"), ("deep", "/link/sub"), ("real/sub/up", "../../..")):
        (context / name).symlink_to(target)
    (context / "loop/me").symlink_to("me")
    built = Built(
        lab,
        lab.build(
            context,
            "FROM scratch\nCOPY --parents link/sub/f /1/\nCOPY --parents deep/*.txt /2/\nCOPY --parents ./link/./sub /3/\n"
            "COPY --parents --exclude=link/sub/g.txt link/sub /4/\nCOPY --parents **/sub/f /5/\n",
        ),
    )
    assert built.read("1/link/sub/f") == "F"
    assert built.stat("1/link").st_mode & 0o177777 == 0o040711, (
        "a directory like the one that the link leads to"
    )
    assert (built.names("2"), built.names("2/deep")) == (["deep"], ["g.txt"])
    assert (built.names("3"), built.names("3/sub")) == (["sub"], ["f", "g.txt", "up"])
    assert built.names("4/link/sub") == ["f", "up"]
    assert built.names("5") == ["real"], "a wildcard goes through no link"
    for missing in ("link/none", "loop/me/x"):
        with pytest.raises(PybuildError, match=r"not found|too many"):
            lab.build(context, f"FROM scratch\nCOPY --parents {missing} /\n")
    (context / "real/sub/f").write_text("changed")
    again = Built(lab, lab.build(context, "FROM scratch\nCOPY --parents link/sub/f /1/\n"))
    assert again.read("1/link/sub/f") == "changed"
    stage = "FROM busybox AS s\nRUN mkdir -p /r && echo 1 > /r/f && ln -s /r /l\nFROM scratch\nCOPY --parents --from=s /l/f /\n"
    assert lab.quick(stage).read("l/f") == "1\n"


@row("CPY-18")
@root_only
def test_exclude(lab: Lab) -> None:
    files = {"d/a.txt": "", "d/sub/b.txt": "", "d/c": "", "top.txt": "", "top.md": ""}
    built = lab.quick(
        "FROM scratch\nCOPY --exclude=*.txt d /1\nCOPY --exclude=**/*.txt d /2\nCOPY --exclude=*.txt top.* /3/\n"
        "COPY --exclude=* --exclude=!c d /4\n",
        files,
    )
    assert (built.names("1"), built.names("1/sub")) == (["c", "sub"], ["b.txt"])
    assert built.names("2/sub") == []
    assert built.names("3") == ["top.md"], "a source that is a file is tested too"
    assert "c" in built.names("4")
    built = lab.quick("FROM scratch\nCOPY --exclude=sub d/* /1/\nCOPY --exclude=d d /2\n", files)
    assert built.names("1") == ["a.txt", "c"], "and one that is a directory, if a wildcard brought it along"
    assert built.names("2") == ["a.txt", "c", "sub"]
