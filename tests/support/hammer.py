"""One of many processes that use one state directory at once: ``python -m tests.support.hammer ROOT SECONDS SEED``.

It builds, runs, tags, deletes and prunes at random, and says on standard output, as JSON lines, whatever went wrong:
an error that is not documented, or a container that prints something else than its image was built to print.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = 8
TEXT = """\
FROM busybox
COPY variant shared /in/
RUN cat /in/variant /in/shared > /out
RUN --mount=type=cache,target=/cache,sharing=locked echo x >> /cache/count && rm -rf /in
CMD ["cat", "/out"]
"""
# What may be answered when another process has just deleted what one asks for.
DOCUMENTED = (
    "no such image",
    "no such container",
    "is in use",
    "is being used",
    "no such build",
    "conflict: ",
)


def context(root: Path, variant: int) -> Path:
    """The project of one variant; all share the base and the Dockerfile."""
    root.mkdir()
    (root / "Dockerfile").write_text(TEXT)
    (root / "variant").write_text(f"variant {variant}\n")
    (root / "shared").write_text("shared\n")
    return root


def main() -> None:
    """Hammer until the time is over."""
    root, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    from cli.main import main as pybuild

    dice = random.Random(seed)
    end = time.monotonic() + seconds
    report = os.fdopen(os.dup(1), "w")
    done = 0

    def call(*words: str) -> tuple[int, bytes]:
        """Run a command line in this process, its output in a file (steps write to descriptors)."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            saved = os.dup(1), os.dup(2)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                status = pybuild(["--root", root, *words])
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
                os.close(saved[0])
                os.close(saved[1])
            out.seek(0)
            err.seek(0)
            said = err.read().decode("utf-8", "replace")
            if status not in (0, 1, 125) or (status and not any(text in said.lower() for text in DOCUMENTED)):
                report.write(json.dumps({"words": words, "status": status, "err": said[-2000:]}) + "\n")
                report.flush()
            return status, out.read()

    with tempfile.TemporaryDirectory() as place:
        contexts = [context(Path(place) / str(number), number) for number in range(VARIANTS)]
        while time.monotonic() < end:
            variant = dice.randrange(VARIANTS)
            name = f"app:{variant}"
            match dice.choice(
                ("build", "build", "build", "run", "run", "tag", "rmi", "prune", "create", "list")
            ):
                case "build":
                    anew = ["--no-cache"] if dice.random() < 0.2 else []
                    call("build", "-q", "--network=none", *anew, "-t", name, str(contexts[variant]))
                case "run":
                    status, out = call("run", "--rm", "--pull=never", "--network=none", name)
                    if status == 0 and out != f"variant {variant}\nshared\n".encode():
                        report.write(
                            json.dumps({"wrong": name, "out": out.decode("utf-8", "replace")}) + "\n"
                        )
                        report.flush()
                case "tag":
                    call("tag", name, f"other:{dice.randrange(VARIANTS)}")
                case "rmi":
                    call("rmi", name)
                case "prune":
                    call(
                        *dice.choice(
                            (("builder", "prune", "-af"), ("image", "prune", "-f"), ("system", "prune", "-f"))
                        )
                    )
                case "create":
                    box = f"box-{seed}-{done}"
                    if call("create", "--pull=never", "--name", box, name, "true")[0] == 0:
                        call("rm", box)
                case "list":
                    call(*dice.choice((("images",), ("ps", "-a"), ("du",))))
            done += 1
    report.write(json.dumps({"done": done}) + "\n")


if __name__ == "__main__":
    main()
