# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which modules the names in adapter_config.json mean, and what it costs to find out."""

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.module_selection import matches_any, saves
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(st.lists(st.sampled_from("ab1"), min_size=1, max_size=4).map(".".join), max_size=5)
MODULES = st.lists(st.sampled_from(("a", "b", "ab", "1")), min_size=1, max_size=6).map(".".join)


@given(NAMES, MODULES)
def test_matches_any_is_name_or_last_components(names: list[str], module: str) -> None:
    expected = any(module == name or module.endswith(f".{name}") for name in names)
    assert matches_any(names, module) == matches_any(frozenset(names), module) == expected


def test_matches_any_looks_up_each_ending_once() -> None:
    class Names(frozenset[str]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            Names.asked += 1
            return super().__contains__(name)

    assert not matches_any(Names(f"m{number}" for number in range(1000)), "model.layers.0.mlp")
    assert Names.asked == 4


def test_matches_any_without_names_is_false() -> None:
    assert not matches_any(None, "a")
    assert not matches_any([], "a")


@given(NAMES, MODULES)
def test_saves_is_end_of_module_or_of_one_that_contains_it(names: list[str], module: str) -> None:
    parts = module.split(".")
    above = [".".join(parts[: length + 1]) for length in range(len(parts))]
    assert saves({"modules_to_save": names}, module) == any(path.endswith(name) for path in above for name in names)
