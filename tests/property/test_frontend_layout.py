"""How a Dockerfile is laid out changes nothing it means; what is quoted arrives as it was.

The golden Dockerfiles are written again from their logical lines: with comments and blank lines between them, cut at
any place by continuations, their instruction names in any case. Seeds are fixed.
"""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import PybuildError
from builder.frontend.convert import convert
from builder.frontend.history import quote
from builder.frontend.lines import scan
from builder.frontend.parser import parse
from builder.frontend.source import SourceFile
from tests.support.dockerfiles import FakeResolver, options
from tests.support.goldens import settings as case_settings

pytestmark = pytest.mark.property
quick = settings(deadline=None, derandomize=True, max_examples=200)

GOLDEN = Path(__file__).parents[1] / "golden"
GOOD = sorted((GOLDEN / "dockerfiles").glob("*/Dockerfile"))
BROKEN = sorted(
    path
    for path in (GOLDEN / "dockerfiles-broken").glob("*/Dockerfile")
    if not path.parent.name.startswith(("only-comments", "empty", "directive-", "heredoc-unterminated"))
)
VARIANTS = 10


def rewritten(rng, data, *, continuations=True):
    """The same instructions, laid out otherwise."""
    source = SourceFile("Dockerfile", data)
    found = scan(source)
    out = [source.lines[number - 1] for _, _, number in found.directives]
    for line in found.lines:
        if out or rng.random() < 0.5:
            out += rng.choice([[], [""], ["# note"], ["  \t", "#", "\t# escape=`"], ["# RUN rm -rf / \\"]])
        out += [f"# {text}" for text in line.comments if text.startswith("check=")]
        name, _, _ = line.text.partition(" ")
        text = rng.choice([name.lower(), name.upper(), name.title()]) + line.text[len(name) :]
        text = rng.choice(["", "  ", "\t"]) + text + ("" if line.heredocs else rng.choice(["", " ", "\t "]))
        out.append(broken_up(rng, text, found.escape, len(name) + 3) if continuations else text)
        for heredoc in line.heredocs:
            out += [*heredoc.content.split("\n")[:-1], heredoc.name]
    out += rng.choice([[], [""], ["# the end \\"]])
    end = rng.choice(["", "\n"])
    return ("\n".join(out) + end).encode("utf-8", "surrogateescape")


def broken_up(rng, text, escape, start):
    """Cut by continuations, also within words; never beside an escape character, nor so that a comment appears."""
    parts = [text]
    for _ in range(rng.randrange(4)):
        last = parts[-1]
        begin = start if len(parts) == 1 else 1
        if len(last) <= begin + 1:
            break
        at = rng.randrange(begin, len(last))
        before, after = last[:at], last[at:]
        if not after.strip() or after.lstrip().startswith("#") or not before.strip():
            continue
        if before.endswith(escape) or after.startswith(escape):
            continue
        between = "".join(rng.choice(["", "# between\n", "   # indented\n"]) for _ in range(2))
        parts[-1:] = [before, after]
        parts[-2] += escape + rng.choice(["", "  ", "\t"]) + "\n" + between
    return "".join(parts)


def meaning(path, data):
    wanted, resolver = case_settings(path.parent)
    found = convert(parse(data), wanted, resolver)
    return [vertex.digest for vertex in found.definition.vertices], found.definition.head, found.config


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.parent.name)
def test_layout_leaves_the_meaning_alone(path):
    data = path.read_bytes()
    before = meaning(path, data)
    rng = random.Random(path.parent.name)
    for _ in range(VARIANTS):
        other = rewritten(rng, data)
        assert meaning(path, other) == before, other.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.parent.name)
def test_layout_leaves_the_refusal_alone(path):
    def refusal(data):
        wanted, resolver = case_settings(path.parent)
        with pytest.raises(PybuildError) as caught:
            convert(parse(data), wanted, resolver)
        return caught.value.code

    data = path.read_bytes()
    before = refusal(data)
    rng = random.Random(path.parent.name)
    for _ in range(VARIANTS):
        other = rewritten(rng, data)
        assert refusal(other) == before, other.decode("utf-8", "surrogateescape")


value = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=20)


def config(text):
    return convert(parse(text.encode()), options(), FakeResolver()).config


@quick
@given(value, st.sampled_from("\\`"))
def test_any_quoting_of_a_value_arrives(text, escape):
    special = '"$' + escape
    double = '"' + "".join(escape + c if c in special else c for c in text) + '"'
    bare = "".join(escape + c for c in text) if text.strip() == text else double
    if bare.endswith("\r") or not text:
        bare = double
    lines = [f"# escape={escape}", "FROM scratch", f"ENV A={double} B={double}", f"LABEL l={bare} m=x"]
    if "'" not in text:
        lines.append(f"ENV C='{text}' D=e")
    if escape == "\\" and "'" not in text:
        lines.append(f"LABEL n={shlex.quote(text)}")
    found = config("\n".join(lines) + "\n")
    env = dict(item.split("=", 1) for item in found.env)
    assert env["A"] == env["B"] == env.get("C", text) == text
    labels = dict(found.labels)
    assert labels["l"] == labels.get("n", text) == text


@quick
@given(st.lists(value, min_size=1, max_size=4), st.booleans(), st.sampled_from("\\`"))
def test_json_arrays_arrive(items, ascii_only, escape):
    array = json.dumps(items, ensure_ascii=ascii_only)
    found = config(f"# escape={escape}\nFROM scratch\nENTRYPOINT {array}\nCMD {array}\nSHELL {array}\n")
    assert found.entrypoint == found.cmd == found.shell == tuple(items)


@quick
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_history_quotes_can_be_read_back(text):
    assert json.loads(quote(text)) == text
