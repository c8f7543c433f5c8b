# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The steps of a run: their modules, and their names in the report and the progress display."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE

_COLLECTION = "lorafleet.delivery"


@dataclasses.dataclass(frozen=True)
class Step:
    """The work of one module, for all adapters of a node at once.

    ``key`` names the step in report.json and in metrics. ``running`` is what the progress display
    shows while the module works, and may contain ``{device}``. ``done`` is what the report calls
    the time that the step took.
    """

    module: str
    key: str
    running: str
    done: str


DESCRIBE = Step("adapter_info", "describe", "describing the adapters", "describing on the training server")
COMPARE = Step("adapter_up_to_date_info", "compare", "checking whether up to date", "checking whether up to date")
TRANSFER = Step("adapter_sync", "transfer", "hashing local files", "transferring and verifying")
LOAD = Step("adapter_load_test", "load", "loading on {device}", "loading with PEFT")
ACTIVATE = Step("adapter_release", "activate", "activating", "activating")
SERVE = Step("adapter_serve", "serve", "loading into the engines", "serving and proving")
AUDIT = Step("adapter_release_info", "audit", "hashing local files", "hashing")
# The same module with `content: false`.
STATUS = Step("adapter_release_info", "status", "reading the store", "reading the store")
SERVED = Step("adapter_serve_info", "served", "asking the engines", "asking the engines")
STEPS = (DESCRIBE, COMPARE, TRANSFER, LOAD, ACTIVATE, SERVE, AUDIT, STATUS, SERVED)
# Steps that no report has.
PREFLIGHT = Step("preflight_info", "preflight", "checking the host", "checking the host")
RECORD = Step("adapter_golden", "record", "recording answers on {device}", "recording goldens")
# A node that has done one of these is through, unless another step follows.
LAST_STEPS = (ACTIVATE, SERVE, AUDIT, STATUS, SERVED, PREFLIGHT, RECORD)

# The action plugins show these: the tasks are skipped on nodes whose engines have no url.
SHOWN_BY_ACTION = (SERVE, SERVED)
# The action plugin of adapter_sync shows these while it works.
WAITING = "waiting for a transfer slot"
SENDING = "sending"
VERIFYING = "verifying"

_BY_MODULE = {step.module: step for step in (*STEPS, PREFLIGHT, RECORD) if step is not STATUS}


def module_of(task: t.Any) -> str | None:
    """Return the name of the collection's module that a task runs, or nothing for other modules."""
    collection, _dot, module = task.action.rpartition(".")
    return module if collection == _COLLECTION else None


def step_of(task: t.Any) -> Step | None:
    """Return the step that a task does, or nothing for a module that is not part of a delivery."""
    step = _BY_MODULE.get(module_of(task) or "")
    return STATUS if step is AUDIT and task.args.get("content", True) in BOOLEANS_FALSE else step
