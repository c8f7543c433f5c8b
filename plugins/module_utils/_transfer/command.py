# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""Runs the site's command, which brings the files of an adapter into its staging directory.

Nothing is believed of what the command says: the files are compared with the manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import time
import typing as t

from .channel import die_with_parent, end_with_controller, tell
from .staged import Entry, Unusable, arrived, has_hash, hold, is_own, open_below

# Seconds between two looks at what has arrived.
_INTERVAL = 0.5
# What is kept of the command's output: the beginning and the end, in bytes each.
_OUTPUT = 4096
# How often its output is read once it has ended: what it has started may print without end.
_LAST_READS = 64
# What a command may write beyond the files, for instance unpacked or as logs, in bytes.
_SPARE = 16 << 20
# Seconds to wait for a process that was killed.
_KILL_TIMEOUT = 10
# The file list, in the working directory.
FILE_LIST = "files.json"


def main(job: dict[str, t.Any]) -> None:
    """Bring the files of one adapter.

    ``job`` has the command (``argv``), the paths of the ``staging`` directory and of the command's
    working directory (``work``), the content of the file list (``list``) with the ``files`` to
    bring, the paths of all files of the manifest (``known``), and the seconds of ``lease``.
    Answers with ``bytes``, the number of bytes that have arrived, and at the end with the
    ``problem``, which is empty if there is none, and ``output``.
    """
    os.umask(0o077)
    staging, work = job["staging"], job["work"]
    try:
        # Inherited by the command and by what it starts: another run must not write there before
        # the last of them has ended.
        held = hold(staging)
    except Unusable as exc:
        tell(problem=str(exc), output="")
        return
    try:
        problem, output = _run(job, held)
    except OSError as exc:
        problem, output = f"{exc.filename or staging}: {exc.strerror}", ""
    # What a killed run leaves there is removed by the next one's plan.
    shutil.rmtree(work, ignore_errors=True)
    tell(problem=problem, output=output)


def _run(job: dict[str, t.Any], held: int) -> tuple[str, str]:
    """Return what went wrong and what the command printed."""
    staging, work, files = job["staging"], job["work"], job["list"]["files"]
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work)
    with open(os.path.join(work, FILE_LIST), "w", encoding="utf-8") as stream:
        json.dump(job["list"], stream)
    guard = _Guard()
    most = 2 * sum(entry["size"] for entry in files) + _SPARE
    before = arrived(staging, files)
    try:
        process = subprocess.Popen(
            job["argv"],
            cwd=work,
            env=dict(os.environ, TMPDIR=work),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),
            start_new_session=True,
            preexec_fn=lambda: _confine(most, guard),
        )
    except OSError as exc:
        guard.dismiss()
        return f"{job['argv'][0]} cannot be run: {exc.strerror}", ""
    end_with_controller(job["lease"], lambda: _kill(process))
    printed = _Output()
    try:
        problem = _watch(process, printed, staging, work, files, before, most)
    finally:
        # Also what the command has left running.
        _kill(process)
        guard.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_TIMEOUT)
    # Also of one that failed: another way may go on with what is there.
    removed = _clean(staging, set(job["known"]))
    if removed and not problem:
        problem = f"{removed[0]} is no plain file of its own that belongs to this user"
    if not problem:
        problem = next(filter(None, (_difference(staging, entry) for entry in files)), "")
    return problem, printed.text()


def _confine(most: int, guard: _Guard) -> None:
    """Confine this process, which becomes the command."""
    # Before the command starts: it may start others at once.
    guard.watch_over_this()
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class _Guard:
    """A process that kills the command, and what it has started, if this process is killed.

    The kernel alone would kill the command only.
    """

    def __init__(self) -> None:
        end, self._to_guard = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(end)
            return
        try:
            os.setsid()
            for descriptor in map(int, os.listdir("/proc/self/fd")):
                if descriptor != end:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            group = b""
            while data := os.read(end, 64):
                group += data
            if group:
                os.killpg(int(group), signal.SIGKILL)
        finally:
            os._exit(0)

    def watch_over_this(self) -> None:
        """Name the process that calls, which leads the group of the command."""
        os.write(self._to_guard, b"%d" % os.getpid())

    def dismiss(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._to_guard)


