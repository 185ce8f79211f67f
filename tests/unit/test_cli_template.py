"""Go templates of ``--format`` (rows IC-INSP-2, EX-51)."""

from __future__ import annotations

from typing import Any

import pytest

from cli.render.template import TemplateError
from cli.render.template_run import Struct, Template

VALUE: dict[str, Any] = {
    "Id": "abc",
    "Size": 1500000,
    "Running": False,
    "Nothing": None,
    "Config": Struct(
        Env=["A=b", "C=d"],
        Labels={"z": "1", "a.b": "two words"},
        Policy=Struct(Name="on-failure", MaximumRetryCount=50),
    ),
    "Ports": {"80/tcp": [Struct(HostIp="0.0.0.0", HostPort="8080")], "443/tcp": None},
}


def render(text: str, value: Any = VALUE) -> str:
    return Template(text).render(value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("{{.Id}}", "abc"),
        ("{{ .Config.Env }}", "[A=b C=d]"),
        ("{{.Config.Policy}}", "{on-failure 50}"),
        ("{{.Config.Labels}}", "map[a.b:two words z:1]"),
        ("{{.Running}}", "false"),
        ("{{.id}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Nothing.Deep.Er}}", "<no value>"),
        ("{{json .Config.Labels}}", '{"a.b":"two words","z":"1"}'),
        ("{{json .Config.Policy}}", '{"Name":"on-failure","MaximumRetryCount":50}'),
        ("{{json .nope}}", "null"),
        ('{{index .Config.Labels "a.b"}}', "two words"),
        ("{{index .Config.Env 1}}", "C=d"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{len .Config.Env}}", "2"),
        ("{{.Id | upper}}", "ABC"),
        ('{{printf "%-5s|%05d|%q" .Id 42 "x"}}', 'abc  |00042|"x"'),
        ('{{join .Config.Env ","}}', "A=b,C=d"),
        ('{{split "a:b" ":"}}', "[a b]"),
        ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=b><C=d>"),
        ("{{range $i, $e := .Config.Env}}{{$i}}:{{$e}} {{end}}", "0:A=b 1:C=d "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a.b=two words;z=1;"),
        ("{{range .nope}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Env}}{{.}}{{break}}{{end}}", "A=b"),
        ('{{range .Config.Env}}{{if eq . "A=b"}}{{continue}}{{end}}{{.}}{{end}}', "C=d"),
        ("{{if .Running}}up{{else if .Nothing}}odd{{else}}down{{end}}", "down"),
        ("{{if and .Id (not .Running)}}y{{end}}", "y"),
        ("{{or .Nothing .Id}}", "abc"),
        ("{{with .Config.Policy}}{{.Name}}{{end}}", "on-failure"),
        ("{{$x := .Id}}{{$x}}-{{$.Size}}", "abc-1500000"),
        ("a  {{- .Id -}}  b", "aabcb"),
        ("{{/* nothing */}}x", "x"),
        ('{{println "a" 1}}', "a 1\n"),
        ("{{gt .Size 1000}} {{ne .Id `abc`}}", "true false"),
        (
            "{{range $p, $c := .Ports}}{{$p}}{{if $c}}->{{(index $c 0).HostPort}}{{end}} {{end}}",
            "443/tcp 80/tcp->8080 ",
        ),
        ("{{slice .Id 1 2}}{{truncate .Id 2}}", "bab"),
        ("{{'a'}}", "97"),
    ],
)
def test_templates_print_what_go_prints(text: str, wanted: str) -> None:
    assert render(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{.Id",
        "{{end}}",
        "{{if .Id}}",
        "{{range .Id}}x",
        "{{nope .Id}}",
        "{{.Id .Id}}",
        "{{$nope}}",
        "{{index .Config.Env 7}}",
        "{{index .nope 1}}",
        "{{len .Running}}",
        "{{range .Id}}{{end}}",
        "{{break}}",
        "{{define `x`}}{{end}}",
        "{{.Id | }}",
        "{{(.Id}}",
        "{{'}}",
        "{{upper}}",
    ],
)
def test_bad_templates_exit_64(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(text)
    assert caught.value.exit_status == 64
    assert "Template parsing error" in caught.value.message
