"""COPY and ADD: section 9 of the rows, HDC-04, HDC-07, HIS-03."""

from __future__ import annotations

import pytest

from builder.frontend.convert.owner import parse_chmod
from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import DockerfileError
from builder.llb.ops import ChownOpt, Copy, MergeOp, UserOpt
from tests.support.dockerfiles import converted, copies, history, names, ops, rules


def copied(line, before="", **changes):
    return copies(converted(f"FROM a\n{before}{line}\n", **changes))


def problem(line, before=""):
    with pytest.raises(DockerfileError) as caught:
        converted(f"FROM a\n{before}{line}\n")
    assert caught.value.span is not None
    return caught.value.message


PLAIN = {
    "follow_symlink": True,
    "dir_contents": True,
    "create_dest_path": True,
    "allow_wildcard": True,
    "allow_empty_wildcard": True,
}


def test_copy():
    assert copied("COPY a /b") == [Copy(src="/a", dest="/b", **PLAIN)]
    assert copied("ADD a /b") == [Copy(src="/a", dest="/b", attempt_unpack=True, **PLAIN)]
    assert copied("ADD --unpack=false a /b") == [Copy(src="/a", dest="/b", **PLAIN)]


def test_variables_and_quotes():
    (found,) = copied('COPY "$x"/b $y', "ARG x=p y=/q\n")
    assert (found.src, found.dest) == ("/p/b", "/q")
    (found,) = copied('COPY ["a b", "c d/"]')
    assert (found.src, found.dest) == ("/a b", "/c d/")


@pytest.mark.parametrize(
    ("dest", "expected"),
    [
        ("b", "/w/b"),
        ("b/", "/w/b/"),
        (".", "/w/"),
        ("./", "/w/"),
        ("/", "/"),
        ("/b/./", "/b/"),
        ("../x", "/x"),
        ("/b/.", "/b/"),
    ],
)
def test_destinations(dest, expected):
    assert copied(f"COPY a {dest}", "WORKDIR /w\n")[0].dest == expected


@pytest.mark.parametrize(
    ("source", "expected"), [("../../a", "/a"), ("/a/", "/a"), (".", "/"), ("a/../b", "/b")]
)
def test_sources_stay_inside(source, expected):
    assert copied(f"COPY {source} /d")[0].src == expected


def test_several_sources_are_chained_actions_of_one_op():
    found = converted("FROM a\nCOPY b c d/\n")
    (op,) = ops(found, "FileOp")
    assert [(a.input, a.secondary, a.output) for a in op.actions] == [(0, 1, -1), (2, 1, 0)]


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("5", ChownOpt(user=UserOpt(id=5), group=UserOpt(id=5))),
        ("5:6", ChownOpt(user=UserOpt(id=5), group=UserOpt(id=6))),
        ("app", ChownOpt(user=UserOpt(name="app", input=0))),
        ("app:adm", ChownOpt(user=UserOpt(name="app", input=0), group=UserOpt(name="adm", input=0))),
        ("5:adm", ChownOpt(user=UserOpt(id=5), group=UserOpt(name="adm", input=0))),
        (":6", ChownOpt(user=UserOpt(id=0), group=UserOpt(id=6))),
    ],
)
def test_chown(text, owner):
    assert copied(f"COPY --chown={text} a b")[0].owner == owner


def test_chown_and_chmod_are_expanded():
    (found,) = copied("COPY --chown=$u --chmod=${m} a b", "ARG u=1 m=0750\n")
    assert (found.owner.user.id, found.mode, found.mode_str) == (1, 0o750, "")
    (found,) = copied("COPY --chmod=u=rwX,go=rX a b")
    assert (found.mode, found.mode_str) == (-1, "u=rwX,go=rX")


@pytest.mark.parametrize("text", ["8", "17777", "0o7", "u+z", "rw", "u=rw,", "+x,", "=q", "10000"])
def test_bad_modes(text):
    with pytest.raises(ValueError, match="it should be octal string and between 0 and 07777"):
        parse_chmod(text)
    assert problem(f"COPY --chmod={text} a b").startswith(f"invalid chmod parameter: '{text}'.")


@pytest.mark.parametrize("text", ["u+x", "a=rX", "+x", "u=g", "ug+rw-x", "go=", "u+s,o+t"])
def test_symbolic_modes(text):
    assert parse_chmod(text) == (-1, text)


def test_link_copies_onto_nothing_and_merges():
    found = converted("FROM a\nCOPY --link b /c/\n")
    (op,) = ops(found, "FileOp")
    assert (op.actions[0].input, op.actions[0].secondary) == (-1, 0)
    assert ops(found, "MergeOp") == [MergeOp(inputs=(0, 1))]
    assert [name.partition("] ")[2] or name for name in names(found)][-2:] == [
        "COPY --link b /c/",
        "LINK COPY --link b /c/",
    ]
    copy, merge = found.definition.vertices[-2:]
    assert copy.meta.progress_group == merge.meta.progress_group == "[2/2] COPY --link b /c/"
    assert ops(converted("FROM scratch\nCOPY --link b /c/\n"), "MergeOp") == []


def test_link_with_names_looks_them_up_below():
    found = converted("FROM a\nCOPY --link --chown=app b /c/\n")
    vertex = found.definition.vertices[-2]
    assert vertex.op.actions[0].input == -1
    assert vertex.inputs[vertex.op.actions[0].action.owner.user.input] == vertex.inputs[0]


