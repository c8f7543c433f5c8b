# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.group_declarations import (
    GroupDeclarations,
    hidden_agents,
)

Variables = t.Dict[str, t.Any]


def rows(*names: str) -> list[Variables]:
    return [{"name": name, "variant": "3b"} for name in names]


def agent(name: str, *adapters: str, **more: t.Any) -> Variables:
    return {"agent_name": name, "agent_adapters": rows(*adapters), **more}


def found(tmp_path: pathlib.Path, groups: Variables, host: Variables, own: tuple[str, ...]) -> str:
    """The problem of host gpu1, whose variables are those of ``host``, in the groups ``own``."""
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps({"all": {"children": {"agents": {"children": groups}}}}), encoding="utf-8")
    declarations = GroupDeclarations(DataLoader(), [str(path)], lambda name, raw: Node.of(name, (), raw))
    problem = hidden_agents([Node.of("gpu1", own, host)], declarations)
    return str(problem or "")


CLEANERS, DESCRIBERS = agent("cleaner", "a", agent_purpose="Grammar"), agent("describer", "b", agent_notes=["New."])
SIBLINGS = {"cleaners": {"vars": CLEANERS}, "describers": {"vars": DESCRIBERS}, "seoul": {}}
NAMED = [{**row, "agent": name} for name, row in zip(("cleaner", "describer"), rows("a", "b"))]


def test_hidden_agents_of_sibling_groups_are_refused_with_form(tmp_path: pathlib.Path) -> None:
    message = found(tmp_path, SIBLINGS, DESCRIBERS, ("cleaners", "describers", "seoul"))
    assert message.startswith(
        "host gpu1: is in groups that declare different adapters (cleaners declares cleaner; describers declares describer)."
        " Ansible would ignore cleaner. Name the agents in host_vars/gpu1.yml:\n"
    )
    assert yaml.safe_load(message.partition("\n")[2]) == {
        "agent_adapters": NAMED,
        "agent_purpose": {"cleaner": "Grammar"},
        "agent_notes": {"describer": ["New."]},
    }


@pytest.mark.parametrize(
    ("host", "own"),
    [
        # The form that the message shows.
        ({"agent_name": "describer", "agent_adapters": NAMED}, ("cleaners", "describers")),
        (CLEANERS, ("cleaners", "seoul")),
        # A host that replaces what its only such group declares.
        (agent("summarizer", "c"), ("cleaners", "seoul")),
        (agent("cleaner", "c"), ("cleaners", "seoul")),
    ],
)
def test_hidden_agents_host_that_serves_what_it_should_is_accepted(
    tmp_path: pathlib.Path, host: Variables, own: tuple[str, ...]
) -> None:
    assert found(tmp_path, SIBLINGS, host, own) == ""


def test_hidden_agents_of_parent_group_are_refused(tmp_path: pathlib.Path) -> None:
    groups = {"cleaners": {"vars": CLEANERS, "children": {"describers": {"vars": DESCRIBERS}}}}
    assert "Ansible would ignore cleaner." in found(tmp_path, groups, DESCRIBERS, ("cleaners", "describers"))


def test_hidden_agents_child_group_may_replace_adapters_of_same_agent(tmp_path: pathlib.Path) -> None:
    small = agent("cleaner", "small")
    groups = {"cleaners": {"vars": CLEANERS, "children": {"small": {"vars": small}}}}
    assert found(tmp_path, groups, small, ("cleaners", "small")) == ""


def test_hidden_agents_adapters_of_sibling_groups_of_same_agent_are_refused(tmp_path: pathlib.Path) -> None:
    groups = {"small": {"vars": agent("cleaner", "small")}, "large": {"vars": agent("cleaner", "large")}}
    both = ("small", "large")
    assert "Ansible would ignore small." in found(tmp_path, groups, agent("cleaner", "large"), both)
    assert found(tmp_path, groups, agent("cleaner", "small", "large"), both) == ""


def test_hidden_agents_of_several_hosts_are_one_problem(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps({"all": {"children": SIBLINGS}}), encoding="utf-8")
    declarations = GroupDeclarations(DataLoader(), [str(path)], lambda name, raw: Node.of(name, (), raw))
    nodes = [Node.of(name, ("cleaners", "describers"), CLEANERS) for name in ("gpu1", "gpu2")]
    problem = str(hidden_agents(nodes, declarations))
    assert problem.startswith("host gpu1, gpu2: is in groups")
    assert "host_vars/gpu1.yml, and the same for gpu2:\n" in problem
