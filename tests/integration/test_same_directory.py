# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deliveries to the directory that they come from are refused before anything is written."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.fleet import CLEANER_3B, CLEANER_8B, Fleet, identity


@pytest.mark.parametrize("arguments", [(), ("--check",), ("-e", "agent_load_test_force=true")], ids=" ".join)
@pytest.mark.parametrize("way", ["path", "link"])
def test_deploy_to_models_directory_of_training_server_is_refused(fleet: Fleet, way: str, arguments: tuple[str, ...]) -> None:
    models = fleet.source
    if way == "link":
        models = fleet.root / "another"
        models.symlink_to(fleet.source)
    store = fleet.root / "store"
    fleet.hosts["jw2-1"].update(agent_models_dir=str(models), agent_store=str(store))
    before = identity(fleet.source)
    done = fleet.run("deploy", "--limit", "jw2", *arguments)
    [message] = done.failures("jw2-1")
    for name in (CLEANER_3B, CLEANER_8B):
        assert f"{models / name}: is the same directory as {fleet.source / name} of the source" in message
    assert "Set models_dir to another directory on this node" in message
    assert done.rc == 2
    assert identity(fleet.source) == before
    assert not store.exists()


def test_deploy_to_bind_mount_of_models_directory_is_refused(fleet: Fleet) -> None:
    """As in a container, whose paths are others."""
    before, served = identity(fleet.source), fleet.home("jw2-1") / "models"
    if subprocess.run(["mount", "--bind", fleet.source, served], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a directory here")
    try:
        done = fleet.run("deploy", "--limit", "jw2")
    finally:
        subprocess.run(["umount", served], check=True)
    [message] = done.failures("jw2-1")
    assert f"{served / CLEANER_3B}: is the same directory as {fleet.source / CLEANER_3B} of the source" in message
    assert identity(fleet.source) == before
    assert not (fleet.home("jw2-1") / ".lorafleet").exists()


def test_deploy_to_copy_of_training_server_is_accepted(fleet: Fleet) -> None:
    """Like a volume that was cloned by hand: equal bytes and times, but other directories."""
    for name in (CLEANER_3B, CLEANER_8B):
        subprocess.run(["cp", "-al", fleet.source / name, fleet.served("jw2-1", name)], check=True)
    fleet.deploy("--limit", "jw2")
