# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the callback makes of tasks' results. tests/integration/test_report.py has real runs."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import types
import typing as t

import pytest
import yaml
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.callback import delivery_report
from ansible_collections.lorafleet.delivery.plugins.callback.delivery_report import DOCUMENTATION, CallbackModule

NAME = CallbackModule.CALLBACK_NAME
MODULES = "lorafleet.delivery."
ROLE = types.SimpleNamespace(get_name=lambda: "lorafleet.delivery.agent")
# The id of a user other than the one that runs the tests.
OTHER = 65533
LOST = {"unreachable": True, "msg": "Connection refused"}
_uuids = map(str, itertools.count())


class Events:
    """Calls the callback as ansible-core does."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.callback = CallbackModule()
        self.callback._load_name = NAME
        self.callback.set_options(direct={"directory": str(directory)})
        self.directory = directory

    def task(self, host: str, module: str, result: dict[str, t.Any], to: str = "", role: t.Any = ROLE, **args: t.Any) -> None:
        """Let a task start and end."""
        task = types.SimpleNamespace(
            action=MODULES + module, args=args, delegate_to=to or None, _role=role, _uuid=next(_uuids), get_name=lambda: module
        )
        of_host = types.SimpleNamespace(get_name=lambda: host)
        self.callback.v2_playbook_on_task_start(task, False)
        self.callback.v2_runner_on_start(of_host, task)
        ended = types.SimpleNamespace(host=of_host, task=task, result=result)
        if result.get("unreachable"):
            self.callback.v2_runner_on_unreachable(ended)
        elif result.get("failed"):
            self.callback.v2_runner_on_failed(ended)
        else:
            self.callback.v2_runner_on_ok(ended)

    def select(self, host: str, *adapters: tuple[str, str]) -> None:
        """Let the role select adapters of agents."""
        self.task(host, "adapter_selection_info", {"node": declared(host, *adapters), "adapters": []})

    def report(self) -> dict[str, t.Any]:
        """End the run; return its report."""
        self.callback.v2_playbook_on_stats(None)
        found: dict[str, t.Any] = json.loads((self.directory / "report.json").read_text(encoding="utf-8"))
        return found


def declared(name: str, *adapters: tuple[str, str]) -> dict[str, t.Any]:
    rows = [{"agent": agent, "name": adapter, "variant": "3b", "selected": True} for agent, adapter in adapters]
    directories = {"models_dir": "/home/models", "source_models_dir": "/home/models"}
    texts = {"address": name, "groups": ["gpu"], "agents": [], "purpose": {}, "notes": {}, "training_host": "sbs29"}
    return {"name": name, "rows": rows, **texts, **directories}


def activated(*names: str) -> dict[str, t.Any]:
    return {"adapters": [{"name": name, "action": "activated", "release": "0" * 12} for name in names]}


def states(report: dict[str, t.Any]) -> dict[tuple[str, str], str]:
    return {(node["node"], adapter["name"]): adapter["state"] for node in report["nodes"] for adapter in node["adapters"]}


@pytest.fixture
def events(tmp_path: pathlib.Path) -> Events:
    C.config.initialize_plugin_configuration_definitions("callback", NAME, yaml.safe_load(DOCUMENTATION)["options"])
    return Events(tmp_path / "report")


def test_role_that_runs_twice_on_a_node_adds_to_the_report(events: Events) -> None:
    for agent, name in (("cleaner", "a"), ("describer", "b")):
        events.select("jw2", (agent, name))
        events.task("jw2", "adapter_release", activated(name))
    assert states(events.report()) == {("jw2", "a"): "activated", ("jw2", "b"): "activated"}


def test_files_that_are_not_delivered_are_reported_with_their_reasons(events: Events) -> None:
    excluded = [{"path": "README.md", "reason": "documentation"}]
    events.select("jw2", ("cleaner", "a"), ("cleaner", "b"))
    events.task("jw2", "adapter_info", {"manifests": [], "excluded": {"a": excluded, "b": []}}, to="sbs29")
    events.task("jw2", "adapter_release", activated("a", "b"))
    [node] = events.report()["nodes"]
    assert {adapter["name"]: adapter["excluded"] for adapter in node["adapters"]} == {"a": excluded, "b": []}
    page = (events.directory / "report.html").read_text(encoding="utf-8")
    assert "<code>README.md</code>: documentation" in page


def test_nodes_of_fleet_info_are_listed_in_its_order_also_without_results(events: Events) -> None:
    fleet = {"nodes": [declared("jw1", ("cleaner", "a")), declared("jw2", ("cleaner", "a"))], "training": {}, "notes": []}
    server = {"name": "sbs29", "address": "192.0.2.1"}
    events.task("localhost", "fleet_info", {**fleet, "training_server": server}, role=None)
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    report = events.report()
    assert states(report) == {("jw1", "a"): "not_reached", ("jw2", "a"): "activated"}
    assert report["training_server"] == server


def test_unreachable_delegate_is_to_blame_and_not_the_node(events: Events) -> None:
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_info", LOST, to="sbs29")
    events.select("jw3", ("cleaner", "a"))
    events.task("jw3", "adapter_sync", LOST)
    report = events.report()
    assert states(report) == {("jw2", "a"): "failed", ("jw3", "a"): "unreachable"}
    assert [(failure["node"], failure["host"]) for failure in report["failures"]] == [("jw2", "sbs29"), ("jw3", "jw3")]


def test_node_lost_before_the_role_is_unreachable(events: Events) -> None:
    nodes = [declared(name, ("cleaner", "a")) for name in ("jw1", "jw2", "jw3")]
    fleet = {"nodes": nodes, "training": {}, "notes": [], "training_server": {}}
    nodes.append({**declared("jw4"), "rows": [{**nodes[0]["rows"][0], "selected": False}]})
    events.task("localhost", "fleet_info", fleet, role=None)
    for name in ("jw1", "jw4"):
        events.task(name, "gather", LOST, role=None)
    events.task("jw3", "gather", LOST, to="sbs29", role=None)
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    events.task("jw2", "own_task_after_the_role", LOST, role=None)
    report = events.report()
    assert [state for (_node, _name), state in states(report).items()] == [
        "unreachable", "activated", "not_reached", "not_selected",
    ]  # fmt: skip
    assert [(failure["node"], failure["step"]) for failure in report["failures"]] == [("jw1", "gather")]


def test_node_lost_in_a_run_without_the_role_is_no_report(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = {"nodes": [declared("jw1", ("cleaner", "a"))], "training": {}, "notes": [], "training_server": {}}
    events.task("localhost", "fleet_info", fleet, role=None)
    events.task("jw1", "gather", LOST, role=None)
    events.callback.v2_playbook_on_stats(None)
    assert capsys.readouterr().out == ""


def test_failed_fleet_info_is_shown_and_writes_nothing(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"adapter": None, "subject": "group agents", "problem": "does not exist.", "remedy": "Add it."}
    for host in ("localhost", "sbs29"):
        events.task(host, "fleet_info", {"failed": True, "msg": "...", "problems": [problem]}, role=None)
    events.callback.v2_playbook_on_stats(None)
    assert capsys.readouterr().out == "group agents: does not exist. Add it.\n"
    assert not events.directory.exists()


def test_checks_of_hosts_are_a_table_and_write_nothing(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    events.select("jw2", ("cleaner", "a"))
    check = {"check": "rsync", "state": "failed", "found": "is not installed.", "remedy": "Install it."}
    events.task("jw2", "preflight_info", {"checks": [{**check, "state": "ok"}]}, to="sbs29")
    events.task("jw2", "preflight_info", {"failed": True, "msg": "...", "checks": [check]})
    # Its own task repeats them.
    events.task("jw2", "assert", {"failed": True, "msg": "rsync: is not installed. Install it."})
    events.select("jw3", ("cleaner", "a"))
    events.task("jw3", "preflight_info", LOST)
    # A task before the checks, on a node that has none.
    events.select("jw4", ("cleaner", "a"))
    events.task("jw4", "assert", {"failed": True, "msg": "A variable is missing."})
    events.callback.v2_playbook_on_stats(None)
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines()[:4]] == [
        ["host", "check", "state"], ["sbs29", "rsync", "ok"], ["jw2", "rsync", "failed"], ["jw3", "connection", "failed"],
    ]  # fmt: skip
    assert out.count("Install it.") == 1
    assert out.splitlines()[-1] == "jw4: A variable is missing."
    assert "cleaner" not in out
    assert not events.directory.exists()


def test_run_of_other_tasks_shows_nothing(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    events.task("localhost", "fleet_info", {"nodes": [], "training": {}, "notes": [], "training_server": {}}, role=None)
    events.task("jw2", "adapter_release", activated("a"), role=None)
    events.callback.v2_playbook_on_stats(None)
    assert capsys.readouterr().out == ""
    assert not events.directory.exists()


@pytest.mark.parametrize("link", [False, True])
def test_directory_of_another_user_is_not_written_to(
    events: Events, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    if link:
        (events.directory.parent / "ours").mkdir()
        events.directory.symlink_to("ours")
    else:
        events.directory.mkdir()
    if os.geteuid() == 0:
        os.chown(events.directory, OTHER, OTHER, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    events.callback.v2_playbook_on_stats(None)
    assert list(events.directory.iterdir()) == []
    warning = " ".join(capsys.readouterr().err.split())
    assert "belongs to the user with id" in warning
    assert "Set LORAFLEET_REPORT_DIR to a directory of your own." in warning


def test_directory_that_every_user_may_write_to_is_not_written_to(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    events.directory.mkdir()
    events.directory.chmod(0o777)
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    events.callback.v2_playbook_on_stats(None)
    assert list(events.directory.iterdir()) == []
    assert "can be written by every user, so nothing is written there." in " ".join(capsys.readouterr().err.split())
    # There, nobody can exchange the files of others.
    events.directory.chmod(0o1777)
    assert events.report()["ended"]


def test_directory_is_not_made_for_every_user_whatever_the_umask(events: Events) -> None:
    before = os.umask(0)
    try:
        events.select("jw2", ("cleaner", "a"))
        events.task("jw2", "adapter_release", activated("a"))
        assert events.report()["ended"]
    finally:
        os.umask(before)


def test_file_that_cannot_be_made_leaves_the_others(
    events: Events, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(report: dict[str, t.Any]) -> str:
        raise KeyError(report["kind"] + "\x1b[2J")

    monkeypatch.setitem(delivery_report._FILES, "MANIFEST.md", fail)
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    assert events.report()["ended"]
    assert {path.name for path in events.directory.iterdir()} == {*delivery_report._FILES} - {"MANIFEST.md"}
    warning = " ".join(capsys.readouterr().err.split())
    assert "MANIFEST.md: cannot be made of this report: KeyError" in warning
    assert "\x1b" not in warning


def test_files_have_modes_of_the_umask(events: Events) -> None:
    events.select("jw2", ("cleaner", "a"))
    events.task("jw2", "adapter_release", activated("a"))
    before = os.umask(0o027)
    try:
        events.report()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in events.directory.iterdir()} == {0o640}
