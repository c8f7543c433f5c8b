# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.module_utils._nearest import nearest

KEYS = ("name", "variant", "rank", "alpha", "target_modules")


def test_nearest_is_the_most_similar_name_if_any_is_similar() -> None:
    assert [nearest(name, KEYS) for name in ("rnk", "lora_alpha", "target_module")] == ["rank", "alpha", "target_modules"]
    assert nearest("xyz", KEYS) is None
