# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deliveries of bench_delivery.py between hosts with processors of their own.

The controller, which is also the training server, and the three nodes have an equal share of this
machine's processors each, and none uses what another one leaves.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from tests.benchmarks import processor_share  # noqa: E402
from tests.benchmarks.bench_delivery import compare_deliveries  # noqa: E402
from tests.benchmarks.loopback import AGENTS, Loopback  # noqa: E402
from tests.support import sshd  # noqa: E402


def main() -> None:
    why = processor_share.lacking() or sshd.lacking()
    if why:
        print(f"bench_separate_hosts: not measured: {why}")
        return
    share = (os.cpu_count() or 1) / (len(AGENTS) + 1)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as running:
        root = pathlib.Path(scratch)
        controller = running.enter_context(processor_share.host("controller", share))
        servers = {}
        for node in AGENTS:
            host = running.enter_context(processor_share.host(node, share))
            (root / f"sshd-{node}").mkdir()
            servers[node] = running.enter_context(sshd.running(root / f"sshd-{node}", within=host.within()))
        fleet = Loopback(root, servers)
        with controller.entered():
            compare_deliveries(fleet, f", hosts with {share:g} processors each", links=False)


if __name__ == "__main__":
    main()
