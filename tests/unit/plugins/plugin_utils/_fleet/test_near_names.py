# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.near_names import edits, meant_variable
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.role_options import documented_variables
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.text("abc", max_size=5)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("keep", "keep", 0), ("kep", "keep", 1), ("kepe", "keep", 1), ("level", "lvel", 1), ("keys", "keep", 2)],
)
def test_edits_counts_letters(one: str, other: str, expected: int) -> None:
    assert edits(one, other) == expected


@given(WORDS, WORDS)
def test_edits_are_symmetric_and_zero_for_equal_words_only(one: str, other: str) -> None:
    found = edits(one, other)
    assert {edits(*pair) for pair in ((one, other), (other, one))} == {found}
    assert found <= max(len(one), len(other))
    assert (found == 0) == (one == other)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("agent_modelsdir", "agent_models_dir"),
        ("agent_Models-dir", "agent_models_dir"),
        ("agent_model_dir", "agent_models_dir"),
        ("agnet_models_dir", "agent_models_dir"),
        ("agent_adapter", "agent_adapters"),
        ("agent_level", None),
        ("agent_leve", "agent_level"),
        ("trainng_bases", "training_bases"),
        ("agent_port", None),
        ("agent_home", None),
        ("agent_models", None),
        ("ansible_host", None),
        ("my_agent_name", None),
    ],
)
def test_meant_variable_is_nearest_documented_one(name: str, meant: str | None) -> None:
    assert meant_variable(name, documented_variables(), ()) == meant


def test_meant_variable_that_is_set_is_meant_only_with_same_letters() -> None:
    assert meant_variable("agent_model_dir", documented_variables(), {"agent_models_dir"}) is None
    assert meant_variable("agent_modelsdir", documented_variables(), {"agent_models_dir"}) == "agent_models_dir"
