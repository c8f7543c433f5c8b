# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback plugin delivery_progress: what each node is doing, while it does it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: delivery_progress
type: aggregate
short_description: Shows how far each node is while a delivery runs
version_added: 0.1.0
author:
  - The lorafleet.delivery authors (@lorafleet)
description:
  - On a terminal, shows a line for each node that is at work below what Ansible prints. It says which adapter is being sent,
    how much of it has come, how fast, and how long the rest takes. Where nothing is sent, it says what is done (asking the
    source, waiting for a stream, hashing, loading, activating) and for how long already. At the end nothing of it is left.
  - The lines take up to half of the terminal. Where there are more nodes, the last line counts the others.
  - Without a terminal, prints a line when something begins, with no control characters. The same is done on a terminal that
    cannot move its cursor (E(TERM) is V(dumb)), under ansible-runner and AWX, and while the task debugger is on.
  - It works beside any stdout callback; beside one that writes JSON, plain lines go to standard error. It speaks of the
    modules of this collection alone.
requirements:
  - To be enabled by C(callbacks_enabled).
notes:
  - C(sending) counts what the node was handed. What an earlier run has left there is not sent again and not counted.
    An adapter is at 100 % when all of it has arrived.
  - With O(lorafleet.delivery.adapter_sync#module:transfer_compress) nobody knows beforehand how many bytes will be sent, so
    there is neither a percentage nor a time.
options:
  style:
    description:
      - V(auto) is V(live) on a terminal that can do it, otherwise V(plain).
      - V(live) is a line for each node, at the end of the terminal. It is V(plain) where there is no terminal.
      - V(plain) is a line for each thing that begins.
      - V(none) is nothing at all.
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

# What each module does, as far as it does not tell by itself.
_PHASES = {
    "adapter_audit": "hashing what is there",
    "adapter_up_to_date_info": "comparing with what is offered",
    "adapter_golden": "recording answers on {device}",
    "adapter_info": "asking the source",
    "adapter_load_test": "loading on {device}",
    "adapter_release": "activating",
    "adapter_sync": "hashing what is there",
}
# Seconds between two drawings.
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
        # Held before the one of Ansible's display, never after it.
        self._lock = threading.Lock()
        # An interrupted run ends without an event.
        atexit.register(self._close)

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        self._play = play
        style = _style(self.get_option("style"))
        if self._listener or style == "none":
            return
        # Before any worker is forked, so that all of them have it.
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
            # It must not be in the middle of printing when the process ends. On a terminal that was stopped, it may.
            self._thread.join(1)
            if self._area:
                self._area.close()
            self._listener.close()
            self._listener = self._area = self._thread = None

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        phase = _PHASES.get(task.action.removeprefix("lorafleet.delivery."))
        if phase and self._listener:
            if "{device}" in phase:
                phase = phase.format(device=self._device(host, task))
            self._take(Event(host.get_name(), phase))
            self._listener.wake()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._end(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._end(result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._end(result)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._end(result)

    def _end(self, result: t.Any) -> None:
        # What its worker has told came in before its result.
        self._take()
        with self._lock:
            # The one before ansible-core 2.19.
            self._progress.end((getattr(result, "host", None) or result._host).get_name())

    def _take(self, *known: Event) -> None:
        """Take in what workers have told, then what is known here."""
        listener = self._listener
        if listener is None:
            return
        with self._lock, contextlib.suppress(OSError):
            for event in (*listener.events(), *known):
                begins = self._progress.take(event)
                if begins and not self._area:
                    # What is to be read by a program is left alone.
                    self._display.display(begins, stderr="json" in C.DEFAULT_STDOUT_CALLBACK)
                    # Ansible itself does so at the end alone: in a pipe, all would come then.
                    sys.stdout.flush()

    def _follow(self, listener: Listener, area: LiveArea | None) -> None:
        """Show what goes on, in a thread of its own."""
        while not self._ended.is_set():
            listener.wait()
            self._take()
            # As long as anything is shown, its time goes on.
            while area and self._draw(area) and not self._ended.wait(_INTERVAL):
                self._take()

    def _draw(self, area: LiveArea) -> bool:
        """Show what goes on now, if anything does."""
        size = area.size
        with self._lock:
            # The last column is left free: some terminals begin another line where it is written to.
            lines = self._progress.lines(size.columns - 1, max(size.lines // 2, 2))
        area.draw(lines)
        return bool(lines)

    def _device(self, host: t.Any, task: t.Any) -> str:
        """The device that a task names, which is a template still when the task starts."""
        device = task.args.get("device", "cuda")
        variables = self._play.get_variable_manager().get_vars(play=self._play, host=host, task=task)
        try:
            return str(Templar(loader=self._play.get_loader(), variables=variables).template(device))
        except Exception:
            # The task itself is going to say what is wrong with it.
            return str(device)


def _style(asked: str) -> str:
    if asked in ("plain", "none"):
        return asked
    # ansible-runner, and so AWX, reads what is printed through a terminal, but keeps it as lines. The debugger asks by itself.
    unable = os.environ.get("TERM", "") in ("", "dumb") or "AWX_ISOLATED_DATA_DIR" in os.environ or C.ENABLE_TASK_DEBUGGER
    return "live" if sys.stdout.isatty() and not (unable and asked == "auto") else "plain"