class _Output:
    """The beginning and the end of what a program printed."""

    def __init__(self) -> None:
        self._first, self._last, self._skipped = b"", b"", False

    def add(self, block: bytes) -> None:
        space = _OUTPUT - len(self._first)
        self._first, rest = self._first + block[:space], block[space:]
        self._skipped = self._skipped or len(self._last) + len(rest) > _OUTPUT
        self._last = (self._last + rest)[-_OUTPUT:]

    def text(self) -> str:
        return (self._first + (b" ... " if self._skipped else b"") + self._last).decode(errors="replace")


def _watch(
    process: subprocess.Popen[bytes],
    printed: _Output,
    staging: str,
    work: str,
    files: list[Entry],
    before: int,
    most: int,
) -> str:
    """Wait for the command; return what went wrong."""
    output = t.cast("t.IO[bytes]", process.stdout).fileno()
    os.set_blocking(output, False)
    ready = select.poll()
    ready.register(output, select.POLLIN)
    shown, looked = 0, 0.0
    while process.poll() is None:
        if ready.poll(1000 * _INTERVAL):
            block = _read(output)
            printed.add(block)
            if not block:
                # It has closed its output, and goes on.
                ready.unregister(output)
        if time.monotonic() - looked < _INTERVAL:
            continue
        looked = time.monotonic()
        if _usage(staging) + _usage(work) > most + sum(entry["size"] for entry in files):
            return "it wrote more than the files of the adapter"
        now = arrived(staging, files) - before
        if now > shown:
            tell(bytes=now)
            shown = now
    for _number in range(_LAST_READS):
        printed.add(_read(output))
    # Also of a command that failed: the next way goes on from there.
    now = arrived(staging, files) - before
    if now > shown:
        tell(bytes=now)
    if process.returncode < 0:
        return f"it was ended by signal {-process.returncode}"
    if process.returncode:
        return f"it ended with status {process.returncode}"
    return ""


def _read(output: int) -> bytes:
    try:
        return os.read(output, 1 << 16)
    except BlockingIOError:
        return b""


def _usage(directory: str) -> int:
    """The bytes that the files in a directory take on the disk."""
    found = 0
    for parent, _directories, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                found += 512 * os.lstat(os.path.join(parent, name)).st_blocks
    return found


def _clean(staging: str, known: set[str]) -> list[str]:
    """Leave nothing there but plain files of the manifest without a second name.

    What writes to another one might write to a file elsewhere. Returns which of the ``known`` ones
    were removed.
    """
    removed = []
    parents = {os.path.dirname(path) for path in known}
    for parent in sorted(parents | {""}):
        directory = os.path.join(staging, parent) if parent else staging
        if os.path.islink(directory) or not os.path.isdir(directory):
            _remove(directory)
            os.mkdir(directory)
        os.chmod(directory, 0o700)
        for name in os.listdir(directory):
            path = os.path.join(parent, name)
            if path in parents or (path in known and is_own(os.lstat(os.path.join(staging, path)))):
                continue
            _remove(os.path.join(staging, path))
            if path in known:
                removed.append(path)
    return removed


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _difference(staging: str, entry: Entry) -> str:
    """What is wrong with a file. It is removed if it cannot be the beginning of the right one."""
    try:
        descriptor = open_below(staging, entry["path"], os.O_RDONLY)
    except FileNotFoundError:
        return f"{entry['path']} is missing after it"
    with open(descriptor, "rb", buffering=0) as stream:
        size = os.fstat(descriptor).st_size
        if size < entry["size"]:
            return f"{entry['path']} has {size} of {entry['size']} bytes"
        if size > entry["size"] or not has_hash(stream, entry):
            _remove(os.path.join(staging, entry["path"]))
            return f"{entry['path']} is another file than the manifest describes"
    return ""
