# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Moves files from one host to another through the controller: two ends of rsync, joined crosswise.

The node runs the rsync client, the source the server, and neither needs to know of the other or hold a key for it: each
talks to the controller alone, over the connection that Ansible has for it, or as a process here where that is local.
Nothing is spooled; the bytes are handed on as they come::

    source: rsync --server --sender  ---->  controller  ---->  rsync SOURCE:files STAGING/ :node
                                     <----              <----

On the node it runs as the user that the task becomes there, so that files are received by whom modules run as.
The client asks for files and chooses where they go, so a hostile source cannot write elsewhere on a node.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import fcntl
import os
import re
import select
import signal
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync

from .askpass import answering
from .become import Become
from .ssh import control_path_option, hang_up, ssh_argv

# Kept out of both ends: each of these changes what rsync does without being seen in its arguments.
_UNSET = (
    *("OLD_ARGS", "PROTECT_ARGS", "RSH", "PARTIAL_DIR", "ICONV"),
    *("CHECKSUM_LIST", "COMPRESS_LIST", "MAX_ALLOC"),
)
_ENV = ("env", *(word for name in _UNSET for word in ("-u", f"RSYNC_{name}")), "LC_ALL=C")

# What is handed on at a time, and what the pipes hold: with the usual 64 KiB, half of the time goes into taking turns.
_CHUNK = 1 << 18
# The ends of rsync keep each other alive with messages of four bytes: so few bytes are no progress. Nor is a time without any
# a failure, while one end hashes what an earlier transfer left, until it is so many times the time limit.
_SIGNS_OF_LIFE = 1 << 10
_PATIENCE = 10
# Seconds that are waited for an end that cannot be killed.
_LEAVE = 10
_SYNTAX = 1
_BUSY = 75
_STALLED = 30
_UNUSABLE = 11
_CONNECTION_FAILED = 255
# Descriptors 3 and 4 are the way to the controller; rsync's own messages go to standard error. Descriptor 6 is a lock on the
# staging directory ($0), held for as long as a receiver lives, even one that lost its connection and nobody waits for.
_CLIENT_SHELL = (
    f'test -r "$0" || {{ echo "$0 cannot be opened" >&2; exit {_UNUSABLE}; }}; '
    f'exec 3<&0 4>&1 6<"$0"; flock --timeout "$1" --conflict-exit-code {_BUSY} 6 || exit; shift; exec "$@" </dev/null >&2'
)
# The source's end says first what it is, in its messages: for that alone no further command is worth its while.
_END_OF_VERSION = "-- end of version --"
_SERVER_SHELL = f'rsync --version >&2; echo "{_END_OF_VERSION}" >&2; exec "$@"'
# What rsync starts as its "remote shell": it joins rsync to those descriptors, and ends when the source's end does.
# Each of the two holds one direction alone: were the other open in it, a source whose client was killed would wait for ever.
_JOIN = "sh -c 'exec 5<&0 6<&-; cat <&5 >&4 3<&- 4>&- 5<&- & exec cat <&3 3<&- 4>&- 5<&-'"

# Exit codes of rsync and ssh after which another try goes on where this one stopped.
_PASSING = frozenset({10, 12, 20, 30, 35, _CONNECTION_FAILED})
_DENIED = ": Permission denied ("
_FULL = "No space left on device"
_REASONS = {
    3: "the staging directory or a source file cannot be used",
    _UNUSABLE: "reading or writing failed on the node",
    12: "the connection between the two ends broke",
    20: "it was interrupted",
    23: "a file is missing at the source or was cut short there, or the user that Ansible connects as cannot read it there,"
    " or the one that it becomes cannot write it on the node",
    24: "a source file vanished while it was sent",
    _STALLED: "no byte came for {timeout} seconds, or nothing but signs of life for {longer}",
    _BUSY: "another run is still writing there",
    127: "there is no rsync, or no flock, on one of the two hosts",
    _CONNECTION_FAILED: "an ssh connection failed",
}


