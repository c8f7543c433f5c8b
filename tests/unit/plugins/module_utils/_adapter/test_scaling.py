# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of the keys of a pattern, which decides where several match."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.scaling import overlap_notes

MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_overlap_notes_keys_with_different_values_are_named(key: str) -> None:
    pattern = {"q_proj": 8, "layers.1.self_attn.q_proj": 64}
    [note] = overlap_notes({key: pattern}, MODULES)
    assert note == (
        f"{key} in adapter_config.json has different values for model.layers.1.self_attn.q_proj: q_proj,"
        " layers.1.self_attn.q_proj match it, and the first one counts. PEFT sorts them when it saves, so another one may"
        " have counted in training. Test the saved adapter."
    )


@pytest.mark.parametrize(
    "pattern",
    [
        None,
        {},
        {"q_proj": 8},
        {"q_proj": 8, "v_proj": 4},
        # The same either way.
        {"q_proj": 8, "layers.1.self_attn.q_proj": 8},
        # The second one matches no module.
        {"q_proj": 8, "layers.7.self_attn.q_proj": 64},
        # config_problems rejects it.
        {"q_proj": 8, "(": 64},
    ],
)
def test_overlap_notes_order_that_does_not_matter_is_no_note(pattern: dict[str, t.Any] | None) -> None:
    assert overlap_notes({"alpha_pattern": pattern}, MODULES) == []
