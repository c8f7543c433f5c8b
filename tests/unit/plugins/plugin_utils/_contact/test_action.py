# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base of the action plugins. Real failures of real hosts are in tests/integration."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import packed
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import Problem
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact import action
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.action import ContactAction, failed

from tests.support.answers import described
from tests.support.releases import NAME, manifest_of, release_of
from tests.support.troubleshooting import documented

Result = t.Dict[str, t.Any]
NO_PYTHON = {
    "failed": True,
    "rc": 127,
    "module_stdout": "",
    "module_stderr": "sh: 1: /opt/python3: not found\n",
    "msg": "See stdout",
}


@dataclasses.dataclass
class Task:
    """The attributes of a task that the plugin reads."""

    delegate_to: str | None = None
    args: Result = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Connection:
    """A connection without become."""

    transport: str = "local"
    become: None = None


class Action(ContactAction):
    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        return self._execute_module(module_name="lorafleet.delivery.adapter_info", task_vars=task_vars)


Outcome = t.Union[Result, Exception, t.Callable[[], Result]]


def run(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, delegate_to: str | None = None, transport: str = "local") -> Result:
    """The result of a task whose module ends with ``outcome``."""

    def execute(_action: ActionBase, **_arguments: t.Any) -> Result:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome() if callable(outcome) else outcome

    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    monkeypatch.setattr(ActionBase, "_get_remote_user", lambda _action: "deploy")
    plugin = Action.__new__(Action)
    plugin._task, plugin._connection = Task(delegate_to), Connection(transport)
    return plugin.run(None, {"inventory_hostname": "jw2-1"})


PROBLEM = {"adapter": None, "subject": "keep", "problem": "is 0.", "remedy": ""}


@pytest.mark.parametrize("result", [described(), {"failed": True, "msg": "keep: is 0.", "problems": [PROBLEM]}])
def test_contact_action_returns_result_of_module(monkeypatch: pytest.MonkeyPatch, result: Result) -> None:
    assert run(monkeypatch, result) == result


@pytest.mark.parametrize(("delegate_to", "host"), [(None, "jw2-1"), ("sbs29", "sbs29")])
def test_contact_action_names_host_that_answers_in_another_form(
    monkeypatch: pytest.MonkeyPatch, delegate_to: str | None, host: str
) -> None:
    result = run(monkeypatch, described(manifests="{}"), delegate_to)
    [problem] = result["problems"]
    assert (result["failed"], problem["subject"]) == (True, host)
    assert "does not give: manifests is not a list" in result["msg"]


def test_contact_action_escapes_what_it_quotes_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = AnsibleConnectionFailure("Failed to connect via ssh: \x1b[2Jall verified")
    with pytest.raises(AnsibleConnectionFailure, match=r": \\x1b\[2Jall verified"):
        run(monkeypatch, lost)
    assert failed(Problem("jw2-1", "said \x1b[2J.", "Run again."))["msg"] == "jw2-1: said \\x1b[2J. Run again."


@pytest.mark.parametrize(("delegate_to", "host"), [(None, "jw2-1"), ("sbs29", "sbs29")])
def test_contact_action_explains_what_is_no_result(monkeypatch: pytest.MonkeyPatch, delegate_to: str | None, host: str) -> None:
    result = run(monkeypatch, NO_PYTHON, delegate_to)
    [problem] = result["problems"]
    assert result == {"failed": True, "msg": f"{host}: {problem['problem']} {problem['remedy']}", "problems": [problem]}
    assert problem["problem"] == 'as user deploy, there is no Python at /opt/python3: "sh: 1: /opt/python3: not found".'


def giant_answer() -> Result:
    read = bytearray(512 << 20)
    return described(cached=[f"of {len(read)} bytes"])


def test_contact_action_over_ssh_bounds_the_memory_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "MAX_MEMORY", 64 << 20)
    result = run(monkeypatch, giant_answer, transport="ssh")
    assert documented("giant answer").fullmatch(result["msg"]), result["msg"]
    assert "more than 67.1 MB" in result["msg"]
    # A module on this machine inherits the limits of its parent.
    assert "failed" not in run(monkeypatch, giant_answer, transport="local")


def test_contact_action_names_host_whose_answer_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, TypeError("no value of type 'x'"))
    message = result["msg"].replace("jw2-1", "jw3-1")
    assert documented("answer that is no JSON of a module").fullmatch(message), message


def test_contact_action_explains_error_of_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    full = AnsibleError("failed to transfer file: dd: error writing '/home/deploy/.ansible/tmp/x': No space left on device")
    [problem] = run(monkeypatch, full)["problems"]
    assert "no space or inode left for Ansible's temporary files" in problem["problem"]


@pytest.mark.parametrize("error", [AnsibleConnectionFailure("Failed to connect via ssh: refused"), AnsibleError("Unexpected")])
def test_contact_action_passes_other_errors_on(monkeypatch: pytest.MonkeyPatch, error: AnsibleError) -> None:
    with pytest.raises(type(error)) as caught:
        run(monkeypatch, error)
    assert caught.value is error


def test_contact_action_sends_what_is_signed_about_the_manifests(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / f"{release_of(1)}.json").write_text("statement", encoding="utf-8")
    (tmp_path / NAME / f"{release_of(1)}.alice.sig").write_text("signature", encoding="utf-8")
    sent: list[Result] = []

    def execute(_action: ActionBase, **arguments: t.Any) -> Result:
        sent.append(arguments["module_args"])
        return described()

    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    plugin = Action.__new__(Action)
    given = {"manifests": [manifest_of(1).to_text()], "signatures": str(tmp_path)}
    plugin._task, plugin._connection = Task(args=given), Connection()
    plugin.run(None, {"inventory_hostname": "jw2-1"})
    signed = [{"adapter": NAME, "statement": "statement", "signatures": ["signature"]}]
    manifests = [packed(one) for one in given["manifests"]]
    assert sent == [{**given, "manifests": manifests, "signed": signed, "snapshot": None}]
    # A directory that is missing fails the task, as what a host answers does.
    plugin._task.args["signatures"] = str(tmp_path / "none")
    monkeypatch.setattr(ActionBase, "_get_remote_user", lambda _action: "deploy")
    assert "is no directory on the controller" in plugin.run(None, {"inventory_hostname": "jw2-1"})["msg"]