@dataclasses.dataclass(frozen=True)
class End:
    """One end of a transfer: the options of its ssh connection, or None where it is this machine.

    Transfers with the same C(control_path) share one connection, until it is hung up. C(become) is for the node's end alone.
    C(programs) is a directory of this run alone: what answers for a password has to lie somewhere.
    """

    ssh: t.Optional[c.Mapping[str, t.Any]]
    control_path: str = "none"
    become: t.Optional[Become] = None
    programs: str = ""

    def argv(self, command: c.Sequence[str]) -> list[str]:
        if self.become:
            command = self.become.argv(command)
        return list(command) if self.ssh is None else ssh_argv(self.ssh, command, self.control_path)

    def environment(self, argv: c.Sequence[str]) -> contextlib.AbstractContextManager[dict[str, str]]:
        """What the environment of a command has to have more while it runs."""
        if self.ssh is None or not self.ssh.get("password"):
            return contextlib.nullcontext({})
        return answering(argv, control_path_option(self.control_path), str(self.ssh["password"]), self.programs)

    def hang_up(self) -> None:
        if self.ssh is not None and os.path.exists(self.control_path):
            hang_up(self.ssh, self.control_path)

    def path(self, path: str) -> str:
        """A path at this end, as rsync knows it: no shell makes anything of ~ there, but over ssh commands begin in the home."""
        return os.path.expanduser(path) if self.ssh is None else path.removeprefix("~/")


@dataclasses.dataclass(frozen=True)
class Way:
    """How bytes travel.

    C(timeout) is in seconds without a byte, C(bwlimit) in what rsync's option of that name takes (empty: as fast as it goes).
    C(compress) is for links slower than a core: both ends need an rsync that knows zstd.
    """

    timeout: int
    bwlimit: str = ""
    compress: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a transfer ended.

    C(received) are the bytes that the node was handed, C(commands) what was run, node's end first, and C(source) the rsync of
    the source where that came so far as to say.
    """

    returncode: int
    received: int
    messages: str
    commands: tuple[list[str], list[str]]
    source: t.Optional[Rsync] = None

    @property
    def passing(self) -> bool:
        """True when the same transfer may well succeed if it is tried again."""
        # Who is not let in will not be the next time either, and a password that is tried too often may lock its user out.
        denied = self.returncode == _CONNECTION_FAILED and _DENIED in self.messages
        return (self.returncode in _PASSING and not denied) or self._signal > 0

    @property
    def _signal(self) -> int:
        """What killed the end, 0 if nothing did. A shell at the other end of ssh tells it in its own way."""
        if self.returncode < 0:
            return -self.returncode
        return self.returncode - 128 if 128 < self.returncode < 128 + signal.NSIG else 0

    def reason(self, timeout: int) -> str:
        """Why it failed, in words."""
        said = " ".join(self.messages.split())
        if _FULL in said:
            # rsync has one status for a file system without space and another for one without inodes, and both for other things.
            reason = "the node's file system has no space left, or no inodes"
        else:
            ended = f"signal {self._signal}" if self._signal else f"status {self.returncode}"
            reason = _REASONS.get(self.returncode, f"rsync ended with {ended}")
            reason = reason.format(timeout=timeout, longer=_PATIENCE * timeout)
        return f"{reason}: {said[-600:]}" if said else reason


def why(failed: c.Sequence[Outcome], timeout: int) -> str:
    """Why a transfer failed that was tried one or more times, in words."""
    *earlier, last = failed
    if last.returncode != _BUSY or not earlier:
        return last.reason(timeout)
    return f"{why(earlier, timeout)}, and what was started on the node for it still runs: end that rsync (fuser -v shows it)"


def client_command(names: c.Sequence[str], source_dir: str, staging: str, way: Way, wait: int = 0) -> list[str]:
    """The node's end: fetch C(names) of the source's directory into the staging directory.

    C(wait) are the seconds that another receiver has to leave that directory.

    --inplace is what resumes after a killed receiver; it is safe because staging is named by the digest of what it is
    to hold and shares no inode with any release. -s keeps every name out of a remote shell; before rsync 3.2.6 its long
    name was another. A file that is read-only at the source must not become so here while it may have to be gone on with.
    """
    return [
        "sh", "-c", _CLIENT_SHELL, staging, str(wait),
        *_ENV, "rsync", "-s", "--inplace", "--no-whole-file", "--ignore-times", "--blocking-io",
        "--no-links", "--no-devices", "--no-specials", "--no-perms", "--chmod=F600", "--no-owner", "--no-group",
        f"--timeout={way.timeout}",
        *([f"--bwlimit={way.bwlimit}"] if way.bwlimit else []),
        *(["--compress", "--compress-choice=zstd", "--compress-level=1"] if way.compress else []),
        "--rsh", _JOIN,
        *(f"source:{_literally(os.path.join(source_dir, name))}" for name in names),
        os.path.join(staging, ""),
    ]  # fmt: skip


def _literally(path: str) -> str:
    """A path at the source as rsync takes it for one: it looks for wildcards there, and for backslashes only beside them."""
    return re.sub(r"[\\*?\[]", r"\\\g<0>", path) if re.search(r"[*?\[]", path) else path


def server_command() -> list[str]:
    """The source's end; what is asked for comes from the client, through the pipe."""
    return [*_ENV, "sh", "-c", _SERVER_SHELL, "sh", "rsync", "--server", "--sender", "-s"]


