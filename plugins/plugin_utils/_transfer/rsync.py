# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The rsync command lines of a transfer, and the meaning of their exit statuses."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import re
import signal

from ansible_collections.lorafleet.delivery.plugins.module_utils._rsync import Rsync
from ansible_collections.lorafleet.delivery.plugins.module_utils._versions import numbers

# Removed from the environment of both ends: each of these changes what rsync does without showing
# in its arguments.
_UNSET = (
    *("OLD_ARGS", "PROTECT_ARGS", "RSH", "PARTIAL_DIR", "ICONV"),
    *("CHECKSUM_LIST", "COMPRESS_LIST", "MAX_ALLOC"),
)
_ENV = ("env", *(word for name in _UNSET for word in ("-u", f"RSYNC_{name}")), "LC_ALL=C")

# Exit statuses of rsync, of ssh, and (BUSY) of the client script below.
INCOMPATIBLE = 2
SOCKET_ERROR = 10
FILE_ERROR = 11
PROTOCOL_ERROR = 12
TIMEOUT = 30
BUSY = 75
NOT_FOUND = 127
CONNECTION_FAILED = 255
# No exit statuses of rsync: an end has printed too many messages, the data comes too slowly, and
# the source has sent more bytes than those of the files.
FLOOD = 96
SLOW = 97
EXCESS = 98
# How an end exits whose partner has ended.
CONSEQUENCES = (SOCKET_ERROR, PROTOCOL_ERROR)
# After these, another try resumes the transfer where it stopped.
_TRANSIENT = frozenset({SOCKET_ERROR, PROTOCOL_ERROR, 20, TIMEOUT, 35, SLOW, CONNECTION_FAILED})
LOGIN_DENIED = ": Permission denied ("
_NO_SPACE = "No space left on device"
_TOO_LONG = "File too large"
_REASONS = {
    3: "the staging directory or a source file cannot be used",
    FILE_ERROR: "reading or writing failed on the node",
    PROTOCOL_ERROR: "the connection between the two ends broke",
    20: "it was interrupted",
    23: "a file is missing or truncated at the source, or the user that modules run as cannot read it there or"
    " cannot write it on the node",
    24: "a source file vanished during the transfer",
    TIMEOUT: "no data for {timeout} seconds, or only rsync keepalives for {keepalive_timeout}",
    FLOOD: "an end printed too many messages",
    SLOW: "the data came more slowly than transfer_minimum_rate",
    EXCESS: "the source sent more than it had described",
    BUSY: "another run is still writing to the staging directory",
    NOT_FOUND: "a program was not found",
    CONNECTION_FAILED: "an ssh connection failed",
}

_BLOCK = 512
# The least limit of a file. Locally, the messages of rsync go to a file as well.
_LEAST_LIMIT = 1 << 16
_PROTOCOL_BYTES = 1 << 20

# The two ends of rsync exchange keepalives also while no file data moves, for instance while one of
# them hashes the files that an earlier transfer left. So a transfer without data is given this many
# times the time limit.
_KEEPALIVE_FACTOR = 10

