# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fault at every system call of a scenario, one run for each, and what it broke."""

from __future__ import annotations

import typing as t

from tests.crash.scenarios import Stage
from tests.crash.traced import Call, calls_of, run_with_fault

KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"

# By what they do on the disk. Some are made by other versions of Python, or on other machines, only.
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
_CALLS = (*_CHANGE, *_FLUSH, *_READ)


def violations(stage: Stage, fault: str, every: bool = False) -> t.Iterator[list[str]]:
    """What each run broke: the one without a fault, then one for each call to strike at.

    An input/output error is for calls that take no space, or C(every) one, those that only read too.
    """
    stage.keep()
    stage.prelude()
    ended, calls = calls_of(stage.run, _CALLS, stage.node.base)
    found = stage.violations(ended)
    if ended.code != 0:
        found.append(f"failed without a fault: {ended.message}")
    yield found
    seen: set[str] = set()
    for call in _where(fault, calls, every):
        where = f"{fault} at {call.name} number {call.number} ({call.arguments[:200]})"
        yield [f"{where}: {what}" for what in _strike(stage, call, fault, seen)]


def _strike(stage: Stage, call: Call, fault: str, seen: set[str]) -> list[str]:
    """What one fault broke, at once and after another run. C(seen) are the states of the disk that led to another run before."""
    stage.reset()
    ended = run_with_fault(stage.run, call, fault)
    found = stage.violations(ended, fsync_failed=fault != KILL and call.name in _FLUSH)
    if fault == KILL and ended.code is not None:
        found.append("was not killed")
    state = stage.disk()
    if state not in seen:
        seen.add(state)
        found += stage.violations_after_another_run()
        if fault == KILL:
            stage.reset()
            run_with_fault(stage.run, call, fault)
            found += stage.violations_after_another_release()
    return found


def _where(fault: str, calls: t.Iterable[Call], every: bool) -> t.Iterator[Call]:
    # Only where something changed since the last one: a kill before each of two reads finds the same disk.
    changed = True
    for call in calls:
        if fault == KILL:
            strikes = changed and (changes(call) or call.name in _FLUSH)
        elif fault == ENOSPC:
            strikes = call.name in _TAKE_SPACE and changes(call)
        else:
            strikes = every or call.name in _FLUSH or (changes(call) and call.name not in _TAKE_SPACE)
        if strikes:
            yield call
            changed = False
        changed = changed or changes(call)


def changes(call: Call) -> bool:
    """True for a call that changes what is on the disk."""
    if call.name == "openat":
        return "O_CREAT" in call.arguments or "O_TRUNC" in call.arguments
    if call.name == "ioctl":
        return "FICLONE" in call.arguments
    return call.name in _CHANGE
