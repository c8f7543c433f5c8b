# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what a run of role agent did and proved, on the terminal and in files; plugin_utils/_report.py says what that is."""

from __future__ import annotations

DOCUMENTATION = r"""
name: delivery_report
type: aggregate
short_description: Says what a delivery did and proved
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - Prints a table of all adapters at the end of a run of the role C(lorafleet.delivery.agent), and a sentence for each thing that
    failed, with the remedy. A playbook without that role is left alone.
  - Writes the same into a directory on the controller. C(report.json) is for programs, its form is C(docs/report.schema.json).
    C(MANIFEST.md) is the manifest with its check boxes, which P(lorafleet.delivery.manifest#inventory) reads as an inventory.
    C(report.html) is a page that needs nothing else. C(junit.xml) is for CI, C(lorafleet.prom) for the textfile collector of
    node_exporter.
  - A box is ticked only by evidence of this run - bytes that were hashed in it and a receipt that was read in it. The first
    task of a run empties all boxes, so that a run that is killed leaves none ticked.
  - A run that proves nothing, in check mode or of the playbook status, prints its table and leaves the files as they are.
requirements:
  - enabled in configuration, as C(callbacks_enabled = lorafleet.delivery.delivery_report)
notes:
  - Works beside any stdout callback. Beside one that writes JSON, the table goes to standard error.
options:
  directory:
    description: The directory on the controller to write to. It is created when it does not exist.
    type: path
    default: delivery-report
    env:
      - name: LORAFLEET_REPORT_DIR
    ini:
      - section: callback_delivery_report
        key: directory
"""

