# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step of a task, and that every step is a module of the collection."""

from __future__ import annotations

import types
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    ACTIVATE,
    AUDIT,
    PREFLIGHT,
    RECORD,
    STATUS,
    STEPS,
    Step,
    step_of,
)

from tests.support.paths import PLUGINS


@pytest.mark.parametrize(
    ("action", "args", "step"),
    [
        ("lorafleet.delivery.adapter_release", {}, ACTIVATE),
        ("lorafleet.delivery.adapter_release_info", {}, AUDIT),
        ("lorafleet.delivery.adapter_release_info", {"content": True}, AUDIT),
        ("lorafleet.delivery.adapter_release_info", {"content": False}, STATUS),
        ("lorafleet.delivery.adapter_release_info", {"content": "no"}, STATUS),
        ("lorafleet.delivery.something_else", {}, None),
        ("other.collection.adapter_release", {}, None),
        ("adapter_release", {}, None),
    ],
)
def test_step_of_task_depends_on_its_module(action: str, args: dict[str, t.Any], step: Step | None) -> None:
    assert step_of(types.SimpleNamespace(action=action, args=args)) == step


def test_steps_are_modules_with_unique_keys() -> None:
    every = (*STEPS, PREFLIGHT, RECORD)
    modules = {path.stem for path in PLUGINS.glob("modules/*.py")}
    # These take no time that a progress display could show.
    others = {"adapter_selection_info", "adapter_sign", "fleet_info", "fleet_snapshot", "node_trust"}
    assert modules - {step.module for step in every} == others
    assert {step.module for step in every} <= modules
    assert len({step.key for step in every}) == len(every)
