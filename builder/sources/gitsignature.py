"""Is a commit signed by the key that is asked for? GPG or SSH, by git and the tools that it uses (SGI-08).

Only the key that was given counts: neither the user's keyring nor any configuration is looked at.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from builder.errors import InvalidValue, SourceUnavailable
from builder.sources.gitcmd import Git, GitFailed

_SSH_KEY = re.compile(r"(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( [^\n]*)?\Z")
_MAX_KEY = 1 << 20


def verify_commit(git: Git, mirror: Path, commit: str, public_key: str) -> None:
    """Raise SourceUnavailable unless ``commit`` carries a good signature by ``public_key``."""
    key = public_key.strip()
    if len(key) > _MAX_KEY:
        raise InvalidValue("the public key for git signatures is too large")
    with tempfile.TemporaryDirectory(prefix="pybuild-sig-") as folder:
        home = Path(folder)
        try:
            if key.startswith("-----BEGIN PGP"):
                _verify_gpg(git, mirror, commit, key, home)
            elif _SSH_KEY.match(key):
                _verify_ssh(git, mirror, commit, key, home)
            else:
                raise InvalidValue(
                    "the public key for git signatures is neither an OpenSSH nor an armored PGP key"
                )
        except GitFailed as error:
            raise SourceUnavailable(
                f"commit {commit} is not signed by the key that is asked for",
                context=(error.output[-500:],) if error.output else (),
                code="signature-invalid",
            ) from error


def _verify_ssh(git: Git, mirror: Path, commit: str, key: str, home: Path) -> None:
    signers = home / "signers"
    signers.write_text(f'* namespaces="git" {key}\n', encoding="utf-8")
    settings = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}"]
    settings += ["-c", "gpg.ssh.program=ssh-keygen"]
    git.run([*settings, "verify-commit", commit], cwd=home, git_dir=mirror)


def _verify_gpg(git: Git, mirror: Path, commit: str, key: str, home: Path) -> None:
    import subprocess

    ring = home / "gnupg"
    ring.mkdir(mode=0o700)
    command = ["gpg", "--homedir", str(ring), "--batch", "--quiet", "--no-autostart", "--import"]
    try:
        done = subprocess.run(command, input=key.encode(), capture_output=True, check=False, timeout=60)
    except FileNotFoundError as error:
        raise SourceUnavailable("gpg is needed for this signature and is not installed") from error
    if done.returncode != 0:
        raise InvalidValue("the public key for git signatures cannot be read by gpg")
    with contextlib.suppress(OSError):
        (ring / "gpg.conf").write_text("no-autostart\nno-auto-key-retrieve\ntrust-model always\n")
    git.run(
        ["-c", "gpg.format=openpgp", "-c", "gpg.program=gpg", "verify-commit", commit],
        cwd=home,
        git_dir=mirror,
        env={"GNUPGHOME": str(ring)},
    )
