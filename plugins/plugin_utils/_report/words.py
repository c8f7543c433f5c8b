# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What the report's parts are called wherever people read them."""

from __future__ import annotations

from .model import Data

_HAPPENED = {
    "activated": "activated",
    "rolled_back": "rolled back",
    "repaired": "repaired",
    "unchanged": "unchanged",
    "as_verified": "as verified",
    "differs": "differs",
    "active": "active",
    "failed": "failed",
    "held_back": "held back",
    "unreachable": "lost",
    "not_reached": "not reached",
    "not_selected": "not selected",
    "missing": "missing",
}
# What a step is called where its time is shown.
PHASES = {
    "describe": "describing at the training server",
    "compare": "comparing with what is offered",
    "bring": "sending and hashing",
    "load": "loading with PEFT",
    "activate": "activating",
    "audit": "hashing",
    "look": "looking",
}
GOOD = frozenset({"activated", "rolled_back", "repaired", "unchanged", "as_verified", "active"})
BAD = frozenset({"differs", "failed", "unreachable", "missing"})


def what_happened(state: str, check_mode: bool = False) -> str:
    if check_mode and state in ("activated", "rolled_back", "repaired"):
        return f"would be {_HAPPENED[state]}"
    return _HAPPENED[state]


def device(adapter: Data) -> str:
    test = adapter["test"] or {}
    return " ".join(str(test[key]) for key in ("device", "device_name") if test.get(key))


def sentence(failure: Data) -> str:
    """What failed on the node, and what to do, as one text."""
    subject = "" if failure["subject"] == failure["node"] else f"{failure['subject']}: "
    problem = " ".join(failure["problem"].split())
    end = "" if problem.endswith((".", "!", "?")) else "."
    return f"{subject}{problem}{end} {failure['remedy']}".rstrip()


def in_bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
