# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Complete deliveries to three nodes, compared with doing it by hand or with a plain role."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import installed_rsync  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End, transfer  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.rsync import TransferOptions  # noqa: E402

from tests.benchmarks.loopback import AGENTS, WEIGHTS, Loopback  # noqa: E402
from tests.benchmarks.side_by_side import Action, measure, show  # noqa: E402
from tests.support import sshd, tiny_adapters  # noqa: E402
from tests.support.fleet import Fleet  # noqa: E402
from tests.support.playbooks import Run  # noqa: E402

# The minimum of "can be loaded with PEFT": import everything and read every tensor.
LOAD = """
import sys, torch, safetensors, transformers, peft
import transformers.models.llama.modeling_llama
with safetensors.safe_open(sys.argv[1], "pt") as opened:
    for name in opened.keys():
        opened.get_tensor(name).sum()
"""
PLAIN_ROLE = """
- hosts: agents
  gather_facts: false
  tasks:
    - name: Copy the adapters
      ansible.posix.synchronize: {src: "{{ source }}/{{ item.name }}/", dest: "{{ agent_models_dir }}/{{ item.name }}/"}
      loop: "{{ agent_adapters }}"
    - name: Hash the weights on the node
      stat: {path: "{{ agent_models_dir }}/{{ item.name }}/adapter_model.safetensors", checksum_algorithm: sha256}
      loop: "{{ agent_adapters }}"
      register: there
    - name: Hash the weights on the training server
      stat: {path: "{{ source }}/{{ item.name }}/adapter_model.safetensors", checksum_algorithm: sha256}
      loop: "{{ agent_adapters }}"
      delegate_to: sbs29
      register: here
    - name: Compare
      assert: {that: item.0.stat.checksum == item.1.stat.checksum, quiet: true}
      loop: "{{ there.results | zip(here.results) }}"
"""
# The rate of a link of 400 Mbit/s to each node, in the notation of rsync.
LINK = "48M"
EMPTY = "- {hosts: agents, gather_facts: false}\n"
# The default of Ansible: one module on each node.
WITH_FACTS = "- {hosts: agents, gather_facts: true}\n"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stderr}")


def by_hand(fleet: Loopback, *options: str, verify: bool = True) -> None:
    """Copy each adapter in turn, compare its bytes, and load it on the node."""
    for name, (node, _label) in fleet.adapters.items():
        *ssh, host = fleet.ssh(node)
        served = fleet.home(node) / "models" / name
        run("rsync", *options, "-e", shlex.join(ssh), f"{fleet.source / name}/", f"{host}:{served}/")
        if verify:
            run("sha256sum", str(fleet.source / name / WEIGHTS))
            run(*ssh, host, f"sha256sum {served / WEIGHTS}")
            run(*ssh, host, shlex.join([tiny_adapters.PEFT_PYTHON, "-I", "-c", LOAD, str(served / WEIGHTS)]))


def compare_deliveries(fleet: Loopback, place: str = "", links: bool = True) -> None:
    """Measure deliveries in turns with what they replace. ``place`` is added to the titles."""
    for name, text in (("plain_role", PLAIN_ROLE), ("empty", EMPTY), ("with_facts", WITH_FACTS)):
        (fleet.root / f"{name}.yml").write_text(text, encoding="utf-8")

    def plain(name: str) -> Run:
        return fleet.play(str(fleet.root / name), "-e", f"source={fleet.source}")

    def deploy(level: str, *arguments: str) -> Run:
        return fleet.play("deploy", "-e", f"agent_level={level}", *arguments)

    measure(
        f"First delivery of six adapters, 1.4 GB, to three nodes, loaded with PEFT (level adapter){place}",
        {
            "by hand: rsync -az, sha256sum at both ends and a PEFT script for each adapter": Action(
                lambda: by_hand(fleet, "-az"), fleet.empty
            ),
            "deploy": Action(lambda: deploy("adapter"), fleet.empty),
        },
        rounds=2,
    )
    if links:
        measure(
            f"The same, each stream held to {LINK}B a second",
            {
                "by hand": Action(lambda: by_hand(fleet, "-az", f"--bwlimit={LINK}"), fleet.empty),
                "deploy": Action(lambda: deploy("adapter", "-e", f"agent_transfer_bwlimit={LINK}"), fleet.empty),
            },
            rounds=1,
        )
    measure(
        f"The same without PEFT (level structure){place}",
        {
            "a role of ansible.posix.synchronize and stat": Action(lambda: plain("plain_role"), fleet.empty),
            "deploy": Action(lambda: deploy("structure"), fleet.empty),
        },
        rounds=2,
    )

    def compare() -> None:
        by_hand(fleet, "-ac", "--dry-run", verify=False)
        plain("empty")

    measure(
        f"Nothing to do, every byte hashed again{place}",
        {
            "six rsync -ac --dry-run in turn, and an empty play": Action(compare),
            "an empty play": Action(lambda: plain("empty")),
            "an empty play that gathers facts": Action(lambda: plain("with_facts")),
            "deploy": Action(lambda: deploy("structure")),
        },
        rounds=3,
    )


