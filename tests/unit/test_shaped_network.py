# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network of the benchmark of the ways: what it counts, and that it leaves nothing."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import shaped_network
from tests.support.paths import CHECKOUT

LIMIT = 120
SIZE = 3_000_000
# Sends SIZE bytes from one host to another, and prints the counters of both and the CPU time.
PROGRAM = f"""
import json, subprocess, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.benchmarks import shaped_network
shaped_network.enter()
network = shaped_network.Network()
for name in ("source", "node"):
    network.add(name)
    network.shape(name, 400)
python = (sys.executable, "-c")
listen = "import socket; s = socket.create_server(('', 8700)); print(flush=True); c = s.accept()[0]; n = 0"
listen += "\\nwhile b := c.recv(1 << 16): n += len(b)\\nprint(n); sum(range(10**7))"
node = subprocess.Popen([*network.within("node"), *python, listen], stdout=subprocess.PIPE)
node.stdout.readline()
send = f"import socket; s = socket.create_connection(('{{network.addresses['node']}}', 8700)); s.sendall(bytes({SIZE}))"
subprocess.run([*network.within("source"), *python, send], check=True)
received = int(node.communicate()[0])
print(json.dumps([received, *network.counters("source"), *network.counters("node"), shaped_network.cpu_seconds()]))
"""


def names_on_this_machine() -> str:
    return "".join(subprocess.check_output(["ip", *what], text=True) for what in (["netns", "list"], ["-brief", "link"]))


@pytest.mark.slow
@pytest.mark.skipif(bool(shaped_network.lacking()), reason=shaped_network.lacking())
def test_network_counts_bytes_and_processor_time_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    before = names_on_this_machine()
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    received, from_node, from_source, at_node, to_source, cpu = json.loads(done.stdout)
    assert received == SIZE
    # Headers are counted too, and what TCP had to send again.
    assert SIZE < from_source < 1.5 * SIZE
    assert SIZE < at_node < 1.5 * SIZE
    assert from_node < SIZE / 2 > to_source
    assert 0.1 < cpu < LIMIT
    assert names_on_this_machine() == before
