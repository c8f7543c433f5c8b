# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys of a base's config.json for which transformers loads code."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.remote_code import code_keys


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"hidden_size": 64, "layers": [1, "auto_map"]}, set()),
        ({"auto_map": {"AutoModel": "evil.Model"}}, {"auto_map"}),
        (
            {"auto_map": None, "text_config": [{"_attn_implementation_internal": "x"}]},
            {"auto_map", "_attn_implementation_internal"},
        ),
        ({"x-_internal.y": 1}, {"x-_internal.y"}),
        ([{"auto_map": 1}], {"auto_map"}),
        (None, set()),
    ],
)
def test_code_keys_at_any_depth(config: t.Any, keys: set[str]) -> None:
    assert code_keys(config) == keys
