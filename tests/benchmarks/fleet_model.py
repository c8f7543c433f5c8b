# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a delivery to many nodes takes: a model of links and processors, and what was measured.

``python -m tests.benchmarks.fleet_model`` prints the tables of docs/scale.md. The model knows no
latency, no loss and no disks, and beyond 32 nodes it is an extrapolation.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

RELAY, DIRECT, SWARM = "relay", "direct", "swarm"

# The share of a link's rate that is payload: 700 MB took 59.2 s at 100 Mbit/s.
PAYLOAD = 0.951
# Seconds before the first byte of each round of streams: connections, keys and certificates.
BEGIN = 0.3
# Copies that the slowest link of a swarm carries, on one node and more for each doubling.
SPREAD, SPREAD_MORE = 0.95, 0.17
# CPU seconds that a peer of a TLS swarm needs for a MB: 1.9 to 2.0 for 50 MB.
SWARM_CPU = 0.04
# CPU seconds of a deploy with nothing to do: to start, and for each node. Of the latter, the module
# on the node takes half, and Ansible's main process, which is one thread, takes MAIN.
START, NODE, MAIN = 0.5, 0.516, 0.05
# How many of two cores such a deploy kept busy.
BUSY = 0.9


@dataclasses.dataclass(frozen=True)
class Site:
    """Links in Mbit/s, the same each way, and the cores of each host, or of all if ``shared``."""

    controller: float
    source: float
    node: float
    cores: float = math.inf
    shared: bool = False


@dataclasses.dataclass(frozen=True)
class Measured:
    """A measured transfer of ``size`` MB to ``nodes``, and the copies that the source sent."""

    way: str
    nodes: int
    size: float
    site: Site
    seconds: float
    copies: float | None = None


# Of the benchmark, docs/benchmarks.md#ways-of-transfer: network namespaces on a machine with two
# cores, links shaped by tbf.
_STAR = Site(controller=10, source=100, node=100)
_RELAYED = Site(controller=40, source=400, node=400)
# Of prototypes.
_WIDE = Site(controller=100, source=1000, node=1000)
_NARROW = Site(controller=40, source=40, node=40)
BENCHMARK = (
    Measured(DIRECT, 1, 95.5, _STAR, 8.3, 1.00),
    Measured(DIRECT, 3, 78.2, _STAR, 20.2, 3.01),
    Measured(DIRECT, 8, 31.3, _STAR, 22.2, 8.04),
    Measured(DIRECT, 16, 23.5, _STAR, 33.0, 16.23),
    Measured(DIRECT, 32, 15.6, _STAR, 45.2, 32.43),
    Measured(RELAY, 1, 95.5, _RELAYED, 20.8, 1.00),
    Measured(RELAY, 3, 50.4, _RELAYED, 33.7, 3.01),
    Measured(RELAY, 8, 25.2, _RELAYED, 46.1, 8.23),
    Measured(RELAY, 16, 15.6, _RELAYED, 57.5, 17.50),
    Measured(RELAY, 32, 10.4, _RELAYED, 79.0, 34.38),
    Measured(SWARM, 1, 40.0, Site(controller=10, source=40, node=40), 9.2, 1.01),
    Measured(SWARM, 3, 40.0, Site(controller=10, source=40, node=40), 11.5, 1.29),
    Measured(SWARM, 8, 30.4, Site(controller=10, source=20, node=20), 18.0, 1.35),
    Measured(SWARM, 16, 30.4, Site(controller=10, source=10, node=10), 38.9, 1.50),
    Measured(SWARM, 32, 20.8, Site(controller=10, source=5, node=5), 67.1, 1.89),
)
# Single runs.
PROTOTYPES = (
    Measured(RELAY, 1, 700, _WIDE, 59.2, 1.0),
    Measured(DIRECT, 1, 700, _WIDE, 6.1, 1.0),
    Measured(DIRECT, 2, 700, _WIDE, 12.0, 2.0),
    # A star of rsync: the controller was the source.
    Measured(DIRECT, 8, 50, _NARROW, 85.4, 8.05),
    Measured(DIRECT, 16, 50, _NARROW, 168.7, 16.3),
    # libtorrent, tuned; with TLS and v2 torrents except at 8 nodes.
    Measured(SWARM, 8, 50, _NARROW, 16.5),
    Measured(SWARM, 16, 50, _NARROW, 17.5, 1.60),
    # Without TLS.
    Measured(SWARM, 32, 50, _NARROW, 20.4, 1.85),
    # With TLS, all 33 processes needed 70 CPU seconds on the two cores.
    Measured(SWARM, 32, 50, dataclasses.replace(_NARROW, cores=2, shared=True), 34.0, 2.94),
)
TRANSFERS = BENCHMARK + PROTOTYPES
# Nodes, CPU seconds and elapsed seconds of bench_fleet.py, docs/benchmarks.md: connection local, 20
# forks, two cores for Ansible and all nodes.
DEPLOYS = ((20, 10.8, 6.2), (80, 41.8, 22.3), (200, 94.5, 50.3), (500, 258.4, 144.0))


