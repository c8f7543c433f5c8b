# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The direct ways that the options of a task permit."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT, DIRECT_SSH, ports_of, ways_of

from .._once import once_a_run
from .direct import DirectWay
from .direct_ssh import DirectSshWay
from .relay import End
from .rsync import TransferOptions


def direct_ways(
    given: c.Mapping[str, t.Any],
    ends: tuple[str, str, End, End],
    source_variables: c.Mapping[str, t.Any],
    node_python: str,
    options: TransferOptions,
) -> list[DirectWay]:
    """Return the direct ways in the order in which they are tried.

    ``given`` are the options ``transfer_*`` of the task, ``ends`` the names of source and node and
    their ends.
    """
    source, _node, at_source, _at_node = ends
    between = between_ends(given, ends, source_variables, node_python)
    names, found = ways_of(given), []
    if DIRECT in names:
        ports = ports_of(given["transfer_direct_ports"])
        found.append(DirectWay(*between, ports, options, given["transfer_tries"], follows=names[0] != DIRECT))
    if DIRECT_SSH in names:
        port = int(source_variables.get("ansible_port") or 22)
        found.append(
            DirectSshWay(
                *(*between, (0, 0), options, given["transfer_tries"]),
                follows=names[0] != DIRECT_SSH,
                login=dataclasses.replace(at_source, become=None),
                ssh_port=port,
                authorized_keys=given["transfer_direct_authorized_keys"],
                once=functools.partial(once_a_run, "host_keys", [source, port]),
            )
        )
    return found


def between_ends(
    given: c.Mapping[str, t.Any],
    ends: tuple[str, str, End, End],
    source_variables: c.Mapping[str, t.Any],
    node_python: str,
) -> tuple[str, str, End, End, str, str, str]:
    """Return the first arguments of every direct way: both ends, and the source's address."""
    source = ends[0]
    address = given["transfer_direct_address"] or address_of(source, source_variables)
    return (*ends, python_of(source_variables), node_python, address)


def address_of(host: str, variables: c.Mapping[str, t.Any]) -> str:
    """The address of a host with these variables."""
    return str(variables.get("ansible_host") or host)


def python_of(variables: c.Mapping[str, t.Any]) -> str:
    """The interpreter that a host's variables name, or the one in its search path."""
    named = str(variables.get("ansible_python_interpreter", ""))
    return named if os.path.isabs(named) else "python3"
