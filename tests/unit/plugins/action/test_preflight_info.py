# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One check of the training server serves all its nodes. Real runs are in tests/integration."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys
import typing as t

import pytest
from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.action import preflight_info
from ansible_collections.lorafleet.delivery.plugins.action.preflight_info import ActionModule
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End

Result = t.Dict[str, t.Any]
VARIABLES = {"hostvars": {"sbs29": {}, "jw2-1": {}}, "inventory_hostname": "jw2-1"}
FAILED = {"check": "store", "state": "failed", "found": "is full.", "remedy": "Free it."}


@dataclasses.dataclass
class Task:
    """The attributes of a task that the plugin reads."""

    delegate_to: str | None = "sbs29"
    args: Result = dataclasses.field(default_factory=lambda: {"part": "source"})
    _uuid: str = "task 1"
    check_mode: bool = False


class Local:
    """A local connection."""

    transport = "local"
    become = None
    _shell = None


@pytest.fixture
def calls(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """Results for the next calls of the module, each removed when it is returned."""
    results: list[Result] = []
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(ActionBase, "_execute_module", lambda _action, **_arguments: results.pop(0))
    monkeypatch.setattr(ActionBase, "_get_remote_user", lambda _action: "root")
    return results


def run(task: Task) -> Result:
    action = ActionModule.__new__(ActionModule)
    action._task, action._connection = task, Local()
    return action.run(None, VARIABLES)


def found(*checks: Result, **more: t.Any) -> Result:
    return {"checks": list(checks), "user": "root", "time": 0.0, **more}


def test_preflight_info_shares_also_what_failed(calls: list[Result]) -> None:
    problem = {"adapter": None, "subject": "store", "problem": "is full.", "remedy": "Free it."}
    calls += [found(FAILED, failed=True, msg="store: is full. Free it.", problems=[problem])]
    first = run(Task())
    assert run(Task()) == first
    assert (first["failed"], first["problems"], first["msg"]) == (True, [problem], "store: is full. Free it.")
    assert calls == []


def test_preflight_info_adds_what_the_controller_found(calls: list[Result]) -> None:
    calls += [found({**FAILED, "state": "ok"})]
    result = run(Task(delegate_to=None))
    assert [one["check"] for one in result["checks"]] == ["connection", "become", "clock", "transfer connection", "store"]
    # The module was run in 1970.
    assert [one["check"] for one in result["checks"] if one["state"] != "ok"] == ["clock"]
    assert result["changed"] is False
    assert "failed" not in result
    assert result.keys().isdisjoint({"user", "time"})


def test_preflight_info_unknown_training_host_is_a_failed_check(calls: list[Result]) -> None:
    result = run(Task(delegate_to="sbs99"))
    assert result["failed"]
    [lost] = result["checks"]
    assert (lost["check"], lost["found"]) == ("connection", "'sbs99' is not a host in the inventory.")
    assert result["msg"] == f"connection: {lost['found']} {lost['remedy']}"


def test_preflight_info_without_checks_is_a_failed_check(calls: list[Result]) -> None:
    calls += [{"failed": True, "module_stdout": "", "module_stderr": "python3: not found", "msg": "See stdout/stderr"}]
    result = run(Task(delegate_to=None))
    assert [(one["check"], one["state"]) for one in result["checks"]] == [("connection", "ok"), ("Ansible's Python", "failed")]
    assert result["problems"][0]["problem"] == 'as user root, there is no Python at python3: "python3: not found".'


@pytest.mark.parametrize(
    "answer",
    [
        {"checks": None},
        {"checks": ["store"]},
        {"checks": [{"check": "store", "state": "failed", "found": 3, "remedy": ""}]},
        {"checks": [{**FAILED, "state": "excellent"}]},
        {"checks": [], "user": None},
        {"checks": [], "time": "now"},
    ],
)
def test_preflight_info_answer_of_another_form_is_a_failed_check(calls: list[Result], answer: Result) -> None:
    calls += [{**found(), **answer}]
    result = run(Task(delegate_to=None))
    assert [(one["check"], one["state"]) for one in result["checks"]] == [("connection", "ok"), ("answer", "failed")]
    assert result["failed"] is True


def test_preflight_info_text_of_a_host_cannot_control_the_terminal(calls: list[Result]) -> None:
    calls += [found({**FAILED, "state": "ok", "found": "is\x1b[2Jfull"}, user="root\x1b[2J")]
    result = run(Task(delegate_to=None))
    assert all(text.isprintable() for one in result["checks"] for text in one.values())


def test_preflight_info_with_unreadable_signatures_checks_all_the_rest(
    calls: list[Result], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Result] = []

    def execute(_action: ActionBase, module_args: Result, **_arguments: t.Any) -> Result:
        sent.append(module_args)
        return found(FAILED)

    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    arguments = {"part": "node", "manifests": [], "signatures": str(tmp_path / "absent")}
    result = run(Task(delegate_to=None, args=arguments))
    [unreadable] = [one for one in result["checks"] if one["check"] == "signatures"]
    assert unreadable["state"] == "failed"
    assert unreadable["found"] == f"is {tmp_path}/absent, which is no directory on the controller."
    assert FAILED in result["checks"]
    assert sent == [{**arguments, "signatures": ""}]


# --- the ways in which the node connects to its source ---

DIRECT = {"transfer": "direct", "transfer_direct_ports": "0", "transfer_direct_address": "127.0.0.1", "source": "sbs29"}
LOST = {"check": "connection", "state": "failed", "found": "timed out.", "remedy": ""}


def ways(
    calls: list[Result], monkeypatch: pytest.MonkeyPatch, arguments: Result, check_mode: bool = False
) -> dict[str, tuple[str, str]]:
    """The state and the text of each check of a way, at a source on this machine."""
    monkeypatch.setattr(preflight_info, "source_end", lambda *_arguments: End(None))
    calls += [found(python=sys.executable)]
    result = run(Task(delegate_to=None, args={"part": "node", **arguments}, check_mode=check_mode))
    assert "python" not in result
    return {one["check"]: (one["state"], one["found"]) for one in result["checks"] if one["check"].startswith("way ")}


def test_preflight_info_tries_each_direct_way_that_a_delivery_would(calls: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    [(name, (state, text))] = ways(calls, monkeypatch, DIRECT).items()
    assert (name, state, text.startswith("the node reaches port ")) == ("way direct", "ok", True)
    [(name, (state, text))] = ways(calls, monkeypatch, {**DIRECT, "transfer_direct_address": "absent.invalid"}).items()
    assert (name, state, "absent.invalid cannot be reached: " in text) == ("way direct", "failed", True)
    keys = {"transfer_direct_ssh": True, "transfer_direct_authorized_keys": "/absent/keys"}
    tried = ways(calls, monkeypatch, {**DIRECT, **keys, "transfer": "auto"})
    assert {check: state for check, (state, _text) in tried.items()} == {"way direct": "ok", "way direct_ssh": "warning"}


def test_preflight_info_tries_the_ports_of_a_swarm_at_the_source(calls: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = {"transfer": "swarm", "transfer_swarm_ports": "0", "transfer_direct_address": "127.0.0.1", "source": "sbs29"}
    [(name, (state, text))] = ways(calls, monkeypatch, swarm).items()
    assert (name, state) == ("way swarm", "ok")
    assert re.fullmatch("the node reaches port [0-9]+ of 127.0.0.1, the ports of other nodes were not tried", text)
    tried = ways(calls, monkeypatch, {**DIRECT, **swarm, "transfer": "auto", "transfer_direct_address": "absent.invalid"})
    assert {check: state for check, (state, _text) in tried.items()} == {"way swarm": "warning", "way direct": "warning"}


def test_preflight_info_of_other_ways_connects_to_no_source(calls: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_info, "tried_ways", None)
    assert ways(calls, monkeypatch, {**DIRECT, "transfer": "relay"}) == {}
    assert ways(calls, monkeypatch, {"transfer": "auto", "source": "sbs29"}) == {}
    assert ways(calls, monkeypatch, {**DIRECT, "transfer_direct_ports": ""}) == {}


@pytest.mark.parametrize(
    ("changes", "check_mode", "why"),
    [
        ({}, True, "not tried in check mode"),
        ({"source": None}, False, "not tried without option source"),
        ({"source_checks": [LOST]}, False, "not tried, because sbs29 cannot be reached"),
    ],
)
def test_preflight_info_says_why_a_direct_way_was_not_tried(
    calls: list[Result], monkeypatch: pytest.MonkeyPatch, changes: Result, check_mode: bool, why: str
) -> None:
    assert ways(calls, monkeypatch, {**DIRECT, **changes}, check_mode) == {"way direct": ("unknown", why)}
