# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The result of a task as callback plugins get it, the same for every supported ansible-core."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The result of one task on one host.

    ``target`` is the name of the host that the task was delegated to, or else ``host`` again.
    """

    host: str
    target: str
    task: t.Any
    data: dict[str, t.Any]


def task_result(result: t.Any) -> TaskResult:
    """Read the object that ansible-core hands to a callback."""
    if hasattr(result, "task"):
        host, task, data = result.host, result.task, result.result
    else:
        # ansible-core 2.18. Later releases keep these names for a while.
        host, task, data = result._host, result._task, result._result
    name = host.get_name()
    # The name is templated by now, except in the result of a whole loop.
    # ``_ansible_delegated_vars`` is missing when the target was unreachable.
    return TaskResult(name, task.delegate_to or name, task, data)


class FailedItems:
    """Tells on which hosts the items of a loop failed, which the result of the loop does not.

    Each item may be delegated to another host.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], list[TaskResult]] = {}

    def add(self, item: TaskResult) -> None:
        self._failed.setdefault((item.host, item.task._uuid), []).append(item)

    def of(self, ended: TaskResult) -> list[TaskResult]:
        """Return the results of the failed items of a failed task, or its own if it has no loop."""
        return self._failed.pop((ended.host, ended.task._uuid), [ended])
