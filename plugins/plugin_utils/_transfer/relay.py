# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Transfers files from one host to another by two rsync processes that the controller connects.

The node runs the rsync client, the source the server. Neither host needs the address of the other
or a key for it: each is connected only to the controller, over Ansible's connection settings for
that host, or as a local process. The data is streamed, never stored on the controller::

    source: rsync --server --sender FILES  ---->  controller  ---->  rsync :NAMES STAGING/ :node
                                           <----              <----

At both ends, rsync runs as the user that modules run as there. So the files on the node belong to
that user, and whatever ``adapter_info`` could read can be sent. The controller chooses which files
are sent, so a hostile node gets no others. The node's end chooses where they go, so a hostile
source cannot write elsewhere there.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import fcntl
import os
import resource
import select
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync

from .askpass import askpass
from .become import Become
from .rsync import (
    BEGIN,
    CONSEQUENCES,
    END_OF_VERSION,
    EXCESS,
    FLOOD,
    SLOW,
    TIMEOUT,
    Offer,
    TransferOptions,
    TransferResult,
    client_command,
    decisive_end,
    keepalive_timeout,
    server_command,
)
from .ssh import close_connection, control_path_option, ssh_argv

# The bytes moved at a time, and the size of the pipes. With pipes of the usual 64 KiB, half of the
# time goes into switching between the processes.
_CHUNK = 1 << 18
# A keepalive of rsync has four bytes. Up to this many bytes are not counted as progress.
_KEEPALIVE_BYTES = 1 << 10
# What a login shell may print.
_GREETING_SIZE = 1 << 16
# The messages of an end over ssh, in a temporary file, and how much of either end of them is read.
# ssh itself may write no longer file: it copies known_hosts when a host has further keys.
_MAX_MESSAGES = 1 << 24
_MESSAGES_READ = 1 << 16
# Seconds to wait for a process that cannot be killed.
_KILL_TIMEOUT = 10


@dataclasses.dataclass(frozen=True)
class End:
    """One end of a transfer.

    ``ssh`` holds the options of its ssh connection; it is None for this machine.
    Transfers with the same ``control_path`` share one connection until it is closed. ``become`` is
    how the command becomes another user there. ``askpass_dir`` is a private directory of this run
    for the askpass program.
    """

    ssh: c.Mapping[str, t.Any] | None
    control_path: str = "none"
    become: Become | None = None
    askpass_dir: str = ""

    def argv(self, command: c.Sequence[str]) -> list[str]:
        if self.become:
            command = self.become.argv(command)
        return list(command) if self.ssh is None else ssh_argv(self.ssh, command, self.control_path)

    def environment(self, argv: c.Sequence[str]) -> contextlib.AbstractContextManager[dict[str, str]]:
        """The variables to add to the environment of a command while it runs."""
        if self.ssh is None or not self.ssh.get("password"):
            return contextlib.nullcontext({})
        return askpass(argv, control_path_option(self.control_path), str(self.ssh["password"]), self.askpass_dir)

    def greeting(self, timeout: int) -> str:
        """What this end prints before any command, for instance by a start-up file of its shell."""
        argv = dataclasses.replace(self, become=None).argv(["true"])
        with contextlib.ExitStack() as running:
            process = start(running, self, argv, subprocess.DEVNULL, subprocess.DEVNULL)
            return printed_by(process, timeout).decode(errors="replace")

    def close(self) -> None:
        """Close the shared connection, if there is one."""
        if self.ssh is not None and os.path.exists(self.control_path):
            close_connection(self.ssh, self.control_path)

    def path(self, path: str) -> str:
        """Resolve ``~`` for rsync, which no shell does here.

        ``server_command`` starts in the home directory of its user.
        """
        return path.removeprefix("~/")


class _Excess(Exception):
    """The source has sent more than it had described."""


