"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.run TARGET [--seconds N] [--keep DIR]``.

Needs atheris; says so and fails where it cannot be imported. What breaks the target is written to the corpus
as ``crash-…``, ``timeout-…`` or ``oom-…``, and from then on replayed by the ordinary tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    parser.add_argument("--keep", type=Path, help="where new inputs go (default: nowhere)")
    asked = parser.parse_args()
    try:
        import atheris
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(
            f"atheris cannot be imported on Python {version}: {error}\n"
            "coverage-guided fuzzing needs it: pip install -e '.[dev]' on an interpreter it supports\n"
        )
        return 3
    with atheris.instrument_imports(
        include=["builder.frontend", "builder.llb", "builder.oci"], enable_loader_override=False
    ):
        from tests.fuzz import targets

    if asked.target not in targets.TARGETS:
        sys.stderr.write(f"no target {asked.target!r}; there are: {', '.join(targets.TARGETS)}\n")
        return 2
    corpus = HERE / "corpus" / asked.target
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pybuild-fuzz-") as scratch:
        words = Path(scratch) / "words"
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in targets.WORDS[asked.target]))
        keep = asked.keep or Path(scratch) / "new"
        keep.mkdir(parents=True, exist_ok=True)
        folders = [str(keep), str(corpus)]
        if asked.target in ("scanner", "parser", "converter"):
            folders.append(str(_golden(Path(scratch) / "golden")))
        arguments = [
            sys.argv[0], *folders, f"-max_total_time={asked.seconds}", f"-timeout={targets.SECONDS_PER_INPUT}",
            f"-max_len={targets.MAX_LENGTH}", "-rss_limit_mb=2048", f"-dict={words}", f"-artifact_prefix={corpus}/",
            f"-seed={asked.seed}", "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        atheris.Setup(arguments, lambda data: targets.check(asked.target, data) and None)
        atheris.Fuzz()
    return 0


def _quoted(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8"))


def _golden(folder: Path) -> Path:
    """The Dockerfiles of the golden tests, flat."""
    folder.mkdir()
    for number, path in enumerate(sorted(GOLDEN.rglob("Dockerfile"))):
        (folder / f"{number}").write_bytes(path.read_bytes())
    return folder


if __name__ == "__main__":
    sys.exit(main())
