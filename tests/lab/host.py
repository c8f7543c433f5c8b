# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of the lab, controlled from this machine: files, processes, link, mounts, power."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import typing as t

_CONTAINERS_CONF = pathlib.Path(__file__).resolve().parents[2] / "extensions" / "molecule" / "containers.conf"
# The environment of podman.
CONTAINERS = {"CONTAINERS_CONF": str(_CONTAINERS_CONF)}
_LIMIT = 60
_CHUNK = 64 << 10
# Slow enough to catch a transfer of a few MiB on any machine.
_SLOW = ("tbf", "rate", "4mbit", "burst", "32kb", "latency", "1s")


def command(*argv: str | pathlib.Path) -> str:
    """The stdout of a command on this machine, which must succeed."""
    environment = {**os.environ, **CONTAINERS}
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=_LIMIT, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


def running() -> bool:
    """Whether the lab is up."""
    return "lorafleet-lab-" in command("podman", "ps", "--format", "{{.Names}}")


class Host:
    """One host. ``undo`` holds the callbacks that repair it after a test."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.container = f"lorafleet-lab-{name}"
        self.undo = contextlib.ExitStack()
        self._pid = 0
        self._mounted: list[str] = []

    @property
    def pid(self) -> int:
        """The PID of the host's first process; 0 when the host is down."""
        if not self._pid or not pathlib.Path("/proc", str(self._pid), "root").exists():
            self._pid = int(command("podman", "inspect", "--format", "{{.State.Pid}}", self.container))
        return self._pid

    def path(self, path: str) -> pathlib.Path:
        """The path by which this machine reaches a path of the host, through its mounts."""
        return pathlib.Path(f"/proc/{self.pid}/root{path}")

    @property
    def home(self) -> pathlib.Path:
        return self.path("/home")

    def run(self, *argv: str) -> str:
        """Run a command on the host as root."""
        return command("nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--", *argv)

    def processes(self, *names: str) -> list[int]:
        """The PIDs of the host's processes with one of these names."""
        found, inside = [], os.readlink(f"/proc/{self.pid}/ns/pid")
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                first = os.fsdecode((path / "cmdline").read_bytes().split(b"\0")[0])
                if os.readlink(path / "ns" / "pid") == inside and os.path.basename(first.split(" ")[0]) in names:
                    found.append(int(path.name))
        return found

    def process(self, inside: int) -> int:
        """This machine's PID of a process, given its PID inside the host."""
        for path in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = next(line.split()[1:] for line in path.read_text().splitlines() if line.startswith("NSpid:"))
                same = os.readlink(path.with_name("ns") / "pid") == os.readlink(f"/proc/{self.pid}/ns/pid")
                if same and int(numbers[-1]) == inside:
                    return int(path.parent.name)
        raise ProcessLookupError(f"{self.name} has no process {inside}")

    def signal(self, number: signal.Signals, processes: t.Iterable[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def cut(self) -> None:
        """Break all connections to the host."""
        self.signal(signal.SIGKILL, self.sessions())

    def sessions(self) -> list[int]:
        """The sshd processes of connections; the listening one is the host's first process."""
        return [process for process in self.processes("sshd:") if process != self.pid]

    def limit_bandwidth(self) -> None:
        """Limit the bandwidth to this host."""
        command("tc", "qdisc", "replace", "dev", self._port(), "root", *_SLOW)
        self.undo.callback(self.restore_bandwidth)

    def restore_bandwidth(self) -> None:
        with contextlib.suppress(RuntimeError):
            command("tc", "qdisc", "del", "dev", self._port(), "root")

    def _port(self) -> str:
        """This machine's end of the host's link."""
        [link] = json.loads(command("nsenter", "--target", str(self.pid), "--net", "ip", "-json", "link", "show", "eth0"))
        found = json.loads(command("ip", "-json", "link"))
        return str(next(one["ifname"] for one in found if one["ifindex"] == link["link_index"]))

    def link(self, state: str) -> None:
        """Set the host's link ``up`` or ``down``."""
        self.run("ip", "link", "set", "eth0", state)
        if state == "down":
            self.undo.callback(self.link, "up")

    def log_in_with_umask(self, umask: str) -> None:
        """Set the umask of the login user, and of root through sudo."""
        shell, sudoers = "/usr/local/bin/lab-sh", "/etc/sudoers.d/umask"
        self.path(shell).write_text(f'#!/bin/sh\numask {umask}\nexec /bin/sh "$@"\n', encoding="utf-8")
        self.path(shell).chmod(0o755)
        self.path(sudoers).write_text(f"Defaults umask={umask}, umask_override\n", encoding="utf-8")
        self.path(sudoers).chmod(0o440)
        self.run("usermod", "--shell", shell, "deploy")
        self.undo.callback(self.cut)
        self.undo.callback(self.run, "usermod", "--shell", "/bin/sh", "deploy")
        self.undo.callback(self.run, "rm", shell, sudoers)
        # Open connections still have the former shell.
        self.cut()

    def power_off(self) -> None:
        """Power off: no packet leaves the host any more, so that its peers do not notice."""
        self.run("ip", "link", "set", "eth0", "down")
        command("podman", "kill", self.container)
        self.undo.callback(self.start)

    def start(self) -> None:
        if not self.pid:
            command("podman", "start", self.container)

    def repair(self) -> None:
        """Undo what a test did to the host and kill the processes that it left."""
        self.undo.close()
        self.signal(signal.SIGKILL, self.processes("rsync", "python3"))

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, 22), timeout=1):
            return True
        return False

    def mount(self, options: str, path: str = "/home") -> None:
        """Mount a tmpfs with these options over a directory, with a copy of its contents."""
        held = self.path(path)
        with contextlib.ExitStack() as stack:
            before = os.open(held, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, before)
            self.run("mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "none", path)
            self._mounted.append(path)
            self.undo.callback(self.unmount, path)
            command("cp", "-a", f"/proc/{os.getpid()}/fd/{before}/.", held)

    def unmount(self, path: str = "/home") -> None:
        # The test may have unmounted it itself.
        if path in self._mounted:
            self._mounted.remove(path)
            self.run("umount", "--lazy", path)

    def fill(self, left: int = 0) -> None:
        """Fill the file system of /home up to ``left`` free bytes."""
        with (self.home / "filler").open("wb") as stream:
            room = os.fstatvfs(stream.fileno())
            size = room.f_bavail * room.f_frsize - left
            # Another process may be writing at the same time.
            while size >= _CHUNK:
                try:
                    os.posix_fallocate(stream.fileno(), 0, size)
                    break
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size -= _CHUNK

    def use_up_inodes(self) -> None:
        """Use up the inodes of the file system of /home."""
        fillers = self.home / "fillers"
        fillers.mkdir()
        for number in itertools.count():
            try:
                (fillers / str(number)).touch()
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                break

    def make_room(self) -> None:
        """Undo ``fill`` and ``use_up_inodes``."""
        (self.home / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.home / "fillers", ignore_errors=True)