# The scripts below are passed to ``sh -c`` instead of being copied to the hosts, which would cost a
# round trip each. They stay on one line: a login shell such as csh, which ssh passes them through,
# does not accept a newline within quotes.
#
# Descriptors of the client's processes on the node:
#   0, 1  of the script, from and to the controller; saved as 3 and 4, so that rsync's own messages
#         can go to standard error
#   5     in _JOIN: what rsync writes, for the background ``cat``
#   6     the lock
BEGIN = "-- begin --"
_CLIENT_SCRIPT = " ".join(
    [
        # After what the login shell has printed, which may not end a line.
        f'echo; echo "{BEGIN}";',
        # $0 is the staging directory, $1 the seconds to wait for its lock, $3 and the rest the
        # rsync command.
        f'test -r "$0" || {{ echo "$0 cannot be opened" >&2; exit {FILE_ERROR}; }};',
        'exec 3<&0 4>&1 6<"$0";',
        # $2 limits the size of a file, in blocks. Without the signal, rsync reports it as an error.
        'trap "" XFSZ; ulimit -f "$2";',
        # Every process of the receiver inherits the lock. It is held as long as one of them lives,
        # even if the connection to the controller is lost.
        f'flock --timeout "$1" --conflict-exit-code {BUSY} 6 || exit;',
        'shift 2; exec "$@" </dev/null >&2',
    ]
)
# rsync starts this as its "remote shell". It connects rsync's pipes with the descriptors that lead
# to the controller, and ends when the source's end does. Each ``cat`` keeps only the descriptors of
# its own direction open: otherwise a source whose client was killed would never see the end of its
# input.
_JOIN = "sh -c 'exec 5<&0 6<&-; cat <&5 >&4 3<&- 4>&- 5<&- & exec cat <&3 3<&- 4>&- 5<&-'"
# The source first reports the version of its rsync on standard error, which saves a command: on a
# line of its own, since a password prompt may be there already. It starts in the home directory of
# its user, wherever the become method started it.
END_OF_VERSION = "-- end of version --"
_SERVER_SCRIPT = f'cd; echo >&2; rsync --version >&2; echo "{END_OF_VERSION}" >&2; exec "$@"'


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """The options of a transfer.

    ``timeout`` is in seconds without data. ``bwlimit`` is the value of rsync's option of that name,
    empty for no limit. ``compress`` needs an rsync with zstd at both ends. ``node_rsync`` is the
    version of rsync on the node, as far as it is known. ``minimum_rate`` is in bytes per second,
    over ``keepalive_timeout`` seconds; 0 for any rate.
    """

    timeout: int
    bwlimit: str = ""
    compress: bool = False
    node_rsync: str = ""
    minimum_rate: int = 0

    def for_both_ends(self) -> list[str]:
        """The options that both ends must have alike."""
        return [
            "--inplace",
            f"--timeout={self.timeout}",
            *([f"--bwlimit={self.bwlimit}"] if self.bwlimit else []),
            *(["--compress", "--compress-choice=zstd", "--compress-level=1"] if self.compress else []),
        ]