def transfer(
    source: End,
    node: End,
    names: c.Sequence[str],
    source_dir: str,
    staging: str,
    way: Way,
    progress: c.Callable[[int], None] = lambda count: None,
    wait: int = 0,
) -> Outcome:
    """Bring files from the source's directory to the node's staging directory; returns when both ends have ended.

    C(wait) is that of C(client_command), and less than the time limit. C(progress) is called with the number of bytes each time
    that some were handed to the node.
    """
    commands = (node.argv(client_command(names, source_dir, staging, way, wait)), source.argv(server_command()))
    received = 0

    def handed(count: int) -> None:
        nonlocal received
        received += count
        progress(count)

    with tempfile.TemporaryFile() as client_said, tempfile.TemporaryFile() as server_said:
        with contextlib.ExitStack() as running:
            client = _start(running, node, commands[0], subprocess.PIPE, client_said)
            if node.become and not node.become.wait(client, client_said, way.timeout):
                codes = (client.wait(), 0)
            else:
                server = _start(running, source, commands[1], client.stdout, server_said)
                # What the node asks for goes to the source directly: with a copy open here it would not see the node go.
                t.cast("t.IO[bytes]", client.stdout).close()
                moved = _pump(t.cast("t.IO[bytes]", server.stdout), t.cast("t.IO[bytes]", client.stdin), way.timeout, handed)
                codes = (_end_of(client, way.timeout), _end_of(server, way.timeout)) if moved else (_STALLED, 0)
        # A server that was asked for nothing complains of that, which is not why the client ended.
        never_asked = codes[0] and codes[1] == _SYNTAX
        if never_asked:
            codes = (codes[0], 0)
        before, _mark, after = _text(server_said).rpartition(f"{_END_OF_VERSION}\n")
        messages = [] if never_asked else [after]
        messages.append(_text(client_said))
    return Outcome(
        # The end that failed by itself says more than the one whose partner went away.
        returncode=_decisive(codes),
        received=received,
        messages="\n".join(messages).strip(),
        commands=commands,
        source=Rsync.parse(before),
    )


def _start(
    running: contextlib.ExitStack, end: End, command: list[str], stdin: t.Any, said: t.IO[bytes]
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **running.enter_context(end.environment(command))}
    process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=said)
    running.callback(_let_go, process)
    for pipe in filter(None, (process.stdin, process.stdout)):
        # It is merely slower where this user has used up what the kernel gives for pipes.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
    return process


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """End a process. One that has become another user here cannot be killed, but ends when nobody talks to it any more."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    with contextlib.suppress(PermissionError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LEAVE)


def _pump(source: t.IO[bytes], node: t.IO[bytes], timeout: int, handed: c.Callable[[int], None]) -> bool:
    """Hand on what the source sends until one of the two ends; False when nothing moved for C(timeout) seconds.

    rsync's own time limit is not enough: its ends keep each other alive with empty messages while no file moves. These alone
    are handed on for C(_PATIENCE) times as long.
    """
    with source, node:
        os.set_blocking(node.fileno(), False)
        readable, writable = select.poll(), select.poll()
        readable.register(source, select.POLLIN)
        # Asks for nothing, and so tells only that the node has gone.
        readable.register(node, 0)
        writable.register(node, select.POLLOUT)
        moved, since = 0, time.monotonic()
        while True:
            events = dict(readable.poll(timeout * 1000))
            if not events:
                return False
            if node.fileno() in events:
                return True
            if not writable.poll(timeout * 1000):
                return False
            try:
                # From pipe to pipe in the kernel: the bytes never come here.
                count = os.splice(source.fileno(), node.fileno(), _CHUNK)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return True
            if not count:
                return True
            handed(count)
            moved += count
            if moved > _SIGNS_OF_LIFE:
                moved, since = 0, time.monotonic()
            elif time.monotonic() - since > _PATIENCE * timeout:
                return False


def _end_of(process: subprocess.Popen[bytes], timeout: int) -> int:
    """The exit status of an end that has nobody to talk to any more: it is not waited for without end."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return _STALLED


def _decisive(codes: tuple[int, int]) -> int:
    """The exit status to report: of two failures, the one that is not merely 'the other end went away' (10, 12)."""
    failures = [code for code in codes if code]
    return next((code for code in failures if code not in (10, 12)), failures[0] if failures else 0)


def _text(stream: t.IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
