# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.fleet import Node
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.node_checks import check_agent_names, check_rows

ROW = {"name": "grammar_lora", "variant": "3b", "base": "tiny/Llama", "rank": 16, "alpha": 32}


def found(*rows: t.Any, agent: t.Any = "cleaner") -> list[str]:
    return [" ".join(filter(None, [finding.problem, finding.remedy])) for finding in check_rows(list(rows), agent)]


def test_check_rows_valid_rows_have_no_findings() -> None:
    assert found(ROW, {**ROW, "name": "other_lora", "variant": 8, "rank": "32", "default": True, "extra_files": ["a.txt"]}) == []


@pytest.mark.parametrize("adapters", [None, []])
def test_check_rows_no_rows_are_refused(adapters: t.Any) -> None:
    assert [finding.problem for finding in check_rows(adapters, "cleaner")] == ["declares no adapters."]


@pytest.mark.parametrize("adapters", ["grammar_lora", {"grammar_lora": ROW}])
def test_check_rows_other_form_is_refused(adapters: t.Any) -> None:
    [finding] = check_rows(adapters, "cleaner")
    assert finding.problem.endswith("which is not a list.")


def test_check_rows_list_as_text_of_an_ini_file_is_explained() -> None:
    [finding] = check_rows('[{"name": "grammar_lora", "default": true}]', "cleaner")
    assert "In an INI file, write True and False" in finding.remedy


def test_check_rows_agent_name_of_another_form_is_left_to_the_check_of_variables() -> None:
    assert found(ROW, agent=["cleaner"]) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            "grammar_lora",
            ['is "grammar_lora", which is not a dictionary. Write the keys of an adapter: name, variant and so on.'],
        ),
        ({**ROW, "rnk": 16}, ["has the unknown key rnk. Write rank."]),
        ({**ROW, "rank": None}, ["has no rank. Add rank to the row."]),
        ({**ROW, "rank": "high"}, ['has rank "high", which is not an integer. Write an integer.']),
        ({**ROW, "target_modules": {"a": 1}}, ['has target_modules {"a": 1}, which is not a list. Write a list.']),
        ({"name": "grammar_lora"}, [f"has no {key}. Add {key} to the row." for key in ("variant", "base", "rank", "alpha")]),
    ],
)
def test_check_rows_row_of_wrong_form_is_refused(row: t.Any, expected: list[str]) -> None:
    assert found(row) == expected


def test_check_rows_invalid_name_is_refused() -> None:
    [finding] = check_rows([{**ROW, "name": "grammar/lora"}], "cleaner")
    assert finding.variable == "agent_adapters, adapter 'grammar/lora'"
    assert finding.problem == "is not a valid name."


def test_check_rows_row_without_agent_is_refused() -> None:
    expected = ["has rows that belong to no agent. Set agent_name for the group, or agent in each row."]
    assert found(ROW, {**ROW, "name": "other_lora"}, agent=None) == expected
    assert found({**ROW, "agent": "cleaner"}, agent=None) == []


def test_check_rows_row_twice_is_refused() -> None:
    assert found(ROW, {**ROW, "rank": "16", "allow_pickle": False}) == [
        "is declared twice for agent cleaner. Rows 1 and 2: remove one of the two."
    ]


def test_check_rows_name_of_two_different_adapters_is_refused() -> None:
    expected = "is declared twice with different base, rank. Rows 1 and 2: correct one of the two, or give the other adapter"
    for agent in ("cleaner", "describer"):
        [text] = found(ROW, {**ROW, "rank": 32, "base": "tiny/Qwen", "agent": agent})
        assert text.startswith(expected)


def test_check_rows_two_agents_may_serve_same_adapter() -> None:
    assert (
        found({**ROW, "default": True}, {**ROW, "agent": "describer", "variant": "small", "default": True, "quality": "9"}) == []
    )


def test_check_rows_two_defaults_of_an_agent_are_refused() -> None:
    rows = [{**ROW, "name": name, "default": True} for name in ("a", "b")]
    assert found(*rows) == ["has 2 rows with default: true for agent cleaner: a, b. Keep it in only one of them."]
    assert found(rows[0], {**rows[1], "agent": "describer"}) == []


def test_check_agent_names_agent_that_no_node_serves_is_refused() -> None:
    variables = {"agent_name": "cleaner", "agent_adapters": [ROW], "agent_prompts": {"cleanr": ["a"], "describer": ["b"]}}
    findings = list(check_agent_names(Node.of("jw2-1", [], variables), ["cleaner", "describer"]))
    assert [(finding.variable, finding.remedy) for finding in findings] == [("agent_prompts", "Write cleaner.")]