def transfer(
    source: End,
    node: End,
    names: c.Sequence[str],
    source_dir: str,
    staging: str,
    options: TransferOptions,
    progress: c.Callable[[int], None] = lambda count: None,
    lock_timeout: int = 0,
    destination: str = "",
    offer: Offer | None = None,
) -> TransferResult:
    """Transfer files from the source's directory to the node's staging directory.

    Returns when both ends have ended. ``lock_timeout`` and ``destination`` are those of
    ``client_command``; ``lock_timeout`` must be less than the time limit. ``progress`` is called
    with the number of bytes each time some were passed to the node. A source that sends more than
    ``offer`` is given up.
    """
    request = client_command(names, staging, options, lock_timeout, destination, offer)
    commands = (node.argv(request), source.argv(server_command(names, source_dir, options)))
    received = 0

    def count_received(count: int) -> None:
        nonlocal received
        received += count
        progress(count)
        if offer and received > offer.most_bytes:
            raise _Excess

    timeout = options.timeout
    with tempfile.TemporaryFile() as client_stderr, tempfile.TemporaryFile() as server_stderr:
        with contextlib.ExitStack() as running:
            client = start(running, node, commands[0], subprocess.PIPE, client_stderr)
            # Not connected yet: passwords may have to go in first, and success lines and what login
            # shells print come out first.
            server = start(running, source, commands[1], subprocess.PIPE, server_stderr)
            if source.become and not source.become.wait(server, server_stderr, timeout):
                codes = (0, server.wait())
            elif node.become and not node.become.wait(client, client_stderr, timeout):
                codes = (client.wait(), 0)
            elif not has_begun(client, timeout):
                codes = (exit_status(client, _KILL_TIMEOUT), 0)
            else:
                _join(running, client.stdout, server.stdin)
                # The node's requests go to the source directly. With this copy open, the source
                # would not notice that the node has gone.
                t.cast("t.IO[bytes]", client.stdout).close()
                pipes = t.cast("t.IO[bytes]", server.stdout), t.cast("t.IO[bytes]", client.stdin)
                least = options.minimum_rate * keepalive_timeout(timeout)
                try:
                    failure = _pump(*pipes, timeout, count_received, least)
                    codes = (failure, 0) if failure else (exit_status(client, timeout), exit_status(server, timeout))
                except _Excess:
                    codes = (EXCESS, 0)
        if any(
            end.ssh is not None and _size(of) >= _MAX_MESSAGES for end, of in ((node, client_stderr), (source, server_stderr))
        ):
            codes = (FLOOD, 0)
        # A source whose partner has ended reports only that.
        is_consequence = codes[0] not in (0, *CONSEQUENCES) and codes[1] in CONSEQUENCES
        if is_consequence:
            codes = (codes[0], 0)
        version, has_reported, server_messages = text_of(server_stderr).rpartition(f"{END_OF_VERSION}\n")
        if not has_reported and not codes[1]:
            # It was ended when the node's end had failed.
            server_messages = ""
        stderr = [] if is_consequence else [server_messages]
        client_messages = text_of(client_stderr)
        stderr.append(node.become.without_prompt(client_messages) if node.become else client_messages)
    end = decisive_end(codes)
    return TransferResult(
        returncode=codes[end],
        received=received,
        stderr="\n".join(stderr).strip(),
        commands=commands,
        source_rsync=Rsync.parse(version),
        at_source=end == 1,
    )


