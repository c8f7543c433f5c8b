# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import types
import typing as t

import pytest
from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import NodeAction
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._kept_manifests import keep

Arguments = t.Dict[str, t.Any]


@pytest.fixture
def received(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Arguments]:
    """The arguments that modules got. Each module returns them as Ansible's modules do."""
    found: list[Arguments] = []

    def execute(action: t.Any, module_args: Arguments | None = None, **_more: t.Any) -> Arguments:
        found.append(dict(module_args or action._task.args))
        return {"changed": False, "invocation": {"module_args": dict(found[-1])}}

    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    return found


def action(**arguments: t.Any) -> NodeAction:
    plugin = t.cast("NodeAction", NodeAction.__new__(NodeAction))
    plugin._task = types.SimpleNamespace(args=arguments, delegate_to=None)
    return plugin


def test_node_action_module_gets_texts_of_references(received: list[Arguments]) -> None:
    plugin = action(manifests=[keep("{}")], store="/s")
    result = plugin._execute_module(module_name="m", task_vars={})
    plugin._execute_module(module_name="m", task_vars={}, module_args={**plugin._task.args, "phase": "plan"})
    assert received == [{"manifests": ["{}"], "store": "/s"}, {"manifests": ["{}"], "store": "/s", "phase": "plan"}]
    assert result == {"changed": False, "invocation": {"module_args": {"store": "/s"}}}


def test_node_action_reference_of_another_run_fails_before_contact(received: list[Arguments]) -> None:
    result = action(manifests=["manifest:" + 64 * "0"])._execute_module(module_name="m", task_vars={})
    assert result["failed"]
    assert [problem["subject"] for problem in result["problems"]] == ["manifests"]
    assert received == []
