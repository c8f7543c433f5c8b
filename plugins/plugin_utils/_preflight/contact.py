# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""What a preflight finds out on the controller: how a host is reached, as whom, and its clock."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, WARNING, Checklist

from .._contact.failures import Account, Failure, explain

CONNECTION = "connection"
ANSWER = "answer"
BECOME = "become"
ACCOUNT = "account"
PYTHON = "Ansible's Python"
CLOCK = "clock"
TRANSFER_CONNECTION = "transfer connection"

# Receipts, histories and reports have the times of different hosts. Less cannot mislead a reader.
_TOLERANCE = 60
# How ansible-core reports a Python that it does not support.
_OLD_PYTHON = re.compile(r"requires (a minimum of )?Python")


def reached(connection: t.Any) -> str:
    """Return how a connection plugin reaches its host, and as whom."""
    if connection.transport != "ssh":
        return str(connection.transport)
    port, user = connection.get_option("port"), connection.get_option("remote_user")
    return f"ssh to {connection.get_option('host')}" + (f" port {port}" if port else "") + (f" as {user}" if user else "")


def add_lost(checklist: Checklist, connection: t.Any, reason: str) -> None:
    """Add a host that cannot be reached."""
    remedy = "Correct ansible_host, ansible_port, ansible_user or the key of this host"
    if connection.transport == "ssh":
        words = ["ssh"]
        for flag, option in (("-p", "port"), ("-l", "remote_user")):
            if connection.get_option(option):
                words += [flag, str(connection.get_option(option))]
        remedy += f", until this works on the controller: {' '.join([*words, str(connection.get_option('host'))])} true"
    checklist.add(CONNECTION, FAILED, f"{reached(connection)}: {_sentence(reason)}", f"{remedy}.")


def add_refused(checklist: Checklist, connection: t.Any, failure: Failure, account: Account) -> None:
    """Add a host that is reached, but on which no module can be run."""
    checklist.ok(CONNECTION, reached(connection))
    reason = (failure.output or "").strip() or failure.message
    if known := explain(failure, account):
        check = PYTHON if "Python" in known.problem else ACCOUNT if connection.become is None else BECOME
        checklist.add(check, FAILED, known.problem, known.remedy)
    elif connection.become is None or _OLD_PYTHON.search(reason):
        remedy = "Install Python 3.8 or newer on this host, and set ansible_python_interpreter to it if it is not found."
        checklist.add(PYTHON, FAILED, _sentence(reason), remedy)
    else:
        remedy = (
            "Check ansible_become_method, ansible_become_user and ansible_become_password, and what this host permits (sudo -l)."
        )
        checklist.add(BECOME, FAILED, f"{_become(connection)}: {_sentence(reason)}", remedy)


def add_unknown_answer(checklist: Checklist, connection: t.Any, error: DeliveryError) -> None:
    """Add a host whose module returned what it never returns."""
    checklist.ok(CONNECTION, reached(connection))
    for problem in error.problems:
        checklist.add(ANSWER, FAILED, problem.problem, problem.remedy)


def add_reached(checklist: Checklist, connection: t.Any, user: str) -> None:
    """Add a host on which modules run as ``user``."""
    checklist.ok(CONNECTION, reached(connection))
    if connection.become is None:
        checklist.ok(BECOME, f"not used, modules run as {user}")
    else:
        checklist.ok(BECOME, f"{_become(connection)}, modules run as {user}")


def add_clock(checklist: Checklist, before: float, there: float, after: float) -> None:
    """Compare clocks: the host's was read between ``before`` and ``after`` on the controller."""
    difference = there - after if there > after else min(0.0, there - before)
    if abs(difference) <= _TOLERANCE:
        checklist.ok(CLOCK, "agrees with the controller's")
        return
    direction = "ahead of" if difference > 0 else "behind"
    found = f"{_duration(abs(difference))} {direction} the controller's"
    remedy = "Set it, or start NTP. Receipts, histories and reports have the times of the hosts that wrote them."
    checklist.add(CLOCK, WARNING, found, remedy)


def _become(connection: t.Any) -> str:
    user = connection.become.get_option("become_user")
    return f"to {user or 'another user'} by {connection.become.name.rpartition('.')[2]}"


def _sentence(reason: str) -> str:
    # What ssh says itself, without what Ansible puts before it.
    words = re.sub(r"^.*? (over|via) ssh: (?=.)", "", " ".join(reason.split()))
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{round(minutes / 60)} h" if minutes < 48 * 60 else f"{round(minutes / 1440)} days"
