# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback plugin delivery_progress: what each node is doing while a delivery runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: delivery_progress
type: aggregate
short_description: Shows the progress of each node while a delivery runs
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - On a terminal, shows a line for each busy node below Ansible's own output. During a transfer, the line has the
    adapter, the percentage, the rate and the remaining time. Otherwise it has the current step (describing, waiting
    for a transfer slot, hashing, loading, activating) and its duration so far. The lines disappear at the end.
  - The lines take up to half of the terminal. When the run has more nodes, the first line counts those that are done,
    have failed, are still to come and are busy, and the others show the nodes that have been in their step for the
    longest time. Nodes that wait for a transfer slot come last.
  - Without a terminal, prints a plain line at the start of each step and each transfer. For more than 20 nodes, it
    prints the counts and the slowest nodes instead, every 30 seconds at most. The same happens on a terminal that
    cannot move its cursor (E(TERM) is V(dumb)), under ansible-runner and AWX, and while the task debugger is enabled.
  - Where an agent is delivered in waves (C(agent_serial)), names the wave of the node too.
  - Works with any stdout callback. With one that writes JSON, plain lines go to standard error.
  - Shows the modules of this collection only.
requirements:
  - To be enabled by C(callbacks_enabled).
notes:
  - The percentage counts the bytes handed to the node in this run. A resumed transfer does not count what an earlier
    run left there. It reaches 100 % once the whole adapter has arrived.
  - With O(lorafleet.delivery.adapter_sync#module:transfer_compress) the number of bytes is unknown in advance, so
    there is no percentage and no remaining time.
options:
  style:
    description:
      - V(auto) is V(live) on a terminal that supports it, otherwise V(plain).
      - V(live) keeps a line for each busy node at the end of the terminal. Without a terminal it is V(plain).
      - V(plain) prints a line at the start of each step and each transfer.
      - V(none) shows nothing.
    type: str
    choices:
      - auto
      - live
      - plain
      - none
    default: auto
    ini:
      - section: callback_delivery_progress
        key: style
    env:
      - name: LORAFLEET_PROGRESS
"""

EXAMPLES = r"""
# ansible.cfg
# [defaults]
# callbacks_enabled = lorafleet.delivery.delivery_progress
#
# [callback_delivery_progress]
# style = plain
"""

import atexit
import contextlib
import os
import sys
import threading
import typing as t

from ansible import constants as C
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.events import Event, Listener
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.live_area import LiveArea
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._progress.tracker import Progress
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._steps import (
    COMPARE,
    LAST_STEPS,
    SHOWN_BY_ACTION,
    module_of,
    step_of,
)
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._task_result import task_result

# Where playbooks set defaults for a group of modules of this collection.
_GROUPS = "group/lorafleet.delivery."
# Seconds between two redraws of the area.
_INTERVAL = 0.25


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lorafleet.delivery.delivery_progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._play: t.Any = None
        self._progress = Progress()
        self._listener: Listener | None = None
        self._area: LiveArea | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        # Always taken before the lock of Ansible's display, never while that is held.
        self._lock = threading.Lock()
        # Ansible calls no method of a callback when a run is interrupted.
        atexit.register(self._close)

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        self._play = play
        style = _style(self.get_option("style"))
        if self._listener or style == "none":
            return
        # Before Ansible forks the workers, which inherit it.
        self._listener = Listener()
        if style == "live":
            self._area = LiveArea((sys.stdout, sys.stderr), self._display._lock)
        self._ended.clear()
        self._thread = threading.Thread(target=self._follow, args=(self._listener, self._area), daemon=True)
        self._thread.start()

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._listener and self._thread:
            self._ended.set()
            self._listener.wake()
            # Let it finish printing before the process ends, but do not wait for a stopped
            # terminal.
            self._thread.join(1)
            if self._area:
                self._area.close()
            self._listener.close()
            self._listener = self._area = self._thread = None

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        step = step_of(task)
        if step and step not in SHOWN_BY_ACTION and self._listener:
            phase = step.running
            if "{device}" in phase:
                phase = phase.format(device=self._device(host, task))
            self._add(Event(host.get_name(), phase))
            self._listener.wake()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        ended = task_result(result)
        step = step_of(ended.task)
        self._end(result, finished=step in LAST_STEPS or (step == COMPARE and ended.data.get("up_to_date") is True))
        with self._lock:
            if module_of(ended.task) == "fleet_info":
                selected = [node["name"] for node in ended.data.get("nodes", ()) if any(row["selected"] for row in node["rows"])]
                self._progress.expect(selected)
            elif module_of(ended.task) == "adapter_selection_info":
                self._progress.place(ended.host, ended.data.get("rollout", {}).get("waves", {}))

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._end(result, failed=not ignore_errors)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._end(result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._end(result, failed=True)

    def _end(self, result: t.Any, finished: bool = False, failed: bool = False) -> None:
        # The worker's events arrived before its result.
        self._add()
        with self._lock:
            self._progress.end(task_result(result).host, finished, failed)

    def _add(self, *known: Event) -> None:
        """Add the events of the workers, then those of this process."""
        listener = self._listener
        if listener is None:
            return
        with self._lock, contextlib.suppress(OSError):
            for event in (*listener.events(), *known):
                if self._area:
                    self._progress.add(event)
                    continue
                for line in self._progress.add_plainly(event):
                    # In that case, a program reads standard output.
                    self._display.display(line, stderr="json" in C.DEFAULT_STDOUT_CALLBACK)
                    # Ansible flushes only at the end, so a pipe would get all lines at once.
                    sys.stdout.flush()

    def _follow(self, listener: Listener, area: LiveArea | None) -> None:
        """Show the events as they arrive, in a thread of its own."""
        while not self._ended.is_set():
            listener.wait()
            self._add()
            # Redraw while a host is busy, because its time and rate change without events.
            while area and self._draw(area) and not self._ended.wait(_INTERVAL):
                self._add()

    def _draw(self, area: LiveArea) -> bool:
        """Draw the busy hosts; return whether there are any."""
        size = area.size
        with self._lock:
            # Some terminals wrap when the last column is written, so leave it free.
            lines = self._progress.lines(size.columns - 1, max(size.lines // 2, min(size.lines, 2)))
        area.draw(lines)
        return bool(lines)

    def _device(self, host: t.Any, task: t.Any) -> str:
        """Return the device of a task, which is still a template when the task starts."""
        device = _option(task, "device", default="cuda")
        variables = self._play.get_variable_manager().get_vars(play=self._play, host=host, task=task)
        try:
            return str(Templar(loader=self._play.get_loader(), variables=variables).template(device))
        except Exception:
            # The task itself will fail with a proper message.
            return str(device)


def _option(task: t.Any, name: str, default: str) -> t.Any:
    """Return an option of a task that has not started: its own, or else that of module_defaults.

    ansible-core merges them in the worker, by a function that has another name in each release.
    """
    defaults: dict[str, t.Any] = {}
    for entry in task.module_defaults:
        defaults.update(entry)
    # All members of a group have the options that it may set.
    places = [options for place, options in defaults.items() if place.startswith(_GROUPS)]
    places += [defaults.get(task.action, {}), task.args]
    return next((options[name] for options in reversed(places) if isinstance(options, dict) and name in options), default)


def _style(asked: str) -> str:
    if asked in ("plain", "none"):
        return asked
    # ansible-runner, and so AWX, gives Ansible a terminal but keeps the output as lines. The
    # debugger reads input.
    unsuitable = os.environ.get("TERM", "") in ("", "dumb") or "AWX_ISOLATED_DATA_DIR" in os.environ or C.ENABLE_TASK_DEBUGGER
    return "live" if sys.stdout.isatty() and not (unsuitable and asked == "auto") else "plain"
