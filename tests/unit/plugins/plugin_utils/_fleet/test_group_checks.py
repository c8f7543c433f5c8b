# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.group_checks import check_agents, check_training

DECLARING = ["agent_name", "agent_adapters"]


def test_check_groups_existing_groups_have_no_problems() -> None:
    groups = {"all": ["a", "t"], "agents": ["a"], "training": ["t"]}
    assert check_agents(groups, {}) == check_training(groups, {}) == []


class Name(str):
    """ansible-core 2.18 has such a type for texts of an inventory."""


def test_check_agents_outermost_groups_that_declare_adapters_are_named() -> None:
    groups = {
        "all": ["a", "b", "t"],
        "ungrouped": [],
        Name("serving"): ["a"],
        "cleaners": ["a"],
        "describers": ["b"],
        "mine": ["t", "a"],
    }
    [problem] = check_agents(groups, {"a": DECLARING, "b": ["agent_adapters"], "t": ["training_bases"]})
    assert str(problem) == (
        "group agents: does not exist. Group serving, describers declare adapters. Put them below agents:\n"
        "all:\n  children:\n    agents:\n      children:\n        serving:\n        describers:"
    )


def test_check_agents_group_within_another_is_not_named() -> None:
    groups = {"all": ["a", "b"], "cleaners": ["a"], "serving": ["a", "b"]}
    [problem] = check_agents(groups, {"a": DECLARING, "b": DECLARING})
    assert problem.remedy.startswith("Group serving declares adapters. Put it below agents:\n")


def test_check_agents_group_without_hosts_is_refused() -> None:
    [problem] = check_agents({"all": ["a"], "agents": []}, {"a": []})
    assert (problem.subject, problem.problem) == ("group agents", "has no hosts.")
    assert problem.remedy.startswith("Name another inventory with -i, or add the group:\nall:\n")


@pytest.mark.parametrize("name", ["agent", "Agents", "agens"])
def test_check_agents_near_miss_is_to_be_renamed(name: str) -> None:
    expected = Problem("group agents", "does not exist.", f"Rename group {name} to agents.")
    assert check_agents({"all": ["a"], name: ["a"]}, {"a": DECLARING}) == [expected]


@pytest.mark.parametrize("name", ["Training", "trainings", "trainers", "train", "trainer"])
def test_check_training_near_miss_is_to_be_renamed(name: str) -> None:
    expected = Problem("group training", "does not exist.", f"Rename group {name} to training.")
    assert check_training({"all": ["a", "t"], "agents": ["a"], name: ["t"]}, {}) == [expected]


def test_check_training_host_with_variables_of_training_is_named() -> None:
    groups = {"all": ["a", "t"], "agents": ["a"], "big": ["t"]}
    [problem] = check_training(groups, {"a": ["training_bases"], "t": ["training_models_dir"]})
    assert problem.remedy == (
        "Put t, which has variables training_..., into a group training:\n"
        "all:\n  children:\n    training:\n      hosts:\n        t:"
    )
