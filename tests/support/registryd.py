"""The reference registry (Debian's docker-registry) as a process on the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.support.machine import tool

CONFIG = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
"""


class RegistryDaemon:
    """A running registry; ``address`` is host:port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.port = port
        self.address = f"localhost:{port}"

    @classmethod
    def start(cls, base: Path) -> RegistryDaemon:
        program = tool("docker-registry")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        config = base / "config.yml"
        config.write_text(CONFIG.format(data=base / "data", port=port))
        log = base / "access.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [program, "serve", str(config)],
                stdout=out,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
        daemon = cls(process, port, log)
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
            except OSError:
                assert process.poll() is None, "docker-registry ended"
                time.sleep(0.05)
            else:
                return daemon
        daemon.stop()
        raise AssertionError("docker-registry does not answer")

    def requests(self) -> list[str]:
        """All requests so far, as ``METHOD PATH``."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [" ".join(line.split('"')[1].split()[:2]) for line in lines if line.count('"') >= 2]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