def start(
    running: contextlib.ExitStack, end: End, command: list[str], stdin: t.Any, stderr: t.IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a command at an end. It is stopped when ``running`` is closed.

    ssh ends when the host has printed too many messages. Before it can be connected, it has this
    limit, which the process that the commands share inherits.
    """
    environment = {**os.environ, **running.enter_context(end.environment(command))}
    process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr)
    running.callback(_stop, process)
    if end.ssh is not None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_MAX_MESSAGES, _MAX_MESSAGES))
    for pipe in filter(None, (process.stdin, process.stdout)):
        # Refused if the user has used up the kernel's limit for pipes. The transfer is merely
        # slower then.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
    return process


def printed_by(process: subprocess.Popen[bytes], timeout: int) -> bytes:
    """What a process prints until it closes its output, at most as much as a login shell may.

    Waits for ``timeout`` seconds.
    """
    stdout = t.cast("t.IO[bytes]", process.stdout).fileno()
    ready = select.poll()
    ready.register(stdout, select.POLLIN)
    deadline = time.monotonic() + timeout
    printed = b""
    while (left := deadline - time.monotonic()) > 0 and len(printed) < _GREETING_SIZE and ready.poll(1000 * left):
        block = os.read(stdout, _GREETING_SIZE - len(printed))
        if not block:
            break
        printed += block
    return printed


def has_begun(client: subprocess.Popen[bytes], timeout: int) -> bool:
    """Wait for the line with which the node's command begins; leave everything after it unread.

    What precedes it was printed by the login shell. Returns False if the command does not begin.
    """
    stdout = t.cast("t.IO[bytes]", client.stdout).fileno()
    ready = select.poll()
    ready.register(stdout, select.POLLIN)
    deadline = time.monotonic() + timeout
    printed, begin = b"", f"{BEGIN}\n".encode()
    while not printed.endswith(begin) and len(printed) < _GREETING_SIZE:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(1000 * left):
            return False
        byte = os.read(stdout, 1)
        if not byte:
            return False
        printed += byte
    return printed.endswith(begin)


def _join(running: contextlib.ExitStack, stdin: t.IO[bytes] | None, stdout: t.IO[bytes] | None) -> None:
    """Start a process that copies from one pipe to the other, and ends when either end does."""
    process = subprocess.Popen(["cat"], stdin=stdin, stdout=stdout)
    running.callback(_stop, process)
    t.cast("t.IO[bytes]", stdout).close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process.

    A local one of another user cannot be killed, but ends when its pipes are closed.
    """
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    with contextlib.suppress(PermissionError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_TIMEOUT)


def _pump(source: t.IO[bytes], node: t.IO[bytes], timeout: int, received: c.Callable[[int], None], least: int) -> int:
    """Move data from source to node until either process ends. Returns TIMEOUT, SLOW or 0.

    rsync's own time limit does not suffice: its ends keep each other alive with empty messages
    while no file data moves. A stream of keepalives alone is accepted for ``keepalive_timeout``
    seconds, and so is one of fewer than ``least`` bytes.
    """
    with source, node:
        os.set_blocking(node.fileno(), False)
        readable, writable = select.poll(), select.poll()
        readable.register(source, select.POLLIN)
        # Without requested events, poll reports only that the node has gone.
        readable.register(node, 0)
        writable.register(node, select.POLLOUT)
        moved, since = 0, time.monotonic()
        while True:
            events = dict(readable.poll(timeout * 1000))
            if not events:
                return TIMEOUT
            if node.fileno() in events:
                return 0
            if not writable.poll(timeout * 1000):
                return TIMEOUT
            try:
                # From pipe to pipe in the kernel, without copying the data into this process.
                count = os.splice(source.fileno(), node.fileno(), _CHUNK)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return 0
            if not count:
                return 0
            received(count)
            moved += count
            if moved > max(_KEEPALIVE_BYTES, least):
                moved, since = 0, time.monotonic()
            elif time.monotonic() - since > keepalive_timeout(timeout):
                return SLOW if moved > _KEEPALIVE_BYTES else TIMEOUT


def exit_status(process: subprocess.Popen[bytes], timeout: int) -> int:
    """Wait for an end whose partner has gone, but not forever."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return TIMEOUT


def text_of(stream: t.IO[bytes]) -> str:
    """The beginning and the end of what was printed, which is all of it as a rule."""
    first = os.pread(stream.fileno(), _MESSAGES_READ, 0)
    last = os.pread(stream.fileno(), _MESSAGES_READ, max(len(first), _size(stream) - _MESSAGES_READ))
    return (first + last).decode(errors="replace")


def _size(stream: t.IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size
