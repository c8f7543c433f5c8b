# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call of the module serves all nodes of a task. Real runs are in tests/integration."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.action import adapter_info
from ansible_collections.lorafleet.delivery.plugins.action.adapter_info import ActionModule
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import text_of

from tests.support.answers import described

Result = t.Dict[str, t.Any]
TASK_VARS = {"hostvars": {"sbs29": {}}}


@dataclasses.dataclass
class Task:
    """The attributes of a task that the plugin reads."""

    delegate_to: str | None = "sbs29"
    args: Result = dataclasses.field(default_factory=lambda: {"models_dir": "/home/models"})
    _uuid: str = "task 1"


class Connection:
    transport = "local"


@pytest.fixture
def calls(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """Results for the next calls of the module, each removed when it is returned."""
    results: list[Result] = []
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    # The texts of these tests are no manifests.
    monkeypatch.setattr(adapter_info, "check_offers", lambda *_arguments: None)
    monkeypatch.setattr(ActionBase, "_execute_module", lambda _action, **_arguments: results.pop(0))
    return results


def run(task: Task | None = None) -> Result:
    """The result for one node."""
    action = ActionModule.__new__(ActionModule)
    action._task, action._connection = task or Task(), Connection()
    return action.run(None, TASK_VARS)


def test_adapter_info_second_node_gets_shared_result(calls: list[Result]) -> None:
    calls += [described(manifests=['{"name": "ü"}'], warnings=["odd"])]
    first = run()
    assert first == described(manifests=['{"name": "ü"}'], warnings=["odd"])
    # Ansible has displayed the warnings for the first node.
    assert run() == described(manifests=['{"name": "ü"}'])
    assert calls == []


def test_adapter_info_by_reference_all_nodes_get_references(calls: list[Result]) -> None:
    calls += [described(manifests=['{"name": "ü"}', "{}"])]
    task = Task(args={"models_dir": "/home/models", "by_reference": True})
    first = run(task)["manifests"]
    assert [text_of(reference) for reference in first] == ['{"name": "ü"}', "{}"]
    assert all(reference.startswith("manifest:") for reference in first)
    assert run(task)["manifests"] == first


def test_adapter_info_failed_call_is_not_shared(calls: list[Result]) -> None:
    calls += [{"failed": True, "msg": "first"}, described(manifests=["second"]), described(manifests=["third"])]
    assert [run().get("msg"), run().get("manifests"), run().get("manifests")] == ["first", ["second"], ["third"]]


@pytest.mark.parametrize("other", [Task(_uuid="task 2"), Task(args={"models_dir": "/srv"}), Task(delegate_to=None)])
def test_adapter_info_other_task_calls_module_again(calls: list[Result], other: Task) -> None:
    calls += [described(manifests=["one"]), described(manifests=["two"])]
    assert [run()["manifests"], run(other)["manifests"]] == [["one"], ["two"]]


def test_adapter_info_unknown_training_host_is_refused(calls: list[Result]) -> None:
    result = run(Task(delegate_to="sbs99"))
    assert result["failed"]
    assert result["msg"].startswith("delegate_to: is 'sbs99', which is not a host in the inventory. Set it")
    assert [problem["subject"] for problem in result["problems"]] == ["delegate_to"]
    assert calls == []
