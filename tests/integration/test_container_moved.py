"""Containers of a state directory that was copied use the volumes and files of the copy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builder import containers as c
from builder.cache.store import Store
from builder.containers import options, settling
from tests.support.containerlab import container_lab

pytestmark = [pytest.mark.root, pytest.mark.linux]


def test_a_copied_state_directory_is_its_own(tmp_path: Path) -> None:
    with container_lab(tmp_path / "lab") as lab:
        command = "cat /etc/hostname && echo x >> /v/log"
        made = lab.create("sh", "-c", command, volumes=(options.volume("vol:/v"),))
        root = lab.store.root
        subprocess.run(["cp", "-a", str(root), str(tmp_path / "copy")], check=True)
        with Store.open(tmp_path / "copy") as copy:
            c.start(copy, made.id)
            c.wait(copy, made.id)
            assert c.find(copy, made.id).state.exit_code == 0
            c.remove(copy, made.id)
        running = lab.create("sleep", "60")
        c.start(lab.store, running.id)
        subprocess.run(["cp", "-a", str(root), str(tmp_path / "other")], check=True)
        with Store.open(tmp_path / "other") as copy:
            assert c.find(copy, running.id).state.status == "exited"
            c.remove(copy, running.id, force=True)
        assert c.find(lab.store, running.id).state.running, "what runs is not the copy's"
        c.remove(lab.store, running.id, force=True)
        settling.main(str(tmp_path / "moved away"), running.id)
        assert not (tmp_path / "moved away").exists()
        assert (tmp_path / "copy/volumes/vol/_data/log").exists()
        assert not (root / "volumes/vol/_data/log").exists()