def copies_sent(way: str, nodes: int) -> float:
    """Return how many copies leave the source."""
    return spread(nodes) if way == SWARM else float(nodes)


def spread(nodes: int) -> float:
    """Return the time of a swarm in units of one copy over the slowest link."""
    return SPREAD + SPREAD_MORE * math.log2(nodes) if nodes > 1 else 1.0


def transfer_seconds(way: str, nodes: int, size: float, site: Site, streams: int = 10) -> float:
    """Return the time until all nodes have ``size`` MB, of which ``streams`` get them at a time."""

    def over(link: float, copies: float) -> float:
        return 8 * size * copies / (PAYLOAD * link)

    if way == SWARM and nodes > 1:
        work = SWARM_CPU * size * (nodes + 1 if site.shared else 1) / site.cores
        return BEGIN + max(over(min(site.source, site.node), spread(nodes)), work)
    rounds = math.ceil(nodes / streams)
    links = [over(site.source, nodes), over(site.node, rounds)]
    return BEGIN * rounds + max([*links, over(site.controller, nodes)] if way == RELAY else links)


def deploy_cpu(nodes: int) -> float:
    """Return the CPU seconds of a deploy with nothing to do, Ansible and nodes together."""
    return START + NODE * nodes


def deploy_seconds_together(nodes: int, cores: int = 2) -> float:
    """Return its elapsed seconds if Ansible and all nodes share the cores."""
    return deploy_cpu(nodes) / (BUSY * cores)


def ansible_seconds(nodes: int, forks: int, cores: int, node_seconds: float) -> float:
    """Return the time of a run on separate hosts, each of which is busy for ``node_seconds``.

    The limit is the number of nodes at a time, the controller's cores, or Ansible's main process.
    """
    return START + max(math.ceil(nodes / forks) * node_seconds, nodes * NODE / 2 / cores, nodes * MAIN)


def measured_table() -> list[list[str]]:
    """Return what was measured beside what the model says."""
    rows = [["way", "nodes", "MB", "link of the controller, Mbit/s", "of source and nodes", "measured, s", "model, s"]]
    for one in TRANSFERS:
        model = transfer_seconds(one.way, one.nodes, one.size, one.site)
        where = " (33 processes on two cores)" if one.site.shared else ""
        links = [f"{one.site.controller:g}", f"{one.site.source:g}{where}"]
        rows.append([one.way, str(one.nodes), f"{one.size:g}", *links, f"{one.seconds:.1f}", f"{model:.1f}"])
    return rows


NODES = (1, 3, 8, 16, 50, 200, 500)
# Six adapters of realistic size, in MB.
SIZE = 700.0
# One core of a node for the swarm's engine.
OFFICE = Site(controller=100, source=1000, node=1000, cores=1)
DATA_CENTRE = dataclasses.replace(OFFICE, controller=1000)


def transfer_table() -> list[list[str]]:
    """Return how long the bytes of a first delivery take, and how many copies the source sends."""
    rows = [["nodes", "relay, controller at 100 Mbit/s", "relay, at 1 Gbit/s", "direct", "swarm", "copies from the source"]]
    for nodes in NODES:
        columns = ((RELAY, OFFICE), (RELAY, DATA_CENTRE), (DIRECT, OFFICE), (SWARM, OFFICE))
        times = [duration(transfer_seconds(way, nodes, SIZE, site)) for way, site in columns]
        rows.append([str(nodes), *times, f"{nodes}; swarm {copies_sent(SWARM, nodes):.1f}"])
    return rows


# Seconds that a node is busy: with nothing to do, and with the load test of six adapters.
NOTHING, FIRST = 2.0, 20.0


def ansible_table() -> list[list[str]]:
    """Return how long Ansible's own part takes on a controller with eight cores."""
    rows = [["nodes", "nothing to do, 20 forks", "100 forks", "first delivery, 20 forks", "100 forks", "main process alone"]]
    for nodes in (*(number for number in NODES if number >= 16), 2000):
        times = [ansible_seconds(nodes, forks, 8, seconds) for seconds in (NOTHING, FIRST) for forks in (20, 100)]
        rows.append([str(nodes), *map(duration, times), duration(nodes * MAIN)])
    return rows


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def markdown(rows: t.Sequence[t.Sequence[str]]) -> str:
    header, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *others))


if __name__ == "__main__":
    print("\n\n".join(map(markdown, (measured_table(), transfer_table(), ansible_table()))))
