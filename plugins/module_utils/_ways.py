# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""The ways of a transfer that the option ``transfer`` selects, and the arguments of a command."""

from __future__ import annotations

import re
import typing as t

from ._errors import DeliveryError

RELAY = "relay"
COMMAND = "command"
DIRECT = "direct"
DIRECT_SSH = "direct_ssh"
SWARM = "swarm"
AUTO = "auto"
CHOICES = (RELAY, DIRECT, DIRECT_SSH, SWARM, COMMAND, AUTO)

# The placeholders in the arguments of ``transfer_command``.
PLACEHOLDERS = ("adapter", "digest", "files", "release", "staging")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def ways_of(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return the ways to try, in this order. The last one has to succeed."""
    if params["transfer"] != AUTO:
        return [params["transfer"]]
    allowed = {
        COMMAND: params["transfer_command"],
        SWARM: params["transfer_swarm_ports"],
        DIRECT: params["transfer_direct_ports"],
        DIRECT_SSH: params["transfer_direct_ssh"],
    }
    return [*(way for way, settings in allowed.items() if settings), RELAY]


def ports_of(text: str) -> tuple[int, int]:
    """Return the first and the last of the ports that an option permits.

    Both are 0 for any port. Raises ValueError for anything else than a port or a range.
    """
    first, dash, last = text.partition("-")
    found = (int(first), int(last if dash else first))
    if not (text.replace("-", "", 1).isdecimal() and (found == (0, 0) or 0 < found[0] <= found[1] < 1 << 16)):
        raise ValueError(text)
    return found


def with_values(argument: str, values: t.Mapping[str, t.Any]) -> str:
    """Return an argument of the command with the values of its placeholders."""
    return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), argument)


def check_ways(params: t.Mapping[str, t.Any]) -> None:
    """Raise DeliveryError for a way whose options are missing, and for unknown placeholders."""
    command = params["transfer_command"]
    if params["transfer"] == COMMAND and not command:
        remedy = "Set it to a list, the program and its arguments, or set transfer to relay."
        raise DeliveryError.of("transfer_command", "is empty, but transfer is command.", remedy)
    _check_ports(params, DIRECT, "ports of the source that the node reaches")
    _check_ports(params, SWARM, "ports at which the source and the nodes reach each other")
    unknown = [name for argument in command for name in _PLACEHOLDER.findall(argument) if name not in PLACEHOLDERS]
    if unknown:
        raise DeliveryError.of(
            "transfer_command",
            f"has the placeholder {{{unknown[0]}}}, which does not exist.",
            f"Use {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}.",
        )


def _check_ports(params: t.Mapping[str, t.Any], way: str, what: str) -> None:
    name = f"transfer_{way}_ports"
    if params["transfer"] == way and not params[name]:
        raise DeliveryError.of(name, f"is empty, but transfer is {way}.", f"Set it to {what}, or set transfer to relay.")
    try:
        ports_of(params[name] or "0")
    except ValueError:
        problem = f"is {params[name]!r}, which is neither a port nor a range of ports."
        raise DeliveryError.of(name, problem, "Set it to a port, to a range such as 8700-8709, or to 0 for any port.") from None
