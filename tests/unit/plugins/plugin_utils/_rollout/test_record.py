# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.gate import Passed
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.plan import Candidate, Plan
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._rollout.record import (
    forget,
    keep_plan,
    kept_plan,
    passed_of,
    record_passed,
    record_served,
)

NODES = [Candidate("a/1", ("a",)), Candidate("a/2", ("a",))]
PLAN = Plan.of(NODES, {"a": [1]})


@pytest.fixture(autouse=True)
def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))


def test_kept_plan_before_any_deploy_is_missing() -> None:
    with pytest.raises(FileNotFoundError):
        kept_plan()


def test_kept_plan_is_that_of_the_last_deploy() -> None:
    keep_plan(PLAN)
    assert kept_plan() == PLAN
    keep_plan(Plan.of(NODES, {"a": ["100%"]}))
    assert kept_plan() is None


def test_record_passed_adapters_with_another_release_than_before_have_changed() -> None:
    keep_plan(PLAN)
    entries = [
        {"name": "new", "action": "activated", "previous": None},
        {"name": "changed", "action": "activated", "previous": "0" * 12},
        {"name": "repaired", "action": "repaired", "previous": "0" * 12},
        {"name": "unchanged", "action": "unchanged", "previous": "0" * 12},
    ]
    record_passed("a/1", entries)
    record_passed("a/2")
    assert passed_of(PLAN) == {"a/1": Passed(("changed",)), "a/2": Passed()}


def test_record_passed_without_a_plan_records_nothing(tmp_path: pathlib.Path) -> None:
    record_passed("a/1")
    assert list(tmp_path.iterdir()) == []
    keep_plan(Plan.of(NODES, {"a": ["100%"]}))
    record_passed("a/1")
    assert passed_of(PLAN) == {}


def test_record_served_is_needed_of_nodes_whose_engines_serve() -> None:
    plan = Plan.of([Candidate("a/1", ("a",), serves=True), Candidate("a/2", ("a",))], {"a": [1]})
    keep_plan(plan)
    # Not without the files.
    record_served("a/1")
    assert passed_of(plan) == {}
    record_passed("a/1")
    record_passed("a/2")
    assert passed_of(plan) == {"a/2": Passed()}
    record_served("a/1")
    assert passed_of(plan) == {"a/1": Passed(), "a/2": Passed()}


def test_forget_node_has_not_passed() -> None:
    keep_plan(PLAN)
    record_passed("a/1")
    forget("a/1")
    forget("a/2")
    assert passed_of(PLAN) == {}
