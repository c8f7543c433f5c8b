# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types
import typing as t

import pytest
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.serial import (
    NotSerial,
    in_waves,
    serial_of,
    wrong_serial,
)
from hypothesis import given
from hypothesis import strategies as st

PERCENTAGES = st.integers(1, 100).map(lambda number: f"{number}%")
SIZES = st.lists(st.integers(1, 12) | PERCENTAGES, min_size=1, max_size=5)


def ansible_batches(hosts: list[str], serial: list[t.Any]) -> list[list[str]]:
    """The batches into which ansible-core divides the hosts of a play."""
    inventory = types.SimpleNamespace(get_hosts=lambda *_arguments, **_options: list(hosts))
    executor = types.SimpleNamespace(_inventory=inventory)
    play = types.SimpleNamespace(hosts="all", order=None, serial=serial)
    batches: list[list[str]] = PlaybookExecutor._get_serialized_batches(executor, play)
    return batches


@given(st.integers(1, 40), SIZES)
def test_in_waves_divides_nodes_as_ansible_divides_hosts(number: int, sizes: list[int | str]) -> None:
    nodes = [f"node-{one}" for one in range(number)]
    assert in_waves(nodes, serial_of(sizes)) == ansible_batches(nodes, sizes)


def test_in_waves_without_nodes_has_no_waves() -> None:
    assert in_waves([], [1]) == []


@pytest.mark.parametrize(
    ("value", "sizes"), [(1, [1]), ("2", [2]), ("30%", ["30%"]), ([1, "5", "100%"], [1, 5, "100%"])], ids=str
)
def test_serial_of_accepted_values_is_list_of_sizes(value: t.Any, sizes: list[int | str]) -> None:
    assert serial_of(value) == sizes


WRONG = [0, -1, "0", "-1", "0%", "101%", "1.5%", "30 %", "%", "", "many", 1.5, True, False, [], [[1]], [1, 0], [None], {"a": 1}]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_serial_of_other_values_is_refused(value: t.Any) -> None:
    with pytest.raises(NotSerial, match="a number of nodes from 1"):
        serial_of(value)


def test_wrong_serial_dictionary_has_a_value_for_each_agent() -> None:
    assert wrong_serial({"cleaner": 1, "describer": [1, "50%"]}) is None
    found = wrong_serial({"cleaner": 1, "describer": "0%"})
    assert found is not None
    assert found[0].startswith('is {"cleaner": 1, "describer": "0%"}, which is not a number of nodes from 1')
