"""What is fuzzed: each target takes any bytes, and may only return or raise a typed refusal.

``check(name, data)`` runs one input. An AssertionError or any other exception that is no PybuildError is a bug.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import PybuildError
from builder.frontend.convert import convert
from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import DockerfileError
from builder.frontend.lines import scan
from builder.frontend.mounts import parse_mount
from builder.frontend.parser import Dockerfile, Nodes, parse_nodes
from builder.frontend.positions import Range
from builder.frontend.redact import redact
from builder.frontend.source import SourceFile
from builder.frontend.words import expand, expand_words, is_plain
from builder.llb.gitref import parse_git_ref
from builder.oci.platform import Platform, candidates
from tests.support.dockerfiles import FakeResolver, options
from tests.support.ignoremodel import excluded

SECONDS_PER_INPUT = 5
MAX_LENGTH = 4096

ENV = {"a": "b", "dir": "/data/a/b", "name": "web-07", "empty": "", "star": "*", "s": "x y", "_x1": "$a"}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def scanner(data: bytes) -> None:
    """Lines come in order and lie within the file."""
    source = SourceFile("Dockerfile", data)
    before = 0
    for line in scan(source).lines:
        assert before < line.first <= line.last <= len(source.lines)
        assert line.text == line.text.strip() != ""
        before = line.last


def parser(data: bytes) -> None:
    """Nodes survive being stored, and every part has its place."""
    nodes = parse_nodes(data)
    again = Nodes.from_bytes(nodes.to_bytes())
    assert again == nodes
    one = Dockerfile.from_nodes(nodes, data)
    assert Dockerfile.from_nodes(again, data).instructions == one.instructions
    for instruction in (*one.instructions[:2], *one.instructions[-2:]):
        places = one.parts(instruction)
        assert {"keyword", "end"} <= {place.part.kind for place in places}
        for place in places:
            _in_file(place.range, one.source)
            assert place.range.end.line <= instruction.at.span.end
            assert place.range.start.line >= instruction.at.span.start


def _in_file(found: Range | None, source: SourceFile) -> None:
    """Two characters of the file, the second not before the first."""
    if found is not None:
        assert found.start <= found.end
        for line, column in found:
            assert 1 <= column <= len(source.text.split("\n")[line - 1]) + 1


def converter(data: bytes) -> None:
    """The graph holds together, and every layer has its line of history."""
    dockerfile = Dockerfile.from_nodes(parse_nodes(data), data)
    found = convert(dockerfile, options(), FakeResolver(), all_stages=True)
    for vertex in found.definition.vertices:
        span = vertex.meta.source
        assert span is None or 1 <= span.start <= span.end <= len(dockerfile.source.lines)
        str(vertex.digest)
    found.config.to_json()
    for number, warning in enumerate(found.warnings):
        str(warning).encode("utf-8", "surrogateescape")
        if number < 3:
            _in_file(warning.range(dockerfile.source), dockerfile.source)


def expansion(data: bytes) -> None:
    """The first byte says which mode."""
    mode, text = (data[0], _text(data[1:])) if data else (0, "")
    escape = "`" if mode & 1 else "\\"
    found = expand(
        text,
        ENV,
        escape,
        raw_quotes=bool(mode & 2),
        raw_escapes=bool(mode & 4),
        skip_unset=bool(mode & 8),
        no_quotes=bool(mode & 16),
    )
    assert not is_plain(text, escape) or found.text == text
    assert found.matched <= ENV.keys()
    assert not found.unmatched & ENV.keys()
    if mode & 32:
        words, _ = expand_words(text, ENV, escape)
        assert all(isinstance(word, str) for word in words)


def ignore(data: bytes) -> None:
    """The last line is a path; the matcher agrees with the slow model, and kept paths can be reached."""
    rules, _, name = data.rpartition(b"\n")
    found = IgnoreMatcher.parse(rules)
    path = "/".join(part for part in _text(name).split("/") if part not in ("", ".", ".."))
    if not path or len(data) > 300:
        return
    assert found.excludes(path) == excluded(found.patterns, path)
    if not found.excludes(path):
        parts = path.split("/")
        for n in range(1, len(parts)):
            above = "/".join(parts[:n])
            assert not found.excludes(above) or found.may_hold_exception(above)


def gitref(data: bytes) -> None:
    """What is recognised has an identifier and attributes; nothing can pass for an option of git."""
    text = _text(data)
    redact(text)
    found = parse_git_ref(text)
    if found is not None:
        assert found.identifier.startswith("git://")
        assert not found.ref.startswith("-")
        assert not found.remote.startswith("-")
        assert not found.subdir.startswith(("/", "../"))
        assert dict(found.attrs)["git.fullurl"] == found.remote


def mounts(data: bytes) -> None:
    """The comma separated keys of ``RUN --mount``."""
    parse_mount(_text(data))


def platforms(data: bytes) -> None:
    """A platform that was read can be written and read again, and few others can serve it."""
    found = Platform.parse(_text(data))
    again = Platform.parse(str(found))
    assert (again.os, again.architecture, again.variant) == (found.os, found.architecture, found.variant)
    assert 1 <= len(candidates(found)) <= 32


TARGETS: dict[str, Callable[[bytes], None]] = {
    "scanner": scanner,
    "parser": parser,
    "converter": converter,
    "expansion": expansion,
    "ignore": ignore,
    "gitref": gitref,
    "mounts": mounts,
    "platforms": platforms,
}

WORDS: dict[str, list[str]] = {
    "scanner": ["\\\n", "`\n", "# escape=`\n", "#syntax=", "# check=", "<<EOF", "<<-", "EOF\n", "\nRUN ", "\nCOPY ", "\r\n", "\ufeff", "FROM a\n", '<<"', "ONBUILD "],
    "expansion": ["${", "}", "$a", "$empty", "${name", ":-", ":+", ":?", "##", "%%", "//", "\\", '"', "'", "${star}", "*", "?", "$1", "`"],
    "ignore": ["**", "**/", "/**", "!", "[a-z]", "[^", "]", "\\", "*", "?", "/", "\n", "#", "..", "a/b"],
    "gitref": ["https://", ".git", "#", ":", "?ref=", "&subdir=", "git@", "ssh://", "github.com/", "branch=", "tag=", "checksum=", "keep-git-dir=", "submodules=", "mtime=commit", "%2f", "@-"],
    "mounts": ["type=", "cache", "secret", "ssh", "bind", "tmpfs", "target=", "source=", "from=", "sharing=locked", "id=", "uid=", "gid=", "mode=0777", "size=1g", "env=", "required", "rw", "ro", ",", '"'],
    "platforms": ["linux", "/", "arm64", "v8", "windows(10.0.17763)", "+", "armhf", "x86_64", "(", ")"],
}  # fmt: skip
WORDS["parser"] = WORDS["converter"] = [
    *WORDS["scanner"], "\nADD ", "\nENV ", "\nLABEL ", "\nARG ", "\nEXPOSE ", "\nVOLUME ", "\nCMD ", "\nENTRYPOINT ", "\nSHELL ",
    "\nUSER ", "\nWORKDIR ", "\nSTOPSIGNAL ", "\nHEALTHCHECK ", "\nMAINTAINER ", "\nONBUILD ", "\nFROM ", " AS b\n", "scratch", "--from=",
    "--mount=type=", "cache,target=/c", "bind,from=b,target=/x", "secret,id=s,env=S", "--link", "--chown=1:2", "--chmod=", "--parents",
    "--exclude=", "--platform=$BUILDPLATFORM", "--network=none", "--security=insecure", "--checksum=sha256:", "--keep-git-dir", "NONE",
    "--interval=1s", '["a", "b"]', "[", "]", "$a", "${a:-b}", "${a/b/c}", "a=b", '"', "'", "https://h/x.tar", "https://h/r.git#v1", "80-90/udp",
]  # fmt: skip


def check(name: str, data: bytes) -> bool:
    """Whether the target takes the input; False: refused as it should be."""
    try:
        TARGETS[name](data)
    except DockerfileError as error:
        assert error.message
        for span in error.spans:
            assert 1 <= span.start <= span.end
            assert error.source is None or span.end <= len(error.source_lines)
        place = error.range
        if place is not None and error.source is not None and error.span is not None:
            _in_file(place, error.source)
            assert error.span.start <= place.start.line <= place.end.line <= error.span.end
        return False
    except PybuildError as error:
        assert error.message
        return False
    return True
