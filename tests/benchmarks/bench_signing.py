# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What signed releases cost a run with nothing to do, on controller and nodes together.

All hosts are directories of this machine. Needs root: each node has an /etc of its own, in both
fleets, so that both pay for it.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from tests.benchmarks.side_by_side import Action, measure  # noqa: E402
from tests.support import tiny_adapters  # noqa: E402
from tests.support.fleet import Fleet  # noqa: E402
from tests.support.signing import Keys  # noqa: E402
from tests.support.signing_fleet import CONFIRMED, give_own_etc, prepare_signing  # noqa: E402

NODES = ("jw2-1", "jw2-2", "jw2-3")


def six_adapters(root: pathlib.Path) -> Fleet:
    """Three nodes with two adapters each."""
    root.mkdir()
    fleet = Fleet(root, tiny_adapters.cached())
    del fleet.members["jw3"], fleet.groups["jw3"], fleet.hosts["jw3-1"]
    for node in NODES[1:]:
        fleet.add_node("jw2", node)
    return fleet


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        unsigned, signed = (six_adapters(root / name) for name in ("unsigned", "signed"))
        give_own_etc(unsigned)
        (root / "keys").mkdir()
        prepare_signing(signed, Keys(root / "keys"))
        for playbook, *arguments in (("trust",), ("sign", *CONFIRMED)):
            done = signed.run(playbook, *arguments)
            if done.rc:
                sys.exit(done.output)
        for fleet in (unsigned, signed):
            fleet.deploy()
        measure(
            "Nothing to do, six adapters on three nodes, with signed releases",
            {"unsigned": Action(unsigned.deploy), "signed": Action(signed.deploy)},
            rounds=8,
        )


if __name__ == "__main__":
    main()
