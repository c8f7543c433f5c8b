# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node, prompts_of, variants_of

from tests.support.paths import CHECKOUT

ROW = {"name": "a", "variant": "3b"}


def node(name: str, **variables: t.Any) -> Node:
    given = {f"agent_{key}": value for key, value in variables.items()}
    return Node.of(name, ["all", "agents", "jw2"], {"agent_adapters": [ROW], "agent_name": "cleaner", **given})


def test_node_values_of_one_agent_are_by_agent() -> None:
    found = node("jw2-1", purpose="Grammar", notes=["Retrained."], models_dir="/home/models")
    assert found.entry(found.rows) == {
        "name": "jw2-1",
        "address": "jw2-1",
        "groups": ["jw2"],
        "agents": ["cleaner"],
        "purpose": {"cleaner": "Grammar"},
        "notes": {"cleaner": ["Retrained."]},
        "training_host": None,
        "models_dir": "/home/models",
        "source_models_dir": None,
        "rows": [{"agent": "cleaner", "name": "a", "variant": "3b", "selected": True}],
    }


def test_node_one_note_is_a_list_of_notes() -> None:
    assert node("jw2-1", notes="Retrained.").notes == {"cleaner": ["Retrained."]}


def test_node_rows_of_several_agents_are_selected_one_by_one() -> None:
    found = node("jw2-1", adapters=[ROW, {**ROW, "agent": "describer"}])
    assert found.agents == ["cleaner", "describer"]
    assert [row["selected"] for row in found.entry(found.rows[1:])["rows"]] == [False, True]


def test_variants_of_all_nodes_are_by_agent() -> None:
    rows = [node("one").rows, node("two", adapters=[{"name": "b", "variant": "8b"}]).rows]
    assert variants_of(rows) == {"cleaner": ["3b", "8b"]}


def test_prompts_of_agent_apply_to_all_its_adapters() -> None:
    nodes = [
        node("one", adapters=[ROW, {"name": "b", "variant": "8b"}], prompts=["x"]),
        node("two", prompts={"cleaner": ["x"], "describer": ["y"]}),
        node("three", adapters=[{"name": "c", "variant": "3b"}]),
    ]
    assert prompts_of(nodes) == ({"a": ["x"], "b": ["x"]}, [])


def test_prompts_of_conflicting_nodes_are_a_problem() -> None:
    _prompts, problems = prompts_of([node(name, prompts=[name]) for name in ("one", "two", "three")])
    assert [str(problem) for problem in problems] == [
        "adapter a, agent_prompts: differ between one and two. Declare them once, for the group of the agent."
    ]


@pytest.mark.parametrize("inventory", ["etri", "demo"])
@pytest.mark.parametrize("group", ["jw2", "jw3", "kcloud"])
def test_inventories_every_agent_has_prompts(inventory: str, group: str) -> None:
    path = CHECKOUT / "inventories" / inventory / "group_vars" / f"{group}.yml"
    prompts = yaml.safe_load(path.read_text(encoding="utf-8"))["agent_prompts"]
    assert len(prompts) >= 4
    assert all(isinstance(prompt, str) or set(prompt) == {"user"} for prompt in prompts)
