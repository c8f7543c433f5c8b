# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of a scenario for each system call with a fault, and the invariants it violates."""

from __future__ import annotations

import typing as t

from tests.crash.scenarios import Stage
from tests.crash.traced import Call, calls_of, run_with_fault

KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"

# System calls by their effect on the disk. Some occur only with other versions of Python or on
# other machines.
_FLUSH = ("fsync", "fdatasync")
_TAKE_SPACE = (
    *("mkdir", "mkdirat", "openat", "write", "pwrite64", "ioctl", "copy_file_range", "sendfile"),
    *("rename", "renameat", "renameat2", "symlink", "symlinkat"),
)
_CHANGE = (
    *_TAKE_SPACE,
    *("ftruncate", "fchmod", "fchmodat", "chmod", "chown", "fchown", "fchownat", "unlink", "unlinkat", "rmdir"),
)
_READ = ("read", "getdents64", "flock", "close")
CALLS = (*_CHANGE, *_FLUSH, *_READ)


def violations(stage: Stage, fault: str, every: bool = False) -> t.Iterator[list[str]]:
    """Yield the violations of a run without a fault, then of one run for each call with a fault.

    EIO is injected into calls that change the disk without taking space and, with ``every``, into
    all others, reads included.
    """
    stage.save()
    stage.prelude()
    ended, calls = calls_of(stage.run, CALLS, stage.node.base)
    found = stage.violations(ended)
    if ended.code != 0:
        found.append(f"failed without a fault: {ended.message}")
    yield found
    seen: set[str] = set()
    for call in _targets(fault, calls, every):
        where = f"{fault} at {call.name} number {call.number} ({call.arguments[:200]})"
        yield [f"{where}: {what}" for what in _inject(stage, call, fault, seen)]


def _inject(stage: Stage, call: Call, fault: str, seen: set[str]) -> list[str]:
    """Return the violations after one fault, and after another run.

    ``seen`` holds the states of the disk for which another run has been tried.
    """
    stage.reset()
    ended = run_with_fault(stage.run, call, fault)
    found = stage.violations(ended, fsync_failed=fault != KILL and call.name in _FLUSH)
    if fault == KILL and ended.code is not None:
        found.append("the run was not killed")
    state = stage.disk()
    if state not in seen:
        seen.add(state)
        found += stage.violations_after_another_run()
        if fault == KILL:
            stage.reset()
            run_with_fault(stage.run, call, fault)
            found += stage.violations_after_another_release()
    return found


def _targets(fault: str, calls: t.Iterable[Call], every: bool) -> t.Iterator[Call]:
    # Only if the disk changed since the last target: kills before two consecutive reads leave the
    # same disk.
    changed = True
    for call in calls:
        if fault == KILL:
            targeted = changed and (changes(call) or call.name in _FLUSH)
        elif fault == ENOSPC:
            targeted = call.name in _TAKE_SPACE and changes(call)
        else:
            targeted = every or call.name in _FLUSH or (changes(call) and call.name not in _TAKE_SPACE)
        if targeted:
            yield call
            changed = False
        changed = changed or changes(call)


def changes(call: Call) -> bool:
    """Return whether a call changes the content of the disk."""
    if call.name == "openat":
        return "O_CREAT" in call.arguments or "O_TRUNC" in call.arguments
    if call.name == "ioctl":
        return "FICLONE" in call.arguments
    return call.name in _CHANGE
