# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results of tasks under the attributes of every supported ansible-core."""

from __future__ import annotations

import types

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._task_result import FailedItems, TaskResult, task_result


@pytest.mark.parametrize("prefix", ["", "_"], ids=["2.19 and later", "2.18"])
@pytest.mark.parametrize(("delegate_to", "target"), [(None, "jw2-1"), ("sbs29", "sbs29")])
def test_task_result_has_host_target_task_and_data(prefix: str, delegate_to: str | None, target: str) -> None:
    host = types.SimpleNamespace(get_name=lambda: "jw2-1")
    task = types.SimpleNamespace(delegate_to=delegate_to)
    attributes = {"host": host, "task": task, "result": {"changed": True}}
    result = types.SimpleNamespace(**{prefix + name: value for name, value in attributes.items()})
    assert task_result(result) == TaskResult("jw2-1", target, task, {"changed": True})


def test_failed_items_of_loop_are_returned_once_instead_of_the_loop() -> None:
    def result(target: str, uuid: str) -> TaskResult:
        return TaskResult("jw2-1", target, types.SimpleNamespace(_uuid=uuid), {})

    items, failed = FailedItems(), [result("sbs29", "loop"), result("sbs30", "loop")]
    for item in failed:
        items.add(item)
    loop, other = result("{{ item }}", "loop"), result("jw2-1", "other")
    assert items.of(other) == [other]
    assert items.of(loop) == failed
    assert items.of(loop) == [loop]
