# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways of transfer to growing numbers of nodes on slow links, compared with rsync.

The hosts are network namespaces with an sshd each; the controller is in one too. ``adapter_sync``
runs in a small play of its own. All nodes begin at the same moment, when each has its plan, and a
node's time ends when the last byte is there. Before and after that, the work of 33 hosts would
compete for the processors of one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import TRANSFER  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT, DIRECT_SSH, RELAY  # noqa: E402

from tests.benchmarks import shaped_network, true_size  # noqa: E402
from tests.benchmarks.side_by_side import show  # noqa: E402
from tests.support import sshd  # noqa: E402
from tests.support.playbooks import Background  # noqa: E402

RSYNC, SWARM = "rsync", "swarm"
CONTROLLER, SOURCE = "controller", "source"
ADAPTER, WEIGHTS = "adapter", "adapter_model.safetensors"
TITLE, TARGETS = "Ways of transfer", "Ways of transfer: targets"
# Seconds for a run, and between two looks at it.
_LIMIT, _POLL_INTERVAL = 1200, 0.05

# bash reads ~/.bashrc for sshd, unless another shell has started it. What this user has there may
# take longer than a module.
_NO_STARTUP_FILES = "SetEnv SHLVL=1"
PORTS = {"transfer_direct_ports": "8700-8799", "transfer_swarm_ports": "8800-8899"}
PLAY = [
    {
        "hosts": "nodes",
        "gather_facts": False,
        "tasks": [
            {
                "lorafleet.delivery.adapter_info": {
                    "models_dir": "{{ source_models_dir }}",
                    "adapters": "{{ adapters }}",
                    "bases": "{{ bases }}",
                },
                "delegate_to": SOURCE,
                "run_once": True,
                "register": "described",
            },
            {
                "lorafleet.delivery.adapter_sync": {
                    "adapters": "{{ adapters }}",
                    "bases": "{{ bases }}",
                    "manifests": "{{ described.manifests }}",
                    "source": SOURCE,
                    "source_models_dir": "{{ source_models_dir }}",
                    "source_directories": "{{ described.directories }}",
                    "models_dir": "{{ models_dir }}",
                    "store": "{{ store }}",
                    "transfer": "{{ transfer }}",
                    "transfer_direct_authorized_keys": "{{ authorized_keys }}",
                    # Those of a way that this collection does not have yet are left out.
                    **{option: ports for option, ports in PORTS.items() if option in TRANSFER},
                }
            },
        ],
    }
]
# The interpreter of a node. Its first module is the plan of adapter_sync, which ends when all nodes
# have one.
INTERPRETER = """#!/bin/sh
{python} "$@"
status=$?
if [ ! -e {planned} ]; then
    : > {planned}
    flock --shared {gate} true
fi
exit $status
"""


@dataclasses.dataclass(frozen=True)
class Load:
    """The rank of the adapter, and the Mbit/s of all links but the controller's."""

    rank: int
    megabits: float

    @property
    def controller(self) -> float:
        return max(self.megabits / 10, _CONTROLLER)


# What Ansible itself sends does not become less with slower links.
_CONTROLLER = 10
# A way in which the source or the controller sends one copy to each node takes many times as long
# as one copy, so larger fleets get a smaller adapter. It is not so small that the next module of
# adapter_sync, half a MB for each node, is a large part of what the controller relays. In a swarm
# all hosts send at the same time, which must not take all the processor time of this machine: their
# links are slower.
STAR = {1: Load(110, 100), 3: Load(90, 100), 8: Load(36, 100), 16: Load(27, 100), 32: Load(18, 100)}
RELAYED = {1: Load(110, 400), 3: Load(58, 400), 8: Load(29, 400), 16: Load(18, 400), 32: Load(12, 400)}
SPREAD = {1: Load(46, 40), 3: Load(46, 40), 8: Load(35, 20), 16: Load(35, 10), 32: Load(24, 5)}
LOADS = {RSYNC: STAR, DIRECT: STAR, DIRECT_SSH: {1: STAR[1], 3: STAR[3], 8: STAR[8]}, RELAY: RELAYED, SWARM: SPREAD}
QUICK = (1, 3)
# Fleets in which one node is slow or is killed.
DISTURBED = {DIRECT: 8, SWARM: 16}
# With one node, the lowest figures of several turns.
ROUNDS = 2
# Layers of the base, so that an adapter has 0.9 MB for each rank.
_LAYERS = 4


