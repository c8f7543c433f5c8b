# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plugin reads of the node's variables itself. Real runs are in tests/integration."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible import constants as C
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible_collections.lorafleet.delivery.plugins.action.adapter_selection_info import ActionModule
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.host_variables import trust_as_template

from tests.support.fleet import CLEANER_3B, row

URL = {"name": "vllm", "url": "http://127.0.0.1:8000"}


@dataclasses.dataclass
class Task:
    """The attributes of a task that the plugin reads."""

    args: dict[str, t.Any]
    tags: tuple[str, ...] = ()


@pytest.fixture
def select(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., dict[str, t.Any]]:
    """Run the plugin with variables of the node; ``arguments`` are options of the task."""
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    rows = [row(CLEANER_3B, "3b", 16)]

    def run(arguments: dict[str, t.Any] | None = None, **variables: t.Any) -> dict[str, t.Any]:
        action = ActionModule.__new__(ActionModule)
        action._task = Task({"agent": "cleaner", "adapters": rows, **(arguments or {})})
        action._templar = Templar(DataLoader(), variables)
        given = {"agent_adapters": rows, "agent_name": "cleaner", **variables}
        fleet = {"inventory_hostname": "jw2-1", "group_names": [], "groups": {"all": []}, "hostvars": {}}
        return action.run(None, {**fleet, **given})

    return run


def test_selection_reads_what_it_only_reports_from_variables(select: t.Callable[..., dict[str, t.Any]]) -> None:
    home = {"home": "/srv", "agent_models_dir": trust_as_template("{{ home }}/models")}
    node = select(ansible_host="192.0.2.1", agent_purpose="Grammar", agent_notes=["one"], **home)["node"]
    assert (node["address"], node["models_dir"], node["source_models_dir"]) == ("192.0.2.1", "/srv/models", None)
    assert (node["purpose"], node["notes"]) == ({"cleaner": "Grammar"}, {"cleaner": ["one"]})
    other = select({"purpose": "Noise", "address": "b"}, ansible_host="192.0.2.1", agent_purpose="Grammar")["node"]
    assert (other["address"], other["purpose"]) == ("b", {"cleaner": "Noise"})


def test_selection_takes_an_undefined_variable_for_one_that_is_not_set(select: t.Callable[..., dict[str, t.Any]]) -> None:
    assert select(agent_source_models_dir=trust_as_template("{{ nowhere }}"))["node"]["source_models_dir"] is None


@pytest.mark.parametrize(
    ("engines", "serves"), [({}, False), ({"agent_engine": "vllm"}, False), ({"agent_engine": ["olive", URL]}, True)]
)
def test_selection_tells_whether_an_engine_has_a_url(
    select: t.Callable[..., dict[str, t.Any]], engines: dict[str, t.Any], serves: bool
) -> None:
    assert select(**engines)["serves"] is serves
