# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The variable ``agent_serial``: in waves of how many nodes an agent is delivered."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._text import shown

# One node, and then all others.
CANARY: list[int | str] = [1, "100%"]
ALL_AT_ONCE: list[int | str] = ["100%"]

_FORM = "a number of nodes from 1, a percentage from 1% to 100%, or a list of these"


class NotSerial(ValueError):
    """A value is not one of ``agent_serial``. The message is the form to write."""


def serial_of(value: t.Any) -> list[int | str]:
    """Return the sizes of waves that a value names, as a list. Raises NotSerial."""
    sizes = value if isinstance(value, list) else [value]
    if not sizes:
        raise NotSerial(_FORM)
    return [_size(size) for size in sizes]


def in_waves(nodes: list[str], serial: list[int | str]) -> list[list[str]]:
    """Divide nodes into waves as Ansible divides the hosts of a play with this ``serial``.

    Percentages are of all nodes, rounded down, but a wave has at least one node. The last size
    holds for all further waves.
    """
    waves: list[list[str]] = []
    done = 0
    while done < len(nodes):
        size = serial[min(len(waves), len(serial) - 1)]
        number = size if isinstance(size, int) else max(int(size[:-1]) * len(nodes) // 100, 1)
        waves.append(nodes[done : done + number])
        done += number
    return waves


def wrong_serial(value: t.Any) -> tuple[str, str] | None:
    """Return what is wrong with a value of ``agent_serial``, and the remedy.

    A dictionary has a value for each agent.
    """
    for one in value.values() if isinstance(value, dict) else [value]:
        try:
            serial_of(one)
        except NotSerial as exc:
            return f"is {shown(value)}, which is not {exc}.", f"Write {exc}."
    return None


def _size(value: t.Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    # Values of the command line are text.
    text = value if isinstance(value, str) else ""
    if re.fullmatch(r"[1-9][0-9]{0,5}", text):
        return int(text)
    if re.fullmatch(r"([1-9][0-9]?|100)%", text):
        return text
    raise NotSerial(_FORM)