def one_stream(fleet: Loopback, server: sshd.Server) -> None:
    """The files of one adapter, without Ansible."""
    # As adapter_sync hears it from the node. Without the version, both ends use slower checksums.
    options = TransferOptions(60, node_rsync=installed_rsync().version)
    name, (node, _label) = [*fleet.adapters.items()][-1]
    source, target = fleet.source / name, fleet.root / "stream"
    *ssh, host = fleet.ssh(node)

    def plain() -> None:
        run("rsync", "-aW", "-e", shlex.join(ssh), f"{source}/", f"{host}:{target}/")

    def ours() -> None:
        names = [path.name for path in source.iterdir()]
        outcome = transfer(End(None), End(server.options()), names, str(source), str(target), options)
        if outcome.returncode:
            sys.exit(outcome.reason(60))

    def empty() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    measure(
        "One adapter of rank 32 for an 8B base in one stream",
        {"rsync -aW": Action(plain, empty), "the transfer of adapter_sync": Action(ours, empty)},
        rounds=5,
    )


def received(done: Run, node: str) -> int:
    return int(done.of(node, "adapter_sync")["wire_bytes"])


def bytes_sent(fleet: Loopback) -> None:
    """Count the bytes on the wire after a training, and after an interrupted transfer."""
    name, (node, _label) = next(iter(fleet.adapters.items()))
    weights = fleet.source / name / WEIGHTS
    options = ("--limit", node, "-e", "agent_level=structure")
    fleet.train(name, seed=1)
    size = weights.stat().st_size
    retrained = received(fleet.play("deploy", *options), node)

    fleet.train(name, seed=2)
    background = fleet.start("deploy", *options)
    staging = fleet.home(node) / ".lorafleet" / name / "staging"
    arrived = 0
    while arrived < size // 2:
        if background.ended:
            sys.exit(f"the transfer was over before it was half done\n{background.output}")
        for path in staging.glob(f"*/{WEIGHTS}"):
            arrived = path.stat().st_size
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"rsync" and any(str(staging).encode() in word for word in words):
            os.kill(int(process.name), signal.SIGKILL)
    background.kill()
    [partial] = staging.glob(f"*/{WEIGHTS}")
    missing = size - partial.stat().st_size
    resumed = received(fleet.play("deploy", *options), node)
    show(
        "Bytes on the wire",
        [
            {"what": "other weights, the same tokenizer", "needed": size, "received": retrained, "ratio": retrained / size},
            {"what": "resumed after kill -9 of the receiver", "needed": missing, "received": resumed, "ratio": resumed / missing},
        ],
    )


def many_nodes(root: pathlib.Path, server: sshd.Server) -> None:
    """Measure what a run with nothing to do costs the controller, for growing numbers of nodes."""
    rows = []
    for number in (3, 10, 50):
        fleet = Fleet(root / str(number), tiny_adapters.cached())
        fleet.members["jw2"].clear()
        fleet.members["jw3"].clear()
        for node in (f"node-{one}" for one in range(number)):
            control = {"ansible_control_path": f"%(directory)s/{node}-%%p"}
            fleet.add_node("jw2", node, **server.variables(), **control)
        fleet.deploy()
        before = os.times()
        done = fleet.deploy()
        after = os.times()
        cpu = sum(after[2:4]) - sum(before[2:4])
        tasks = len({entry["task"] for entry in done.results})
        rows.append({"nodes": number, "CPU seconds": cpu, "a node": cpu / number, "tasks": tasks})
    show("CPU seconds of the controller for a run with nothing to do", rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        for name in ("sshd", "fleet"):
            (root / name).mkdir()
        with sshd.running(root / "sshd") as server:
            fleet = Loopback(root / "fleet", dict.fromkeys(AGENTS, server))
            fleet.empty()
            one_stream(fleet, server)
            compare_deliveries(fleet)
            bytes_sent(fleet)
            shutil.rmtree(root / "fleet")
            many_nodes(root, server)


if __name__ == "__main__":
    main()
