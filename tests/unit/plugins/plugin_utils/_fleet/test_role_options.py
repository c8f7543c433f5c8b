# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.role_options import coerced, documented_variables


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("agent_keep", "3", 3),
        ("agent_load_test_force", "yes", True),
        ("agent_level", "model", "model"),
        ("agent_bases", {}, {}),
        ("agent_prompts", [1], [1]),
        ("runtime_base_python", 3.11, "3.11"),
    ],
)
def test_coerced_returns_value_as_role_gets_it(name: str, value: t.Any, expected: t.Any) -> None:
    assert coerced(documented_variables()[name], value) == expected


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("agent_keep", "many", "an integer"),
        ("agent_load_test_force", "perhaps", "true or false"),
        ("agent_bases", ["a"], "a dictionary"),
        ("agent_models_dir", ["/home/models"], "a path"),
        ("agent_owner", {"name": "kim"}, "text"),
        ("agent_activation", "copy", "one of auto, exchange, symlink"),
    ],
)
def test_coerced_wrong_value_raises_with_right_form(name: str, value: t.Any, form: str) -> None:
    with pytest.raises(ValueError, match=f"^{form}$"):
        coerced(documented_variables()[name], value)
