# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback plugin delivery_report: what a run did and proved, on the terminal and in files."""

from __future__ import annotations

DOCUMENTATION = r"""
name: delivery_report
type: aggregate
short_description: Reports what a delivery did and proved
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - At the end of a run of the role C(lorafleet.delivery.agent), prints a table of all adapters and a sentence
    with the remedy for each failure. Ignores playbooks without that role.
  - Writes the same into a directory on the controller. C(report.json) is for programs and follows
    C(docs/report.schema.json). C(MANIFEST.md) is the manifest with its check boxes, which
    P(lorafleet.delivery.manifest#inventory) reads as an inventory. C(report.html) is a self-contained page.
    C(junit.xml) is for CI, C(lorafleet.prom) for the textfile collector of node_exporter.
  - Ticks a box only on evidence of this run, that is, bytes that it hashed and receipts that it read. The first
    task that works on adapters empties all boxes, so that a killed run leaves none ticked.
  - A run in check mode or of the playbook status proves nothing. It prints its table and does not touch the files.
requirements:
  - enabled in configuration, as C(callbacks_enabled = lorafleet.delivery.delivery_report)
notes:
  - Works with any stdout callback. With one that writes JSON, the table goes to standard error.
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
from ansible_collections.lorafleet.delivery.plugins.module_utils._time import now
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.rows import agents_of, rows_with_agents
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._fleet.selection import select
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.junit import as_junit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import Node, Run, groups_of, report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.prometheus import as_prometheus
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import as_table, failure_lines
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.words import BAD, GOOD
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import AUDIT, DESCRIBE, STATUS, Step, step_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._task_result import TaskResult, task_result

_ROLE = "lorafleet.delivery.agent"
# The variables of a node that the report uses.
_VARIABLES = (
    "agent_name", "agent_purpose", "agent_notes", "agent_adapters", "agent_models_dir", "agent_source_models_dir",
    "agent_training_host", "ansible_host", "lorafleet_notes", "lorafleet_training",
)  # fmt: skip
# What the report uses of a result. The rest can be large: manifests, and the module's arguments.
_KEYS = ("adapters", "diff", "wire_bytes", "problems", "msg", "unreachable")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lorafleet.delivery.delivery_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._began = time.monotonic()
        self._started = now()
        self._play: t.Any = None
        # The play whose hosts and adapters are known, and the last task of the role.
        self._covered: t.Any = None
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
        step = step_of(task)
        if step is None or self._play is self._covered:
            return
        run = self._cover(_kind(step, task))
        if self._run is None:
            self._run = run
            self._write(report_of(run))

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if _of_role(task):
            self._since[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        ended = task_result(result)
        step = step_of(ended.task)
        # The description of the adapters can be large, and the tasks that follow return what the
        # report needs of it.
        if step is not None and step != DESCRIBE and _of_role(ended.task):
            self._node(ended.host).add(step, _kept(ended))
        self._time(step, ended)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        ended = task_result(result)
        if not _of_role(ended.task) or ignore_errors:
            return
        step, node, kept = step_of(ended.task), self._node(ended.host), _kept(ended)
        if step is not None:
            # Some of the adapters may have succeeded.
            node.add(step, kept)
        node.failures.append((step or ended.task.get_name(), kept))
        self._time(step, ended)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        ended = task_result(result)
        if not _of_role(ended.task):
            return
        step, node = step_of(ended.task), self._node(ended.host)
        # A task that is delegated to the training server does not tell whether the node itself is
        # reachable.
        node.unreachable = ended.target == ended.host
        node.failures.append((step or ended.task.get_name(), {**_kept(ended), "unreachable": True}))
        self._time(step, ended)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        if self._task is None or not (self._run or self._nodes):
            return
        # A run that failed before it worked on adapters shows why and does not touch the files.
        run = self._run or self._cover("deploy")
        run.ended, run.seconds = now(), round(time.monotonic() - self._began, 1)
        report = report_of(run)
        self._show(report)
        if self._run:
            self._write(report)

    # Collecting

    def _node(self, name: str) -> Node:
        """Return a node, whose variables are unknown until the first step starts."""
        return self._nodes.setdefault(name, Node(name, {}, "agents"))

    def _time(self, step: Step | None, ended: TaskResult) -> None:
        began = self._since.pop((ended.host, ended.task._uuid), None)
        if step is not None and began is not None:
            self._node(ended.host).seconds[step] = round(time.monotonic() - began, 3)

    def _cover(self, kind: str) -> Run:
        """Return the run with all nodes, and mark the adapters that the play covers."""
        self._covered = self._play
        manager = self._play.get_variable_manager()
        of_play = manager.get_vars(play=self._play)
        groups = of_play["groups"]
        # The inventory itself, because the report also lists the nodes that a limit excludes.
        hosts = manager._inventory.hosts
        variables = {name: self._variables(hosts[name]) for name in groups.get("agents", ()) if name in hosts}
        group_of = groups_of(groups, {name: str(found.get("agent_name", "")) for name, found in variables.items()})
        rows = [rows_with_agents(found.get("agent_adapters"), found.get("agent_name")) for found in variables.values()]
        variants = agents_of(row for of_node in rows for row in of_node)
        for name, found in variables.items():
            node = self._node(name)
            node.variables, node.group = found, group_of[name]
            if name in of_play["ansible_play_hosts_all"]:
                node.selected |= _selected(found, variants)
        # All nodes get these from the same place.
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

    def _variables(self, host: t.Any, names: t.Sequence[str] = _VARIABLES) -> dict[str, t.Any]:
        """Return those variables of a host that are set, as a task of the role would see them."""
        manager = self._play.get_variable_manager()
        variables = manager.get_vars(play=self._play, host=host, task=self._task)
        templar = Templar(loader=self._play.get_loader(), variables=variables)
        found = {}
        for name in variables.keys() & set(names):
            # The role itself fails where it needs a variable that cannot be templated.
            with contextlib.suppress(AnsibleError):
                found[name] = templar.template(variables[name])
        return t.cast("dict[str, t.Any]", json.loads(json.dumps(found, default=str)))

    # Reporting

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
        """Write all files, or keep those of an earlier run when this one proves nothing."""
        if report["check_mode"] or report["kind"] == "status":
            return
        directory = os.path.abspath(self.get_option("directory"))
        try:
            os.makedirs(directory, exist_ok=True)
            for name, form in _FILES.items():
                _replace(os.path.join(directory, name), form(report))
        except OSError as exc:
            remedy = "Set LORAFLEET_REPORT_DIR to another directory, or free disk space."
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


def _kind(step: Step, task: t.Any) -> str:
    if step in (AUDIT, STATUS):
        return step.key
    return "rollback" if task.args.get("state") == "rolled_back" else "deploy"


def _kept(ended: TaskResult) -> dict[str, t.Any]:
    return {"host": ended.target, **{key: ended.data[key] for key in _KEYS if key in ended.data}}


def _selected(variables: dict[str, t.Any], variants: dict[str, list[str]]) -> frozenset[str]:
    """Return the names of a node's adapters that the run covers.

    The role rejects wrong tags, which cover none.
    """
    tags, skipped = (list(context.CLIARGS.get(key) or ()) for key in ("tags", "skip_tags"))
    try:
        rows = rows_with_agents(variables.get("agent_adapters"), variables.get("agent_name"))
        rows = select(rows, variants, tags, skipped)
    except DeliveryError:
        return frozenset()
    return frozenset(row["name"] for row in rows)


def _colour(state: str) -> str | None:
    return C.COLOR_OK if state in GOOD else C.COLOR_ERROR if state in BAD else C.COLOR_SKIP if state else None


def _replace(path: str, text: str) -> None:
    """Replace a file atomically, so that readers see either the old one or the new one."""
    # Hosts may return text that has no UTF-8 form.
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