@dataclasses.dataclass(frozen=True)
class Offer:
    """What the source has described of the files of one transfer: their sizes in bytes."""

    largest: int
    total: int

    @property
    def file_blocks(self) -> int:
        """The size that no file may exceed on the node, in the unit of ``ulimit -f``.

        Some shells have blocks of 1024 bytes, which doubles the limit.
        """
        return -(-max(self.largest, _LEAST_LIMIT) // _BLOCK)

    @property
    def most_bytes(self) -> int:
        """The bytes that the source may send: some more, for the protocol."""
        return self.total + self.total * 3 // 100 + _PROTOCOL_BYTES


def within_space(sizes: c.Mapping[str, int]) -> list[list[str]]:
    """Divide files into the fewest transfers that cannot take more space than was checked.

    All files of one transfer have the same limit, the size of the largest. The node has made sure
    that it has twice the described bytes: for the release, and later for the served copy. So a
    source that sends longer files, which compression makes cheap, cannot take other space. The
    largest files are transferred first, and alone as far as necessary.
    """
    names = sorted(sizes, key=lambda name: -sizes[name])
    limits = [max(sizes[name], _LEAST_LIMIT) for name in names]
    alone = next(
        (
            number
            for number in range(len(names))
            if sum(limits[:number]) + limits[number] * len(limits[number:]) <= 2 * sum(limits)
        ),
        0,
    )
    return [*([name] for name in names[:alone]), names[alone:]]


@dataclasses.dataclass(frozen=True)
class TransferResult:
    """The outcome of one attempt at a transfer.

    ``received`` is the number of bytes passed to the node, ``stderr`` the messages of both ends,
    ``commands`` the command of the node's end and that of the source's end. ``source_rsync`` is
    None if the source did not get as far as reporting its version. ``at_source`` is whether
    ``returncode`` is that of the source's end.
    """

    returncode: int
    received: int
    stderr: str
    commands: tuple[list[str], list[str]]
    source_rsync: Rsync | None = None
    at_source: bool = False

    @property
    def transient(self) -> bool:
        """True if the same transfer may succeed when it is tried again."""
        # A denied login stays denied, and repeated wrong passwords may lock the account.
        denied = self.returncode == CONNECTION_FAILED and LOGIN_DENIED in self.stderr
        return (self.returncode in _TRANSIENT and not denied) or self._signal > 0

    @property
    def excessive(self) -> bool:
        """True if the source sent more than it had described."""
        return self.returncode == EXCESS or (self.returncode == FILE_ERROR and _TOO_LONG in self.stderr)

    @property
    def unclean(self) -> bool:
        """True if the first bytes from the source were not those of its rsync."""
        return self.returncode == INCOMPATIBLE and "is your shell clean" in self.stderr

    @property
    def messages(self) -> str:
        """The messages of both ends on one line, cut to the last ones."""
        return " ".join(self.stderr.split())[-600:]

    @property
    def _signal(self) -> int:
        """The signal that killed the end, or 0. A shell behind ssh reports it as 128 + signal."""
        if self.returncode < 0:
            return -self.returncode
        return self.returncode - 128 if 128 < self.returncode < 128 + signal.NSIG else 0

    def reason(self, timeout: int) -> str:
        """Describe why the attempt failed."""
        if _NO_SPACE in self.stderr:
            # rsync exits with 11 without space and 23 without inodes, and uses both for other
            # errors.
            reason = "the node's file system has no space or inodes left"
        elif self.excessive:
            reason = _REASONS[EXCESS]
        else:
            status = f"signal {self._signal}" if self._signal else f"status {self.returncode}"
            reason = _REASONS.get(self.returncode, f"rsync ended with {status}")
            reason = reason.format(timeout=timeout, keepalive_timeout=keepalive_timeout(timeout))
        return f"{reason}: {self.messages}" if self.messages else reason


def keepalive_timeout(timeout: int) -> int:
    """The seconds after which a transfer that carries nothing but keepalives is aborted."""
    return _KEEPALIVE_FACTOR * timeout


def failure_reason(failed: c.Sequence[TransferResult], timeout: int) -> str:
    """Describe why a transfer failed after one or more attempts."""
    *earlier, last = failed
    if last.returncode != BUSY or not earlier:
        return last.reason(timeout)
    reason = failure_reason(earlier, timeout)
    return f"{reason}, and the rsync that it started on the node is still running: end it (fuser -v shows it)"


def client_command(
    names: c.Sequence[str],
    staging: str,
    options: TransferOptions,
    lock_timeout: int = 0,
    destination: str = "",
    offer: Offer | None = None,
) -> list[str]:
    """The node's end: receive files into the staging directory.

    ``destination`` is where in it they are written: a subdirectory that exists, with a slash at its
    end, or the name for a single file.

    ``lock_timeout`` is how many seconds to wait for another receiver to leave that directory. No
    file becomes longer than the largest one of ``offer``.

    The client passes its options and the names to its remote shell, which ignores them: the
    controller has started the source's end. rsync 3.2.5 and newer accept only files of these names.

    ``--inplace`` makes the transfer resumable after a killed receiver. It is safe because a staging
    directory is named by the digest of its future content and shares no inode with any release.
    ``--chmod`` keeps a file that is read-only at the source writable, because an interrupted
    transfer has to resume it.
    """
    return [
        "sh", "-c", _CLIENT_SCRIPT, staging, str(lock_timeout), str(offer.file_blocks) if offer else "unlimited",
        *_ENV, "rsync", "--no-whole-file", "--ignore-times", "--blocking-io",
        "--no-links", "--no-devices", "--no-specials", "--no-perms", "--chmod=F600", "--no-owner", "--no-group",
        *options.for_both_ends(),
        "--rsh", _JOIN,
        *(f"source:{_escape_wildcards(name)}" for name in names),
        os.path.join(staging, destination),
    ]  # fmt: skip


def _escape_wildcards(name: str) -> str:
    """Make rsync take a name literally. It unescapes only names that have wildcards."""
    return re.sub(r"[\\*?\[]", r"\\\g<0>", name) if re.search(r"[*?\[]", name) else name


def server_command(names: c.Sequence[str], source_dir: str, options: TransferOptions) -> list[str]:
    """The source's end: send these files and no others.

    Its options and files are those of the command line. With ``-s``, which rsync itself recommends,
    the client would choose both. A client can still send filter rules, and rsync prints a line of a
    file that it cannot read as rules. ``--msgs2stderr`` keeps such messages from the client: they
    go to the controller.

    ``source_dir`` is absolute, or below the home directory that ``_SERVER_SCRIPT`` starts in.
    """
    # What a client of this version announces. A server without it takes the client for an old one,
    # and both use MD5 in place of faster checksums.
    features = ["-e.LsfxCIvu"] if numbers(options.node_rsync) >= (3, 2, 3) else []
    paths = [os.path.join(source_dir, name) for name in names]
    return [
        *_ENV, "sh", "-c", _SERVER_SCRIPT, "sh",
        "rsync", "--server", "--sender", *features, "--msgs2stderr", *options.for_both_ends(), ".",
        # Never an option, whatever the name.
        *(path if os.path.isabs(path) else f"./{path}" for path in paths),
    ]  # fmt: skip


def decisive_end(codes: c.Sequence[int]) -> int:
    """The index of the exit status to report: the cause, not its consequence at the other end."""
    failures = [end for end, code in enumerate(codes) if code]
    return next((end for end in failures if codes[end] not in CONSEQUENCES), failures[0] if failures else 0)
