# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""What a preflight finds out about the ways of a transfer: whether the node reaches the source."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import FAILED, WARNING, Checklist
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT, DIRECT_SSH, SWARM, ports_of, ways_of

from .._transfer.direct import DirectWay
from .._transfer.direct_ssh import DirectSshWay
from .._transfer.direct_ways import between_ends, direct_ways
from .._transfer.relay import End
from .._transfer.rsync import TransferOptions

# Those in which the node connects to the source.
TRIED = (SWARM, DIRECT, DIRECT_SSH)


@dataclasses.dataclass
class SwarmPorts(DirectWay):
    """A direct connection from the node to the ports that a swarm uses at the source.

    Nodes connect to the source, and the one that starts later to the other. No other node is
    there to be tried.
    """

    name: t.ClassVar[str] = SWARM
    unreachable: t.ClassVar[str] = (
        "Open transfer_swarm_ports of the source for the node, correct transfer_direct_address or set transfer to auto."
    )
    stranger: t.ClassVar[str] = (
        "Something else answers there, or stands between the hosts: correct transfer_direct_address and"
        " transfer_swarm_ports, or set transfer to auto."
    )


def way_check(name: str) -> str:
    return f"way {name}"


def tried_ways(
    given: c.Mapping[str, t.Any],
    ends: tuple[str, str, End, End],
    source_variables: c.Mapping[str, t.Any],
    node_python: str,
    options: TransferOptions,
) -> list[DirectWay]:
    """Return the ways to try, from the same arguments as ``direct_ways``."""
    found: list[DirectWay] = []
    if SWARM in ways_of(given):
        ports = ports_of(given["transfer_swarm_ports"])
        found.append(SwarmPorts(*between_ends(given, ends, source_variables, node_python), ports, options, tries=1))
    return found + direct_ways(given, ends, source_variables, node_python, options)


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
        untried = ", the ports of other nodes were not tried" if way.name == SWARM else ""
        checklist.ok(check, f"the node reaches {place}{untried}")


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
