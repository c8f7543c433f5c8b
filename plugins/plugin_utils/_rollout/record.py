# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What a run knows of its rollout: the plan, and which nodes have passed.

Ansible has no place for it that lasts from one play to the next, is reset by the next deploy of the
same run, and is not evaluated in every task. So it is in files of the run, like ``_once``.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import os
import tempfile
import typing as t
import urllib.parse

from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ACTIVATED

from .gate import Passed
from .plan import Plan

_PLAN = "rollout"


def keep_plan(plan: Plan) -> None:
    """Keep the plan of the deploy that begins, also if there is nothing to plan."""
    _write(_PLAN, plan.to_json() if plan.is_needed else None)


def kept_plan() -> Plan | None:
    """Return the plan of this deploy, or None if all nodes are delivered at once.

    Raises FileNotFoundError if no deploy has begun.
    """
    data = _read(_PLAN)
    return Plan.from_json(data) if data else None


def forget(node: str) -> None:
    """Forget that a node has passed in an earlier deploy of the same run."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(_of(node)))


def record_passed(node: str, adapters: c.Iterable[c.Mapping[str, t.Any]] = ()) -> None:
    """Record that a node has passed, but for its engines: its releases are active and verified.

    ``adapters`` are entries of a result of ``adapter_release``. Does nothing without a plan.
    """
    with contextlib.suppress(FileNotFoundError):
        if kept_plan():
            changed = [entry["name"] for entry in adapters if entry.get("action") == ACTIVATED and entry.get("previous")]
            _write(_of(node), {"changed": changed, "served": False})


def record_served(node: str) -> None:
    """Record that the engines of a node serve the releases with which it has passed."""
    with contextlib.suppress(FileNotFoundError):
        _write(_of(node), {**_read(_of(node)), "served": True})


def passed_of(plan: Plan) -> dict[str, Passed]:
    """Return the nodes of a plan that have passed."""
    found = {}
    for node in plan.turns:
        with contextlib.suppress(FileNotFoundError):
            known = _read(_of(node))
            if known["served"] or node not in plan.serving:
                found[node] = Passed(tuple(known["changed"]))
    return found


def _of(node: str) -> str:
    return f"{_PLAN}.passed.{urllib.parse.quote(node, safe='')}"


def _path(name: str) -> str:
    # The directory is private to the run and shared by its workers.
    return os.path.join(C.DEFAULT_LOCAL_TMP, name)


def _read(name: str) -> t.Any:
    with open(_path(name), encoding="utf-8") as stream:
        return json.load(stream)


def _write(name: str, value: t.Any) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=C.DEFAULT_LOCAL_TMP)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(temporary, _path(name))
