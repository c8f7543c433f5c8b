# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts as groups of processes, each with a fixed share of this machine's processors.

A host that is idle lends its share to nobody, as with separate machines. The groups are control
groups of the kernel, of either version.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
import typing as t

_ROOT = pathlib.Path("/sys/fs/cgroup")
# Version 1 has a hierarchy for each controller.
_VERSION_1 = _ROOT / "cpu"
# Microseconds: the kernel's own default.
_PERIOD = 100_000
# Seconds in which killed processes have to end.
_LIMIT = 10


def lacking() -> str:
    """Why no shares can be given here, or an empty string if they can."""
    if os.geteuid() != 0:
        return "control groups need root"
    controllers = _ROOT / "cgroup.subtree_control"
    version_2 = controllers.exists() and "cpu" in controllers.read_text(encoding="utf-8").split()
    return "" if _VERSION_1.exists() or version_2 else "no control groups for processors are mounted"


class Host:
    """A group of processes. Whatever they start belongs to it, too."""

    def __init__(self, name: str, processors: float) -> None:
        version_1 = _VERSION_1.exists()
        self._group = (_VERSION_1 if version_1 else _ROOT) / f"bench-{os.getpid()}-{name}"
        self._group.mkdir()
        quota = str(int(processors * _PERIOD))
        if version_1:
            (self._group / "cpu.cfs_period_us").write_text(str(_PERIOD), encoding="utf-8")
            (self._group / "cpu.cfs_quota_us").write_text(quota, encoding="utf-8")
        else:
            (self._group / "cpu.max").write_text(f"{quota} {_PERIOD}", encoding="utf-8")

    def within(self) -> list[str]:
        """The command that starts another one on this host."""
        return ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh"]

    @contextlib.contextmanager
    def entered(self) -> t.Iterator[None]:
        """Make this program a process of this host."""
        self._put(self._group)
        try:
            yield
        finally:
            self._put(self._group.parent)

    def _put(self, group: pathlib.Path) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")

    def end(self) -> None:
        """End what still runs on this host, for instance kept connections, and the host."""
        deadline = time.monotonic() + _LIMIT
        while pids := (self._group / "cgroup.procs").read_text(encoding="utf-8").split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the processes {' '.join(pids)} do not end")
        self._group.rmdir()


@contextlib.contextmanager
def host(name: str, processors: float) -> t.Iterator[Host]:
    """A host that ends with the block."""
    made = Host(name, processors)
    try:
        yield made
    finally:
        made.end()