def test_parents():
    (found,) = copied("COPY --parents a/./b/c d/")
    assert (found.src, found.include_patterns, found.required_paths) == ("/a", ("b/c",), ("b/c",))
    (found,) = copied("COPY --parents **/*.py d/")
    assert (found.src, found.include_patterns, found.required_paths) == ("/", ("**/*.py",), ())


def test_excludes():
    (found,) = copied("COPY --exclude=*.md --exclude=**/x a b")
    assert found.exclude_patterns == ("*.md", "**/x")
    (found,) = copied("COPY --exclude= --exclude=*.md a b")
    assert found.exclude_patterns == ("*.md",), "an empty line of an ignore file means nothing"
    assert "syntax error in pattern" in problem("COPY --exclude=[ a b")


def test_add_url():
    found = converted("FROM a\nADD --chmod=0644 https://h/x/f%20g.tgz?q=1 /d/\n")
    source = ops(found, "SourceOp")[1]
    assert source.identifier == "https://h/x/f%20g.tgz?q=1"
    assert source.attrs == (("http.filename", "f g.tgz"),)
    (copy,) = copies(found)
    assert copy == Copy(src="/f g.tgz", dest="/d/", mode=0o644, create_dest_path=True)
    assert copied("ADD --unpack=true http://h/f /d/")[0].attempt_unpack
    assert copied("ADD http://h /d/")[0].src == "/__unnamed__"
    assert copied("ADD http://h/a/.. /d/")[0].src == "/__unnamed__"


def test_add_checksum():
    digest = "sha256:" + "a" * 64
    found = converted(f"FROM a\nADD --checksum={digest} https://h/f /d/\n")
    assert ops(found, "SourceOp")[1].attr("http.checksum") == digest
    found = converted("FROM a\nADD --checksum=abcdef0 https://h/f.git /d/\n")
    assert ops(found, "SourceOp")[1].attr("git.checksum") == "abcdef0"


def test_add_git():
    found = converted("FROM a\nADD --keep-git-dir=true https://h/r.git#v1:sub /d\n")
    source = ops(found, "SourceOp")[1]
    assert source.identifier == "git://h/r.git#v1:sub"
    assert source.attr("git.keepgitdir") == "true"
    assert source.attr("git.fullurl") == "https://h/r.git"
    assert copies(found) == [Copy(src="/", dest="/d", dir_contents=True, create_dest_path=True)]


def test_credentials_are_not_shown():
    found = converted("FROM a\nADD https://user:pw@h/r.git /d\nADD http://token@h/f /e\n")
    shown = repr([(v.name, v.meta.command) for v in found.definition.vertices]) + repr(found.config)
    assert "pw" not in shown
    assert "token" not in shown
    assert "xxxxx@h/f" in shown
    assert "pw" not in ops(found, "SourceOp")[1].identifier


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY http://h/f d", "source can't be a URL for COPY"),
        ("COPY https://h/r.git d", "source can't be a git ref for COPY"),
        ("ADD --checksum=x a b d/", "checksum can't be specified for multiple sources"),
        ("ADD --checksum=x a d", "checksum requires HTTP(S) or Git sources"),
        ("ADD --checksum=x http://h/f d", "invalid checksum x"),
        ("ADD --checksum=x http://h/f.git d", "invalid checksum x expected hex commit hash"),
        (
            "ADD --keep-git-dir=true http://h/f.git?keep-git-dir=false d",
            "inconsistent keep-git-dir configuration",
        ),
        (
            "ADD --checksum=abcdef1 http://h/f.git?checksum=abcdef2 d",
            'checksum mismatch "abcdef1" != "abcdef2"',
        ),
        ("COPY ${a?no} d", "a: no"),
    ],
)
def test_refused(line, message):
    assert message in problem(line)


def test_heredoc_files():
    found = converted("FROM a\nARG v=1\nCOPY --chown=5 <<one <<'two' x /d/\n$v \"$v\" \\$v\none\n$v\ntwo\n")
    made = [op.actions[0].action for op in ops(found, "FileOp")[:2]]
    assert [(f.path, f.mode, f.data) for f in made] == [
        ("/one", 0o644, b'1 "1" $v\n'),
        ("/two", 0o644, b"$v\n"),
    ]
    assert [(c.src, c.dest, c.owner.user.id) for c in copies(found)] == [
        ("/x", "/d/", 5),
        ("/one", "/d/", 5),
        ("/two", "/d/", 5),
    ]
    assert history(found)[-1] == "COPY --chown=5 x <<one <<two /d/ # buildkit"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "COPY --link --chmod=1 --chown=2 --exclude=q --parents a b c/",
            "COPY --parents --chown=2 --chmod=1 a b c/ # buildkit",
        ),
        ("ADD a $v", "ADD a x # buildkit"),
    ],
)
def test_history(line, text):
    assert history(converted(f"FROM a\nARG v=x\n{line}\n"))[-1] == text


def test_names():
    found = converted('FROM a\nARG v=x\ncopy --chmod=1 "$v" $u b\n')
    assert names(found)[-1] == "[2/2] COPY --chmod=1 x  b"


def test_copying_an_ignored_file_is_linted():
    ignore = IgnoreMatcher(["secret", "*.log"])
    assert rules(converted("FROM a\nCOPY secret b\nADD x.log b\nCOPY y *.log . b/\n", ignore=ignore)) == [
        ("CopyIgnoredFile", 2),
        ("CopyIgnoredFile", 3),
    ]
    assert rules(converted("FROM a\nCOPY . b\n", ignore=IgnoreMatcher(["*"]))) == [("CopyIgnoredFile", 2)]
    assert rules(converted("FROM a\nCOPY secret b\n", ignore=IgnoreMatcher(["secret", "!x"]))) == []
