"""Looking into a step that failed (CTL-05), and what is left of it (EXE-25)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = pytest.mark.root

FAILS = """\
FROM busybox AS tools
RUN echo tool > /tool
FROM busybox AS work
ENV KIND=test
WORKDIR /src
RUN echo early > early
USER app
RUN --mount=type=bind,from=tools,target=/tools --mount=type=tmpfs,target=/scratch \\
    --mount=type=secret,id=token,uid=1000,required=false \\
    cat /tools/tool > /tmp/copied; echo half > /tmp/made; exit 9
RUN echo never > /never
"""
LOOK = "id -un; pwd; echo $KIND; cat early /tools/tool /tmp/copied /tmp/made; mount | grep -c scratch; ls /run/secrets 2>&1; echo x > /tmp/extra"


@row("CTL-05", "EXE-25")
def test_a_shell_stands_where_the_step_failed(lab: Lab, command: Runner, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": FAILS})
    token = tmp_path / "token"
    token.write_text("s3cret-value")
    words = ("--network=none", f"--secret=id=token,src={token}", context)
    done = command.build(*words, "--on-error=shell", stdin=LOOK.encode(), status=1)
    expected = ["app", "/src", "test", "early", "tool", "tool", "half", "1", "token"]
    assert done.out.split() == expected
    # Later, by the history: the same, but for the secret, which is not kept.
    later = command.run("debug", "shell", stdin=LOOK.encode(), status=0)
    assert later.out.split()[:8] == expected[:8]
    assert "token" not in later.out.split()
    assert "secret token is not kept: give it with --secret id=token,src=FILE" in later.err
    again = command.run("debug", "shell", "last:5", f"--secret=id=token,src={token}", "--", "cat", "/run/secrets/token", status=2)  # fmt: skip
    assert "[work 5/5] RUN echo never > /never was not run" in again.err
    given = command.run("debug", "shell", "last:cat /tools", f"--secret=id=token,src={token}", "--", "cat", "/run/secrets/token", status=0)  # fmt: skip
    assert given.out == "s3cret-value"
    # Changes were thrown away.
    assert command.run("debug", "shell", "last:4", "--", "test", "-e", "/tmp/extra", status=1).status == 1
    assert b"s3cret-value" not in _everything(lab.store.root)


@row("CTL-05")
def test_a_shell_stands_behind_a_step_that_went_well(lab: Lab, command: Runner) -> None:
    context = lab.context(
        {"Dockerfile": "FROM busybox AS one\nRUN echo ctl05 > /one\nFROM one\nWORKDIR /w\nRUN echo 2 > two\n"}
    )
    command.build(context, "--network=none")
    assert command.run("debug", "shell", "--", "cat", "/one", "/w/two").out == "ctl05\n2\n"
    assert command.run("debug", "shell", ":echo ctl05", "--", "ls", "/w", status=1).status == 1
    status = command.run("debug", "shell", "last:[one 2/2] RUN echo ctl05 > /one", "--", "sh", "-c", "exit 42", status=42)  # fmt: skip
    assert status.out == ""


def _everything(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink())
