# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rows import (
    adapters_of,
    agents_of,
    by_agent,
    rows_with_agents,
)

GRAMMAR = {"name": "grammar_lora", "variant": "3b", "rank": 16}


def test_rows_with_agents_agent_name_is_agent_of_rows_that_name_none() -> None:
    rows = rows_with_agents([GRAMMAR, {**GRAMMAR, "agent": "describer"}], "cleaner")
    assert rows == [{"agent": "cleaner", **GRAMMAR}, {"agent": "describer", **GRAMMAR}]


def test_rows_with_agents_form_of_agent_is_that_of_rows_without_one() -> None:
    rows = rows_with_agents([GRAMMAR, {**GRAMMAR, "form": "as_trained"}], "cleaner", "folded")
    assert [row["form"] for row in rows] == ["folded", "as_trained"]
    assert rows_with_agents([GRAMMAR], "cleaner", "as_trained") == rows_with_agents([GRAMMAR], "cleaner")


def test_rows_with_agents_numbers_become_text() -> None:
    # YAML parses 3 as a number, and tags are text.
    assert rows_with_agents([{"name": 7, "variant": 3}], "cleaner") == [{"agent": "cleaner", "name": "7", "variant": "3"}]


@pytest.mark.parametrize(
    "adapters", [None, "grammar_lora", {"name": "a", "variant": "3b"}, ["a"], [{"name": "a"}], [{"variant": "3b"}]]
)
def test_rows_with_agents_other_forms_are_left_out(adapters: t.Any) -> None:
    assert rows_with_agents(adapters, "cleaner") == []
    assert rows_with_agents([GRAMMAR], None) == []


def test_agents_of_variants_are_listed_once_in_order() -> None:
    rows = [{"agent": agent, "variant": variant} for agent, variant in [("b", "8b"), ("a", "3b"), ("b", "3b"), ("b", "8b")]]
    assert agents_of(rows) == {"b": ["8b", "3b"], "a": ["3b"]}


def test_adapters_of_adapter_of_two_agents_is_returned_once_without_agent() -> None:
    rows = rows_with_agents([GRAMMAR, {**GRAMMAR, "agent": "describer"}], "cleaner")
    assert adapters_of(rows) == [GRAMMAR]


def test_by_agent_value_of_one_agent_and_dictionary_are_equal() -> None:
    assert by_agent("Grammar", "cleaner") == by_agent({"cleaner": "Grammar"}, None) == {"cleaner": "Grammar"}
    assert by_agent(None, "cleaner") == by_agent("Grammar", None) == {}
