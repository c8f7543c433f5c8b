# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts as network namespaces on one bridge, each behind a link of a given rate.

All of it, the names of these namespaces included, is in mount, network and process namespaces that
belong to the program alone. They disappear with it, however it ends, and nothing of the machine's
own network is changed.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

_INSIDE = "LORAFLEET_BENCH_INSIDE"
# The directory of the program's files, in memory. ``ip netns`` keeps its names in /run, too.
FILES = pathlib.Path("/run/bench")
_BRIDGE = "bridge"
_ADDRESS = "10.177.0.{}"
# As a share of a second at the link's rate, but enough for the largest packet that the kernel
# hands over at once.
_BURST, _LOWEST_BURST = 1 / 40, 1 << 16
_QUEUE = "100ms"
_TICKS = os.sysconf("SC_CLK_TCK")


def lacking() -> str:
    """Why no network can be made here, or an empty string if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("unshare", "ip", "tc", "mount") if shutil.which(program) is None]
    return f"no {missing[0]} on this machine" if missing else ""


def enter() -> None:
    """Run this program again in namespaces of its own, unless it is in them."""
    if _INSIDE not in os.environ:
        namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
        os.environ[_INSIDE] = "yes"
        os.execvp("unshare", ["unshare", *namespaces, sys.executable, *sys.argv])  # noqa: S606
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    FILES.mkdir()


class Counters(t.NamedTuple):
    """Bytes that a host has received and sent up to now."""

    received: int
    sent: int


class Network:
    """Hosts by name. Each has an address on the bridge and no route to anywhere else."""

    def __init__(self) -> None:
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        _run("ip", "link", "set", _BRIDGE, "up")
        self.addresses: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Add a host. Its name has at most 15 characters."""
        self.addresses[name] = _ADDRESS.format(len(self.addresses) + 1)
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", name, "master", _BRIDGE, "up")
        _run("ip", "-n", name, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", link, "up")

    def shape(self, name: str, megabits: float) -> None:
        """Set the rate of a host's link, the same each way."""
        burst = max(int(megabits * 1e6 / 8 * _BURST), _LOWEST_BURST)
        shaped = ("root", "tbf", "rate", f"{megabits * 1e6:.0f}", "burst", str(burst), "latency", _QUEUE)
        _run("tc", "qdisc", "replace", "dev", name, *shaped)
        _run("tc", "-n", name, "qdisc", "replace", "dev", "eth0", *shaped)

    def within(self, name: str) -> list[str]:
        """The command that starts another one on a host."""
        return ["ip", "netns", "exec", name]

    def processes(self, name: str) -> list[int]:
        """The processes of a host."""
        return [int(pid) for pid in _run("ip", "netns", "pids", name).split()]

    def counters(self, name: str) -> Counters:
        [link] = json.loads(_run("ip", "-json", "-statistics", "link", "show", "dev", name))
        # This is the end at the bridge.
        return Counters(link["stats64"]["tx"]["bytes"], link["stats64"]["rx"]["bytes"])


def cpu_seconds() -> float:
    """The CPU time of all processes up to now, those that have ended included."""
    found = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        # Of the process and of its children that have ended, each as user and in the kernel. This
        # process is the first one of its namespace, and gets the children of those that have ended.
        found += sum(map(int, fields[11:15]))
    return found / _TICKS


def _run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