import contextlib
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
import typing as t

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.tags import select
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.junit import as_junit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import (
    STEPS,
    Node,
    Run,
    groups_of,
    report_of,
    rows_of,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.prometheus import as_prometheus
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import as_table, failure_lines
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.words import BAD, GOOD

_ROLE = "lorafleet.delivery.agent"
_KINDS = {"adapter_audit": "audit", "adapter_status": "status"}
# What the report names of a node's variables.
_NAMED = (
    "agent_name", "agent_purpose", "agent_notes", "agent_adapters", "agent_models_dir", "agent_source_models_dir",
    "agent_training_host", "ansible_host", "lorafleet_notes", "lorafleet_training",
)  # fmt: skip
# What it needs of a result: manifests, and what a module was called with, can be large.
_KEPT = ("adapters", "diff", "wire_bytes", "problems", "msg", "unreachable")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lorafleet.delivery.delivery_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._began = time.monotonic()
        self._started = _now()
        self._play: t.Any = None
        # The play of which it is known what it is about, and the last task of the role.
        self._looked_at: t.Any = None
        self._task: t.Any = None
        self._run: Run | None = None
        self._nodes: dict[str, Node] = {}
        self._since: dict[tuple[str, str], float] = {}

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        self._play = play

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        if not _of_role(task):
            return
        self._task = task
        if _step(task) is None or self._play is self._looked_at:
            return
        run = self._look_at_fleet(_kind(task))
        if self._run is None:
            self._run = run
            self._write(report_of(run))

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if _of_role(task):
            self._since[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        step = _step(result._task)
        # What the training server offers can be large, and is said again by the tasks that follow.
        if step is not None and step != "describe" and _of_role(result._task):
            self._node(result).take(step, _kept(result))
        self._time(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        if not _of_role(result._task) or ignore_errors:
            return
        step, node, kept = _step(result._task), self._node(result), _kept(result)
        if step is not None:
            # It may have done some of the adapters before.
            node.take(step, kept)
        node.failures.append((step or result._task.get_name(), kept))
        self._time(result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        if _of_role(result._task):
            node = self._node(result)
            node.unreachable = True
            node.failures.append((_step(result._task) or result._task.get_name(), {**_kept(result), "unreachable": True}))
            self._time(result)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        if self._task is None or not (self._run or self._nodes):
            return
        # A run that was refused before it worked on adapters says so, and leaves the files alone.
        run = self._run or self._look_at_fleet("deploy")
        run.ended, run.seconds = _now(), round(time.monotonic() - self._began, 1)
        report = report_of(run)
        self._show(report)
        if self._run:
            self._write(report)

    # What was seen

    def _node(self, result: t.Any) -> Node:
        """The node of a result; before any step began its variables are not known yet."""
        name = result._host.get_name()
        return self._nodes.setdefault(name, Node(name, {}, "agents"))

    def _time(self, result: t.Any) -> None:
        step, began = _step(result._task), self._since.pop((result._host.get_name(), result._task._uuid), None)
        if step is not None and began is not None:
            self._node(result).seconds[step] = round(time.monotonic() - began, 3)

    def _look_at_fleet(self, kind: str) -> Run:
        """The run with all nodes of the inventory, also those that it is not about, and what of them the play is about."""
        self._looked_at = self._play
        manager = self._play.get_variable_manager()
        of_play = manager.get_vars(play=self._play)
        groups = of_play["groups"]
        # All of them: a limit leaves out what the report is to say was left out.
        hosts = manager._inventory.hosts
        variables = {name: self._variables(hosts[name]) for name in groups.get("agents", ()) if name in hosts}
        group_of = groups_of(groups, {name: str(found.get("agent_name", "")) for name, found in variables.items()})
        variants: dict[str, list[t.Any]] = {}
        for found in variables.values():
            variants.setdefault(found.get("agent_name", ""), []).extend(row.get("variant") for row in rows_of(found))
        for name, found in variables.items():
            node = self._nodes.setdefault(name, Node(name, {}, "agents"))
            node.variables, node.group = found, group_of[name]
            if name in of_play["ansible_play_hosts_all"]:
                node.selected |= _selected(found, variants)
        # All nodes have these from the same place.
        first = next(iter(variables.values()), {})
        server = str(first.get("agent_training_host", ""))
        of_server = self._variables(hosts[server], ("ansible_host",)) if server in hosts else {}
        return Run(
            kind=kind,
            check_mode=bool(context.CLIARGS.get("check")),
            server=server,
            server_address=str(of_server.get("ansible_host") or server),
            nodes=[self._nodes[name] for name in variables],
            started=self._started,
            training=first.get("lorafleet_training") or {},
            notes=first.get("lorafleet_notes") or [],
        )

    def _variables(self, host: t.Any, names: t.Sequence[str] = _NAMED) -> dict[str, t.Any]:
        """Those variables of a host that are set, as a task of the role would see them."""
        manager = self._play.get_variable_manager()
        variables = manager.get_vars(play=self._play, host=host, task=self._task)
        templar = Templar(loader=self._play.get_loader(), variables=variables)
        found = {}
        for name in variables.keys() & set(names):
            # One that cannot be known is what the role fails for, where it needs it.
            with contextlib.suppress(AnsibleError):
                found[name] = templar.template(variables[name])
        return t.cast("dict[str, t.Any]", json.loads(json.dumps(found, default=str)))

    # What is told

    def _show(self, report: dict[str, t.Any]) -> None:
        stderr = "json" in C.DEFAULT_STDOUT_CALLBACK
        stream = sys.stderr if stderr else sys.stdout
        width = shutil.get_terminal_size().columns if stream.isatty() else None
        lines = [(text, _colour(state)) for text, state in as_table(report, width)]
        failures = failure_lines(report)
        if failures:
            lines += [("", None), *((text, C.COLOR_ERROR) for text in failures)]
        for text, colour in lines:
            self._display.display(text, color=colour, stderr=stderr)

    def _write(self, report: dict[str, t.Any]) -> None:
        """Write all files; a run that proves nothing leaves those of the last one that did."""
        if report["check_mode"] or report["kind"] == "status":
            return
        directory = os.path.abspath(self.get_option("directory"))
        try:
            os.makedirs(directory, exist_ok=True)
            for name, form in _FILES.items():
                _replace(os.path.join(directory, name), form(report))
        except OSError as exc:
            remedy = "Name another directory with LORAFLEET_REPORT_DIR, or make room."
            error = DeliveryError.of("delivery_report", f"{exc.filename or directory} cannot be written: {exc.strerror}.", remedy)
            self._display.warning(str(error))


_FILES: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "report.json": lambda report: json.dumps(report, indent=1, ensure_ascii=False) + "\n",
    "MANIFEST.md": as_markdown,
    "report.html": as_html,
    "junit.xml": as_junit,
    "lorafleet.prom": as_prometheus,
}


def _of_role(task: t.Any) -> bool:
    return task._role is not None and task._role.get_name() == _ROLE


def _step(task: t.Any) -> str | None:
    collection, _dot, name = task.action.rpartition(".")
    return STEPS.get(name) if collection == "lorafleet.delivery" else None


def _kind(task: t.Any) -> str:
    if task.args.get("state") == "rolled_back":
        return "rollback"
    return _KINDS.get(task.action.rpartition(".")[2], "deploy")


def _kept(result: t.Any) -> dict[str, t.Any]:
    found = result._result
    delegated = (found.get("_ansible_delegated_vars") or {}).get("ansible_delegated_host")
    return {"host": delegated or result._host.get_name(), **{key: found[key] for key in _KEPT if key in found}}


def _selected(variables: dict[str, t.Any], variants: dict[str, list[t.Any]]) -> frozenset[str]:
    """The names of the adapters of a node that the run is about; none where its tags are refused by the role."""
    tags, skipped = (list(context.CLIARGS.get(key) or ()) for key in ("tags", "skip_tags"))
    try:
        rows = select(rows_of(variables), variables.get("agent_name", ""), variants, tags, skipped)
    except DeliveryError:
        return frozenset()
    return frozenset(row["name"] for row in rows)


def _colour(state: str) -> str | None:
    return C.COLOR_OK if state in GOOD else C.COLOR_ERROR if state in BAD else C.COLOR_SKIP if state else None


def _now() -> str:
    return datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")


def _replace(path: str, text: str) -> None:
    """Replace a file in one step, so that whoever reads it sees the old or the new one whole."""
    # What hosts say need not be text.
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