@dataclasses.dataclass
class Measured:
    """What a transfer took.

    ``seconds`` are those of each node that has all bytes, from the moment when all began.
    ``sent`` are the bytes out of the source, ``through`` those into or out of the controller,
    whichever are more. ``cpu`` are seconds of all processes on all hosts.
    """

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    sent: int = 0
    through: int = 0
    cpu: float = 0.0

    def until(self, share: float) -> float:
        """Return when this share of the nodes had all bytes."""
        return sorted(self.seconds.values())[math.ceil(share * len(self.seconds)) - 1]


class Site:
    """A controller, a source and nodes on a network, each with its files below ``root``."""

    def __init__(self, root: pathlib.Path, nodes: int, running: contextlib.ExitStack) -> None:
        self.root, self._running = root, running
        self.network = shaped_network.Network()
        self.nodes = [f"node-{number}" for number in range(1, nodes + 1)]
        self._servers: dict[str, sshd.Server] = {}
        self._models = root / SOURCE / "models"
        # The bytes of the weights.
        self._weights = 0
        self._gate = root / "gate"
        self._gate.touch()
        (root / "play.yml").write_text(json.dumps(PLAY), encoding="utf-8")
        self.network.add(CONTROLLER)
        for name in (SOURCE, *self.nodes):
            (root / name).mkdir()
            self.network.add(name)
            self._serve(name)
        for name in self.nodes:
            text = INTERPRETER.format(python=sys.executable, planned=self._planned(name), gate=self._gate)
            self._interpreter(name).write_text(text, encoding="utf-8")
            self._interpreter(name).chmod(0o755)

    def _serve(self, host: str) -> None:
        keys = pathlib.Path(tempfile.mkdtemp(dir=self.root / host))
        place = self.network.addresses[host], self.network.within(host)
        server = sshd.running(keys, _NO_STARTUP_FILES, address=place[0], within=place[1])
        self._servers[host] = self._running.enter_context(server)

    def _interpreter(self, node: str) -> pathlib.Path:
        return self.root / node / "python"

    def _planned(self, node: str) -> pathlib.Path:
        return self.root / node / "planned"

    def prepare(self, load: Load, nodes: t.Sequence[str]) -> int:
        """Save an adapter at the source, empty the nodes, and set the rates of all links.

        Returns the number of bytes of the adapter.
        """
        size = true_size.Size("example/base", load.rank, {**true_size.SIZES["3b"].config, "num_hidden_layers": _LAYERS})
        adapter = self._models / ADAPTER
        shutil.rmtree(adapter, ignore_errors=True)
        true_size.make(adapter, size, 0)
        self._weights = (adapter / WEIGHTS).stat().st_size
        hosts = {}
        for node in nodes:
            for name in ("models", "store", "received"):
                shutil.rmtree(self.root / node / name, ignore_errors=True)
                (self.root / node / name).mkdir()
            self._planned(node).unlink(missing_ok=True)
            hosts[node] = {
                **self._servers[node].variables(),
                "ansible_python_interpreter": str(self._interpreter(node)),
                "models_dir": str(self.root / node / "models"),
                "store": str(self.root / node / "store"),
            }
        row = {"name": ADAPTER, "base": size.name, "rank": size.rank, "alpha": 32, "target_modules": true_size.TARGETS}
        variables = {
            "ansible_python_interpreter": sys.executable,
            "adapters": [row],
            "bases": {size.name: {"config": size.config}},
            "source_models_dir": str(self._models),
            "authorized_keys": str(self._servers[SOURCE].private_key.with_name("authorized_keys")),
        }
        groups = {"nodes": {"hosts": hosts}, "training": {"hosts": {SOURCE: self._servers[SOURCE].variables()}}}
        inventory = {"all": {"vars": variables, "children": groups}}
        (self.root / "inventory.yml").write_text(json.dumps(inventory), encoding="utf-8")
        self.network.shape(CONTROLLER, load.controller)
        for name in (SOURCE, *nodes):
            self.network.shape(name, load.megabits)
        return sum(path.stat().st_size for path in adapter.iterdir())

    @contextlib.contextmanager
    def measuring(self) -> t.Iterator[Measured]:
        """Yield a result that is complete at the end of the block, but for the times."""
        measured = Measured()
        before = {name: self.network.counters(name) for name in (SOURCE, CONTROLLER)}
        cpu = shaped_network.cpu_seconds()
        yield measured
        after = {name: self.network.counters(name) for name in before}
        measured.sent = after[SOURCE].sent - before[SOURCE].sent
        measured.through = max(now - then for now, then in zip(after[CONTROLLER], before[CONTROLLER]))
        measured.cpu = shaped_network.cpu_seconds() - cpu

    def rsync(self, nodes: t.Sequence[str]) -> Measured:
        """Let each node get the adapter from the source with rsync, all at the same time."""
        server = self._servers[SOURCE]
        ssh = ["ssh", *server.ssh_common_args.split(), "-i", str(server.private_key), "-p", str(server.port)]
        source = f"{server.user}@{server.address}:{self._models / ADAPTER}/"
        with self.measuring() as measured:
            began = time.monotonic()
            running = {}
            for node in nodes:
                command = ["rsync", "-a", "-e", shlex.join(ssh), source, str(self.root / node / "received")]
                running[node] = subprocess.Popen([*self.network.within(node), *command])
            while running:
                for node, process in [*running.items()]:
                    if process.poll() is not None:
                        measured.seconds[node] = time.monotonic() - began
                        if running.pop(node).returncode:
                            sys.exit(f"rsync failed on {node}")
                time.sleep(_POLL_INTERVAL)
        return measured

    def start(self, way: str, nodes: t.Sequence[str]) -> tuple[Background, float]:
        """Start adapter_sync, and return when all nodes begin to get the files, with the time."""
        environment = {"ANSIBLE_FORKS": str(len(nodes)), "ANSIBLE_HOME": str(self.root / "ansible")}
        with self._gate.open() as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            run = Background(
                *(str(self.root / "play"), "-i", str(self.root / "inventory.yml"), "-e", f"transfer={way}"),
                directory=self.root,
                environment=environment,
                within=self.network.within(CONTROLLER),
            )
            self._wait(run, lambda: all(self._planned(node).exists() for node in nodes))
        return run, time.monotonic()

    def sync(self, way: str, nodes: t.Sequence[str]) -> Measured:
        """Run adapter_sync on the nodes."""
        with self.measuring() as measured:
            run, began = self.start(way, nodes)
            measured.seconds = self._follow(run, began, nodes)
            if run.wait(_LIMIT).rc:
                sys.exit(run.output)
        return measured

    def among_others(self, way: str, nodes: t.Sequence[str], disturb: t.Callable[[Background, str], None]) -> Measured:
        """Disturb the last of the nodes at the beginning, and measure the others."""
        *others, disturbed = nodes
        with self.measuring() as measured:
            run, began = self.start(way, nodes)
            disturb(run, disturbed)
            measured.seconds = self._follow(run, began, others)
        run.kill()
        return measured

    def _follow(self, run: Background, began: float, nodes: t.Iterable[str]) -> dict[str, float]:
        """Return when each node had all bytes, in seconds after the beginning."""
        seconds: dict[str, float] = {}

        def all_have_it() -> bool:
            for node in set(nodes) - set(seconds):
                # The pieces of a swarm arrive in any order: the size says nothing.
                if any(512 * path.stat().st_blocks >= self._weights for path in self._staged(node)):
                    seconds[node] = time.monotonic() - began
            return len(seconds) == len(set(nodes))

        self._wait(run, all_have_it)
        return seconds

    def _staged(self, node: str) -> t.Iterator[pathlib.Path]:
        return (self.root / node / "store" / ADAPTER / "staging").glob(f"*/{WEIGHTS}")

    def half_received(self, run: Background, node: str, size: int) -> None:
        """Return when a node has received half of the bytes."""
        before = self.network.counters(node).received
        self._wait(run, lambda: self.network.counters(node).received - before > size / 2)

    def kill(self, node: str) -> None:
        """End everything on a node, as if its power failed."""
        for pid in self.network.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def revive(self, node: str) -> None:
        self._serve(node)

    def _wait(self, run: Background, condition: t.Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT
        while not condition():
            # It may have ended just after.
            if time.monotonic() > deadline or (run.ended and not condition()):
                sys.exit(run.output)
            time.sleep(_POLL_INTERVAL)


Row = dict[str, t.Any]


class Measurements:
    """The rows of the tables, by way and number of nodes."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows: dict[tuple[int, str], Row] = {}
        # What Ansible does if nothing is missing on the nodes, by their number.
        self._ansible: dict[int, Measured] = {}

    @property
    def rows(self) -> list[Row]:
        return [*self._rows.values()]

    def measure(self, way: str, number: int) -> None:
        load, nodes = LOADS[way][number], self._site.nodes[:number]
        size = self._site.prepare(load, nodes)
        measured = self._site.rsync(nodes) if way == RSYNC else self._site.sync(way, nodes)
        if way != RSYNC and number not in self._ansible:
            self._ansible[number] = self._site.sync(way, nodes)
        rest = Measured() if way == RSYNC else self._ansible[number]
        one_copy = 8 * size / (load.megabits * 1e6)
        row = {
            "nodes": number,
            "way": way,
            "MB": size / 1e6,
            "Mbit/s": load.megabits,
            "seconds to all": measured.until(1),
            "to all": measured.until(1) / one_copy,
            "to 90 %": measured.until(0.9) / one_copy,
            "copies from the source": measured.sent / size,
            "MB through the controller": measured.through / 1e6,
            "Ansible's MB": rest.through / 1e6,
            "CPU seconds": measured.cpu,
            "Ansible's CPU seconds": rest.cpu,
        }
        best = self._rows.get((number, way), row)
        self._rows[number, way] = min(row, best, key=lambda one: one["seconds to all"])
        _log(f"{number} {way}: {row['seconds to all']:.1f} s, {row['to all']:.2f} times one copy")

    def targets(self) -> list[Row]:
        """Return what is measured of the targets, and whether they are met."""
        found = []

        def add(target: str, limit: float, measured: float) -> None:
            found.append({"target": target, "limit": limit, "measured": measured, "met": "yes" if measured <= limit else "no"})

        if (1, RSYNC) in self._rows and (1, DIRECT) in self._rows:
            plain = self._rows[1, RSYNC]["seconds to all"]
            add("direct to one node, to rsync", 1.05, self._rows[1, DIRECT]["seconds to all"] / plain)
        for (number, way), row in self._rows.items():
            if way in (DIRECT, DIRECT_SSH, SWARM) and number == max(of for of, name in self._rows if name == way):
                beyond = row["MB through the controller"] - row["Ansible's MB"]
                add(f"{way} to {number} nodes, MB through the controller beside Ansible's", 1.0, beyond)
        if (16, SWARM) in self._rows:
            add("swarm to 16 nodes, to one copy", 1.6, self._rows[16, SWARM]["to all"])
            add("swarm to 16 nodes, copies from the source", 1.5, self._rows[16, SWARM]["copies from the source"])
        for way, number in DISTURBED.items():
            if (number, way) in self._rows:
                undisturbed = self._rows[number, way]["seconds to all"]
                for what, measured in self._disturbed(way, number).items():
                    add(f"{way} to {number} nodes, {what}: the others, to undisturbed", 1.15, measured.until(1) / undisturbed)
        if (1, DIRECT) in self._rows:
            add("direct, controller killed in the middle, copies from the source", 1.02, self._resumed())
        return found

    def _disturbed(self, way: str, number: int) -> dict[str, Measured]:
        site, load, nodes = self._site, LOADS[way][number], self._site.nodes[:number]
        size = site.prepare(load, nodes)
        slow = site.among_others(way, nodes, lambda run, node: site.network.shape(node, load.megabits / 10))
        site.prepare(load, nodes)

        def kill(run: Background, node: str) -> None:
            site.half_received(run, node, size)
            site.kill(node)

        killed = site.among_others(way, nodes, kill)
        site.revive(nodes[-1])
        return {"one with a tenth of the bandwidth": slow, "one killed in the middle": killed}

    def _resumed(self) -> float:
        """Return how many copies leave the source for one node if the first run is killed."""
        nodes = self._site.nodes[:1]
        size = self._site.prepare(LOADS[DIRECT][1], nodes)
        with self._site.measuring() as measured:
            run, _began = self._site.start(DIRECT, nodes)
            self._site.half_received(run, nodes[0], size)
            run.kill()
            self._site.sync(DIRECT, nodes)
        return measured.sent / size


def _log(text: str) -> None:
    print(f"{text} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"up to {QUICK[-1]} nodes only")
    parser.add_argument("--ways", nargs="+", choices=LOADS, default=[*LOADS])
    parser.add_argument("--nodes", nargs="+", type=int, choices=STAR, default=[*STAR])
    options = parser.parse_args()
    why = shaped_network.lacking() or sshd.lacking()
    if why:
        print(f"bench_ways: not measured: {why}")
        return
    shaped_network.enter()
    numbers = QUICK if options.quick else options.nodes
    ways = []
    for way in options.ways:
        if way == RSYNC or way in TRANSFER["transfer"]["choices"]:
            ways.append(way)
        else:
            print(f"bench_ways: adapter_sync has no way {way}")
    with contextlib.ExitStack() as running:
        measurements = Measurements(Site(shaped_network.FILES, max(numbers), running))
        for number in numbers:
            for way in ways if number > 1 else ROUNDS * ways:
                if number in LOADS[way]:
                    measurements.measure(way, number)
        complete = numbers == [*STAR] and options.ways == [*LOADS]
        show(TITLE, measurements.rows, record=complete)
        show(TARGETS, measurements.targets(), record=complete)


if __name__ == "__main__":
    main()
