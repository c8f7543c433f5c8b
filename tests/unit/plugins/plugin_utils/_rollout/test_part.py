# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.part import part_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Candidate, Plan
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.record import keep_plan, record_passed

PLAN = Plan.of([Candidate("a1", ("a",)), Candidate("a2", ("a",))], {"a": [1]}, ["a1"])
ADAPTERS = {"a": {"x"}}
ALL = ["a1", "a2"]


@pytest.fixture(autouse=True)
def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    keep_plan(PLAN)


def test_part_of_node_without_a_plan_is_everything_at_once() -> None:
    assert part_of("a1", ADAPTERS, None, 1, ALL).adapters == {"x"}
    assert part_of("a1", ADAPTERS, None, None, ALL).adapters == set()


def test_part_of_node_before_its_turn_is_nothing() -> None:
    part = part_of("a2", ADAPTERS, PLAN, 1, ALL)
    assert (part.adapters, part.problems) == (set(), [])
    assert part.rollout == {"turn": 2, "turns": 2, "waves": {"a": [2, 2]}, "back": True}


def test_part_of_node_in_its_turn_is_everything_once_the_wave_before_has_passed() -> None:
    record_passed("a1")
    part = part_of("a2", ADAPTERS, PLAN, 2, ALL)
    assert (part.adapters, part.problems) == ({"x"}, [])


def test_part_of_node_after_a_node_that_ansible_has_lost_is_held_back() -> None:
    record_passed("a1")
    assert part_of("a2", ADAPTERS, PLAN, 2, ["a2"]).problems


def test_part_of_node_in_first_turn_forgets_an_earlier_deploy() -> None:
    record_passed("a1")
    part_of("a1", ADAPTERS, PLAN, 1, ALL)
    assert part_of("a2", ADAPTERS, PLAN, 2, ALL).problems


def test_part_of_node_after_the_rollout_is_what_goes_back() -> None:
    record_passed("a1", [{"name": "x", "action": "activated", "previous": "0" * 12}])
    assert part_of("a1", ADAPTERS, PLAN, None, ALL).adapters == {"x"}
    record_passed("a2")
    assert part_of("a1", ADAPTERS, PLAN, None, ALL).adapters == set()
