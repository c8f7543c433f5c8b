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
  - At the end of a run of the role C(lorafleet.delivery.agent), prints a table of all adapters, the notes of the load test and
    a sentence with the remedy for each failure. Ignores playbooks without that role.
  - Writes the same into a directory on the controller. C(report.json) is for programs and follows
    C(docs/report.schema.json). C(MANIFEST.md) is the manifest with its check boxes, which
    P(lorafleet.delivery.manifest#inventory) reads as an inventory. C(report.html) is a self-contained page.
    C(junit.xml) is for CI, C(lorafleet.prom) for the textfile collector of node_exporter.
  - Ticks a box only on evidence of this run, that is, bytes that it hashed and receipts that it read. The first
    task that works on adapters empties all boxes, so that a killed run leaves none ticked.
  - A run in check mode or of the playbook status proves nothing. It prints its table and does not touch the files.
  - At the end of a preflight, prints a table of the checks of all hosts and a sentence with the remedy for each
    problem. It does not touch the files either.
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

import os
import secrets
import shutil
import stat
import sys
import time
import typing as t

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, OK, UNKNOWN, WARNING
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import escaped
from ansible_collections.lorafleet.delivery.plugins.module_utils._time import now
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.html import as_html
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.json import as_json
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.junit import as_junit
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.markdown import as_markdown
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.model import report_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.preflight import (
    Preflight,
    as_preflight,
    preflight_lines,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.prometheus import as_prometheus
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.run import Run
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.table import (
    as_table,
    duration_lines,
    failure_lines,
    note_lines,
    wave_lines,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._report.words import BAD, GOOD
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    AUDIT,
    DESCRIBE,
    PREFLIGHT,
    SERVE,
    STATUS,
    STEPS,
    Step,
    module_of,
    step_of,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._task_result import FailedItems, TaskResult, task_result

_ROLE = "lorafleet.delivery.agent"
# The modules that say which nodes and adapters there are. The first works for the whole run.
_FLEET = "fleet_info"
_SELECTION = "adapter_selection_info"
# What the report uses of a result. The rest can be large: manifests, and the module's arguments.
_KEYS = ("adapters", "diff", "rolled_back", "wire_bytes", "problems", "msg", "unreachable", "held_back")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lorafleet.delivery.delivery_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._began = time.monotonic()
        # In that case, a program reads standard output.
        self._stderr = "json" in C.DEFAULT_STDOUT_CALLBACK
        self._run = Run(now(), check_mode=bool(context.CLIARGS.get("check")))
        # Whether a step has started, so that the files are those of this run.
        self._started = False
        # Whether no_log hid results that the report needs.
        self._hidden = False
        self._preflight = Preflight()
        self._since: dict[tuple[str, str], float] = {}
        self._failed_items = FailedItems()
        # The hosts that another task than the role's could not reach.
        self._lost: list[TaskResult] = []

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        step = step_of(task)
        if _of_role(task) and step in STEPS and not self._started:
            self._started = True
            self._run.kind = _kind(step, task)
            self._write(report_of(self._run))

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if _of_role(task):
            self._since[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        ended = task_result(result)
        if self._is_hidden(ended):
            return
        if module_of(ended.task) == _FLEET:
            self._run.declare(ended.data)
        if step_of(ended.task) == PREFLIGHT:
            self._preflight.add(ended.target, ended.data.get("checks", ()))
        if not _of_role(ended.task):
            return
        if module_of(ended.task) == _SELECTION:
            self._run.node(ended.host).select(ended.data["node"])
        step = step_of(ended.task)
        # The description of the adapters can be large, and the tasks that follow return what else
        # the report needs of it.
        if step == DESCRIBE:
            self._run.node(ended.host).excluded.update(ended.data.get("excluded") or {})
        elif step in STEPS:
            self._run.node(ended.host).add(step, _kept(ended))
        self._time(step, ended)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        self._failed_items.add(task_result(result))

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        for failed in self._failed_items.of(task_result(result)):
            if not ignore_errors:
                self._fail(failed)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        for failed in self._failed_items.of(task_result(result)):
            self._fail(failed)

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        run = self._run
        if self._hidden:
            remedy = "Unset ANSIBLE_NO_LOG, or set no_log: false where the role is used."
            problem = "has no results, because no_log hides them."
            self._display.warning(str(DeliveryError.of("delivery_report", problem, remedy)))
        if self._preflight.hosts:
            self._show_preflight()
        if not (self._started or run.failures or any(node.failures for node in run.nodes.values())):
            return
        if self._preflight.hosts:
            self._print([("", None)])
        if self._started:
            self._add_lost()
        run.ended, run.seconds = now(), round(time.monotonic() - self._began, 1)
        report = report_of(run)
        self._show(report)
        # A run that failed before it worked on adapters shows why and does not touch the files.
        if self._started:
            self._write(report)

    # Collecting

    def _is_hidden(self, ended: TaskResult) -> bool:
        hidden = "censored" in ended.data and (_of_role(ended.task) or module_of(ended.task) == _FLEET)
        self._hidden |= hidden
        return hidden

    def _fail(self, ended: TaskResult) -> None:
        name, host = ended.task.get_name(), ended.target
        self._is_hidden(ended)
        if module_of(ended.task) == _FLEET:
            self._run.fail(name, host, _kept(ended))
        elif step_of(ended.task) == PREFLIGHT:
            if ended.data.get("checks"):
                self._preflight.add(host, ended.data["checks"])
            else:
                self._preflight.fail(host, str(ended.data.get("msg", "")), bool(ended.data.get("unreachable")))
        elif self._preflight.failed(ended.host) and not self._started:
            # The last task of the role fails because of the checks that the table shows.
            return
        elif _of_role(ended.task):
            node, step, kept = self._run.node(ended.host), step_of(ended.task), _kept(ended)
            # A task that is delegated to the training server does not tell whether the node itself
            # is reachable.
            node.unreachable |= bool(kept.get("unreachable")) and host == node.name
            if step is not None:
                # Some of the adapters may have succeeded.
                node.add(step, kept)
            node.fail(step or name, host, kept)
            self._time(step, ended)
        elif ended.data.get("unreachable") and host == ended.host:
            self._lost.append(ended)

    def _add_lost(self) -> None:
        """Add the nodes that were lost before the role began there, for example at their facts."""
        for ended in self._lost:
            node = self._run.nodes.get(ended.host)
            if node is not None and node.selected and not node.steps and not node.failures:
                node.unreachable = True
                node.fail(ended.task.get_name(), ended.host, _kept(ended))

    def _time(self, step: Step | None, ended: TaskResult) -> None:
        began = self._since.pop((ended.host, ended.task._uuid), None)
        if step is not None and began is not None:
            seconds = self._run.node(ended.host).seconds
            seconds[step] = seconds.get(step, 0.0) + time.monotonic() - began

    # Reporting

    def _show(self, report: dict[str, t.Any]) -> None:
        lines = as_table(report, self._width()) if self._started or not self._preflight.hosts else []
        table = [(text, _colour(state)) for text, state in lines]
        waves = [(text, _colour(state)) for text, state in wave_lines(report)] if table else []
        notes = [(text, C.COLOR_WARN) for text in note_lines(report)]
        slowest: list[tuple[str, str | None]] = [(text, None) for text in duration_lines(report)] if table else []
        self._print(table, slowest, waves, notes, [(text, C.COLOR_ERROR) for text in failure_lines(report)])

    def _show_preflight(self) -> None:
        hosts = self._preflight.in_order(list(self._run.nodes))
        blocks = as_preflight(hosts, self._width()), preflight_lines(hosts)
        self._print(*([(text, _PREFLIGHT_COLOURS.get(state)) for text, state in block] for block in blocks))

    def _width(self) -> int | None:
        """Return the width of the terminal, or None without one."""
        stream = sys.stderr if self._stderr else sys.stdout
        return shutil.get_terminal_size().columns if stream.isatty() else None

    def _print(self, *blocks: list[tuple[str, str | None]]) -> None:
        """Print blocks of lines, with an empty line between two of them."""
        for number, block in enumerate(filter(None, blocks)):
            for text, colour in [*([("", None)] if number else []), *block]:
                self._display.display(text, color=colour, stderr=self._stderr)

    def _write(self, report: dict[str, t.Any]) -> None:
        """Write all files, or keep those of an earlier run when this one proves nothing."""
        if report["check_mode"] or report["kind"] in ("status", "serve"):
            return
        directory = os.path.abspath(self.get_option("directory"))
        try:
            os.makedirs(directory, 0o775, exist_ok=True)
            _check_owner(directory)
            for name, form in _FILES.items():
                try:
                    text = form(report)
                except Exception as exc:
                    # Nothing that a host has answered may take the other files with it.
                    problem = f"cannot be made of this report: {type(exc).__name__} {escaped(str(exc))}."
                    remedy = "Please report this with report.json. The other files are complete."
                    self._display.warning(str(DeliveryError.of(name, problem, remedy)))
                    continue
                _replace(os.path.join(directory, name), text)
        except OSError as exc:
            remedy = "Set LORAFLEET_REPORT_DIR to another directory, or free disk space."
            error = DeliveryError.of("delivery_report", f"{exc.filename or directory} cannot be written: {exc.strerror}.", remedy)
            self._display.warning(str(error))
        except DeliveryError as exc:
            self._display.warning(str(exc))


_FILES: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "report.json": as_json,
    "MANIFEST.md": as_markdown,
    "report.html": as_html,
    "junit.xml": as_junit,
    "lorafleet.prom": as_prometheus,
}


_PREFLIGHT_COLOURS = {OK: C.COLOR_OK, WARNING: C.COLOR_WARN, FAILED: C.COLOR_ERROR, UNKNOWN: C.COLOR_SKIP}


def _of_role(task: t.Any) -> bool:
    return task._role is not None and task._role.get_name() == _ROLE


def _kind(step: Step, task: t.Any) -> str:
    if step in (AUDIT, STATUS, SERVE):
        return step.key
    return "rollback" if task.args.get("state") == "rolled_back" else "deploy"


def _kept(ended: TaskResult) -> dict[str, t.Any]:
    return {key: ended.data[key] for key in _KEYS if key in ended.data}


def _colour(state: str) -> str | None:
    return C.COLOR_OK if state in GOOD else C.COLOR_ERROR if state in BAD else C.COLOR_SKIP if state else None


def _check_owner(directory: str) -> None:
    """Raise DeliveryError if another user can exchange the files or lead them elsewhere."""
    trusted = (0, os.geteuid())
    for found in (os.lstat(directory), os.stat(directory)):
        if found.st_uid not in trusted:
            raise DeliveryError.of(
                "delivery_report",
                f"{directory} belongs to the user with id {found.st_uid}, so nothing is written there.",
                "Set LORAFLEET_REPORT_DIR to a directory of your own.",
            )
    # In a sticky directory, users can exchange only what is their own.
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise DeliveryError.of(
            "delivery_report",
            f"{directory} can be written by every user, so nothing is written there.",
            f"Take the right to write away (chmod o-w {directory}), or set LORAFLEET_REPORT_DIR to another directory.",
        )


def _replace(path: str, text: str) -> None:
    """Replace a file atomically, so that readers see either the old one or the new one."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    # The umask determines who may read it.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # Hosts may return text that has no UTF-8 form.
        with open(descriptor, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
