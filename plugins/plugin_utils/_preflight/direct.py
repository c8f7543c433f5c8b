# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""What a preflight finds out about direct transfers: whether the node reaches the source."""

from __future__ import annotations

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, WARNING, Checklist

from .._transfer.direct import DirectWay
from .._transfer.direct_ssh import DirectSshWay


def way_check(name: str) -> str:
    return f"way {name}"


def check_way(checklist: Checklist, way: DirectWay, required: bool) -> None:
    """Let the node connect to the source as for a transfer, but transfer nothing.

    If it cannot, deliveries fail if the way is ``required``, and take another one otherwise.
    """
    check = way_check(way.name)
    try:
        place = way.probe()
    except DeliveryError as exc:
        state = FAILED if required else WARNING
        for problem in exc.problems:
            found, remedy = problem.problem, problem.remedy
            if isinstance(way, DirectSshWay) and way.denied:
                found, remedy = _explained(way, found, remedy)
            subject = f"{problem.subject}: " if problem.subject else ""
            checklist.add(check, state, f"{subject}{found}", remedy)
    else:
        checklist.ok(check, f"the node reaches {place}")


def _explained(way: DirectSshWay, found: str, remedy: str) -> tuple[str, str]:
    """Why sshd at the source refuses the node, if its settings tell, and what to do."""
    try:
        refused = way.refusals()
    except DeliveryError as exc:
        why = " ".join(problem.problem for problem in exc.problems)
        return f"{found} Which setting of sshd at {way.source} refuses it is unknown: {why}", remedy
    if not refused:
        return f"{found} No setting of sshd at {way.source} refuses it.", f"See its log there. {remedy}"
    settings = "; ".join(one.setting for one in refused)
    remedies = " ".join(one.remedy for one in refused)
    return f"{found} sshd at {way.source} has {settings}.", f"In sshd_config at {way.source}: {remedies}"
