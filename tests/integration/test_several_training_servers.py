# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Agents with training servers of their own: ``agent_training_host`` differs between groups."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet
from tests.support.playbooks import Run


@pytest.fixture
def servers(fleet: Fleet) -> Fleet:
    """The training server sbs29 has the adapters of the cleaner, sbs30 those of the describer."""
    models = fleet.root / "sbs30" / "models"
    fleet.offer(DESCRIBER_3B, into=models)
    shutil.rmtree(fleet.source / DESCRIBER_3B)
    fleet.hosts["sbs30"] = {"training_models_dir": str(models), "training_cache_dir": str(fleet.root / "sbs30" / "cache")}
    fleet.members["training"].append("sbs30")
    fleet.groups["jw3"]["agent_training_host"] = "sbs30"
    return fleet


def described(done: Run, host: str) -> set[str]:
    return {json.loads(text)["name"] for text in done.of(host, "adapter_info")["manifests"]}


def test_describe_asks_each_training_server_for_the_adapters_of_its_nodes(servers: Fleet) -> None:
    done = servers.run("describe")
    assert done.rc == 0, done.output
    assert described(done, "sbs29") == {CLEANER_3B, CLEANER_8B}
    assert described(done, "sbs30") == {DESCRIBER_3B}

    done = servers.run("describe", "--tags", "cleaner")
    assert done.rc == 0, done.output
    assert described(done, "sbs29") == {CLEANER_3B, CLEANER_8B}
    assert described(done, "sbs30") == set()


def test_preflight_with_several_training_servers_passes(servers: Fleet) -> None:
    done = servers.run("preflight")
    assert done.rc == 0, done.output
    assert "Ready for a delivery: 4 of 4 hosts." in done.output
    servers.deploy()


def test_preflight_with_training_server_outside_the_group_passes(fleet: Fleet) -> None:
    fleet.groups["agents"].update(fleet.groups["training"], agent_training_host="localhost")
    fleet.groups["agents"]["agent_source_models_dir"] = str(fleet.source)
    fleet.members["training"].remove("sbs29")
    done = fleet.run("preflight")
    assert done.rc == 0, done.output
    assert "Ready for a delivery: 3 of 3 hosts." in done.output
