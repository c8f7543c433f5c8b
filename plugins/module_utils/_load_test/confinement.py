# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Confine the process that loads adapters, before its program starts.

Namespaces need root, and a container may forbid them even then. The load test goes on without, and
its result says which were in force.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import resource
import signal
import typing as t

from .._isolation import IPC, NETWORK, PIDS
from .._linux import capabilities, namespaces, prctl

if t.TYPE_CHECKING:
    from .loading_user import LoadingUser

_NAMESPACES = {
    NETWORK: namespaces.NETWORK,
    IPC: namespaces.IPC,
    # The processes of a PID namespace need a /proc of their own.
    PIDS: namespaces.PIDS | namespaces.MOUNTS,
}
# Bytes: what a library may cache in its home directory, which is in memory.
_LARGEST_HOME = 1 << 30
# Threads count too: several pools of as many threads as the host has cores.
_MOST_PROCESSES = 4096
# A process may attach to another one only if it has all capabilities of that one, which no process
# of an ordinary user has. These give no power over the host. Containers often permit the second.
_GUARDS = (capabilities.WAKE_ALARM, capabilities.NET_BIND_SERVICE)


@functools.lru_cache(maxsize=None)
def available_isolation() -> tuple[str, ...]:
    """Return what this process can isolate a load test from, as tried in children."""
    if os.geteuid() != 0:
        return ()
    return tuple(name for name in _NAMESPACES if _succeeds(functools.partial(_try, name)))


def _try(name: str) -> None:
    namespaces.unshare(_NAMESPACES[name])
    if name == NETWORK:
        namespaces.start_loopback()
    if name == PIDS:
        namespaces.keep_mounts_here()
        if not _succeeds(namespaces.mount_proc):
            raise OSError


def _succeeds(attempt: t.Callable[[], None]) -> bool:
    """Return whether a function raises nothing in a child of this process."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        attempt()
        status = 0
    finally:
        os._exit(status)


@dataclasses.dataclass(frozen=True)
class Confinement:
    """How a process is confined that runs as ``user``, None for the user of this process.

    ``isolation`` names what it is isolated from. ``home`` is its working directory; isolated from
    PIDs, it is empty and in memory. The process cannot write files longer than ``largest_file``.
    """

    user: LoadingUser | None
    home: str
    isolation: tuple[str, ...]
    largest_file: int | None

    def enter(self) -> None:
        """Confine this process, a child between fork and exec. Raises OSError."""
        prctl.die_with_parent()
        # A core dump would be as large as the base.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.isolation:
            wanted = functools.reduce(int.__or__, map(_NAMESPACES.__getitem__, self.isolation))
            namespaces.unshare(wanted & ~namespaces.MOUNTS)
        if NETWORK in self.isolation:
            namespaces.start_loopback()
        if PIDS in self.isolation:
            _continue_in_pid_namespace()
            # Not before: what is mounted here is no /proc for the processes outside.
            namespaces.unshare(namespaces.MOUNTS)
            namespaces.keep_mounts_here()
            namespaces.mount_proc()
            user, group = (self.user.uid, self.user.gid) if self.user else (os.geteuid(), os.getegid())
            namespaces.mount_tmpfs(self.home, _LARGEST_HOME, user, group)
            os.chdir(self.home)
        # When memory runs out, the kernel ends this process first, whichever process used it up.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
            stream.write("1000")
        if self.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file))
        if self.user is not None:
            if self.user.throw_away:
                resource.setrlimit(resource.RLIMIT_NPROC, (_MOST_PROCESSES, _MOST_PROCESSES))
            permitted = capabilities.permitted()
            guard = next((one for one in _GUARDS if permitted >> one & 1), None)
            capabilities.become(self.user.uid, self.user.gid, self.user.groups, guard)
            # The new user has undone the first call.
            prctl.die_with_parent()
        prctl.forbid_new_privileges()


def _continue_in_pid_namespace() -> None:
    """Return in a child in the new PID namespace. This process then ends as that child does.

    Between them is the first process of the namespace. If the child was the first one, signals
    would have other effects on it. When the first one ends, all others of the namespace are killed.
    """
    reading, writing = os.pipe()
    first = os.fork()
    try:
        if first:
            _close_all_but(reading)
            ended = os.read(reading, 4)
            os.waitpid(first, 0)
            # Without a status, the first process was killed.
            _end_with(int.from_bytes(ended, "big") if ended else signal.SIGKILL)
        prctl.die_with_parent()
        child = os.fork()
        if child:
            _close_all_but(writing)
            pid = status = 0
            # Orphans end here too.
            while pid != child:
                pid, status = os.waitpid(-1, 0)
            os.write(writing, status.to_bytes(4, "big"))
    except BaseException:
        os._exit(1)
    if child:
        os._exit(0)


def _end_with(status: int) -> t.NoReturn:
    """End this process with the wait status of another one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # SIGKILL has no handler that could be removed.
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _close_all_but(kept: int) -> None:
    """Close descriptors: a reader of a pipe must not wait for this process to end."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor != kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
