# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet on this machine whose nodes can trust signers. Needs root, to mount.

A node has a directory /etc of its own: its interpreter mounts one over that of this machine.
"""

from __future__ import annotations

import json
import pathlib
import sys

from tests.support.fleet import Fleet
from tests.support.signing import FLEET, Keys, signer_line

CONFIRMED = ("-e", "training_signing_confirmed=true")


def give_own_etc(fleet: Fleet) -> None:
    """Let the modules of each node see an /etc that they can write to."""
    for node in (host for host in fleet.hosts if host != "sbs29"):
        own, python = fleet.root / f"{node}-etc", fleet.root / f"{node}-python"
        (own / "upper").mkdir(parents=True)
        (own / "work").mkdir()
        mount = f"mount -t overlay -o lowerdir=/etc,upperdir={own}/upper,workdir={own}/work overlay /etc"
        inner = f'{mount} && exec {sys.executable} "$@"'
        python.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n", encoding="utf-8")
        python.chmod(0o755)
        fleet.hosts[node]["ansible_python_interpreter"] = str(python)


def installed_trust(fleet: Fleet, node: str) -> pathlib.Path:
    """The directory with the trust of a node, as this machine sees it."""
    return fleet.root / f"{node}-etc" / "upper" / "lorafleet" / "trust"


def prepare_signing(fleet: Fleet, keys: Keys) -> None:
    """Prepare what ``trust.yml`` and ``sign.yml`` need, with alice for the only signer."""
    trust, signatures = fleet.root / "trust", fleet.root / "signatures"
    trust.mkdir()
    signatures.mkdir()
    policy = {"fleet": FLEET, "required": True, "threshold": 1, "version": 1}
    (trust / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    (trust / "allowed_signers").write_text(signer_line("alice", keys.public("alice")), encoding="utf-8")
    fleet.groups["agents"].update(agent_trust=str(trust), agent_signatures=str(signatures))
    fleet.groups["training"]["training_signing_key"] = keys.private("alice")
    give_own_etc(fleet)
