# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the lab: started unless it is up already, and stopped again in that case."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from tests.lab.host import CONTAINERS, running
from tests.lab.lab import INVENTORY, Lab
from tests.support.playbooks import CHECKOUT, PLAYBOOK, recording

MOLECULE = CHECKOUT / "extensions" / "molecule"
# Seconds; starting the lab takes half a minute.
_LIMIT = 300


def lacking() -> str:
    """Why the lab cannot run here, or an empty string."""
    if os.geteuid() != 0:
        return "the lab's hosts have addresses of their own: that needs root"
    missing = [program for program in ("podman", "nsenter", "tc", "ip", "rsync", "ssh") if shutil.which(program) is None]
    if missing:
        return f"no {missing[0]} on this machine"
    if not pathlib.Path(sys.executable).with_name("molecule").exists():
        return "molecule is not installed: make lab-parts"
    if not (CHECKOUT / ".cache" / "lab" / "wheelhouse" / ".filled").exists():
        return "the wheels for the lab's hosts are missing: make lab-parts"
    image = ["podman", "image", "exists", "localhost/lorafleet-lab"]
    if subprocess.run(image, env={**os.environ, **CONTAINERS}, capture_output=True, check=False).returncode:
        return "the image of the lab's hosts is missing: make lab-parts"
    return ""


@pytest.fixture(scope="session")
def lab_is_up(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[None]:
    why = lacking()
    if why:
        pytest.skip(why)
    record = tmp_path_factory.mktemp("lab") / "record.jsonl"

    def play(name: str) -> None:
        command = [str(PLAYBOOK), "-i", str(INVENTORY), str(MOLECULE / "default" / f"{name}.yml")]
        environment = {**recording(record), **CONTAINERS}
        done = subprocess.run(
            command,
            env=environment,
            cwd=record.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    with contextlib.ExitStack() as stack:
        if not running():
            stack.callback(play, "destroy")
        # A lab that is up may have been made from other parts.
        play("create")
        yield


@pytest.fixture(scope="session")
def delivered(lab_is_up: None, tmp_path_factory: pytest.TempPathFactory, tiny: pathlib.Path) -> Lab:
    """The lab after a first delivery."""
    lab = Lab(tmp_path_factory.mktemp("delivered"), tiny)
    lab.begin()
    return lab


@pytest.fixture
def lab(delivered: Lab) -> t.Iterator[Lab]:
    """The lab with a first release on every node and another one offered."""
    delivered.reset()
    with contextlib.ExitStack() as stack:
        for host in delivered.hosts.values():
            stack.callback(host.repair)
        yield delivered
