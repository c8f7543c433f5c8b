# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""The node's end of a direct transfer: gets the files of an adapter from the source's offer."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import subprocess
import time
import typing as t

from .channel import die_with_parent, end_with_controller, forbid_attaching, tell
from .staged import Entry, Unusable, has_hash, hold, missing_of, open_own
from .tls import NAME, context_of

_CHUNK = 1 << 18
_LONGEST_ANSWER = 32
# For each file. The offer answers a few more requests.
_MOST_RANGES = 60
# Seconds to connect: a firewall that drops packets must not delay the next way for long.
_CONNECT_TIMEOUT = 10
# The bytes that ssh may print.
_MOST_MESSAGES = 1 << 16
_LONGEST_REASON = 1000
# The source for its ssh server: no line of a key begins with this.
_HOST = "source.lorafleet"
_NO_SUCH_HOST_KEY = "Host key verification failed"
# Seconds between two statements of how much has arrived.
_INTERVAL = 0.5


def main(job: dict[str, t.Any]) -> None:
    """Get all files.

    ``job`` has the ``files`` in the order of the offer, the ``staging`` directory (empty for no
    files, to try the connection only), the ``address`` and ``port`` of the offer, or with ``ssh``
    (``user``, ``key`` and ``host_keys``) those of the source's ssh server, ``certificate``, ``key``
    and ``other`` of ``context_of``, and the seconds that the connection may be idle
    (``timeout``), to wait for another receiver (``lock_timeout``), and of ``lease``.

    Answers with ``bytes``, the number of bytes that have arrived, and at the end with the
    ``problem``, which is empty if there is none. With it, it says what the problem means: that the
    source is ``unreachable``, that its ssh server has ``denied`` the login from the address
    ``own``, that a ``stranger`` answers in its place, or that the connection ``broke``.
    """
    os.umask(0o077)
    end_with_controller(job["lease"], lambda: None)
    forbid_attaching()
    try:
        if job["staging"]:
            hold(job["staging"], job["lock_timeout"])
    except Unusable as exc:
        tell(problem=str(exc))
        return
    where = f"port {job['port']} of {job['address']}"
    # ssh reads its key and the host keys from here, and writes its messages behind them.
    messages = os.memfd_create("messages")
    os.fchmod(messages, 0o600)
    given = os.write(messages, _for_ssh(job["ssh"]).encode()) if job["ssh"] else 0
    try:
        context = context_of(False, job["certificate"], job["key"], job["other"])
        connection = _through_ssh(job, messages) if job["ssh"] else _directly(job)
        stream = context.wrap_socket(connection, server_hostname=NAME)
    except (OSError, ValueError) as exc:
        said = " ".join(os.pread(messages, _MOST_MESSAGES, given).decode(errors="replace").split()).rstrip(".")
        meaning, problem = _refusal(exc, said, bool(job["ssh"]))
        tell(problem=f"{where} {problem}", own=_own_address(job), **{meaning: True})
        return
    os.ftruncate(messages, 0)
    stream.settimeout(job["timeout"])
    collector = _Collector(stream, job["staging"])
    try:
        for number, entry in enumerate(job["files"]):
            collector.get(number, entry)
        answer: dict[str, t.Any] = {"problem": ""}
    except _Broken as exc:
        answer = {"problem": f"the connection to {where} broke: {exc}", "broke": True}
    except _Refused as exc:
        answer = {"problem": f"{where} {exc}", "stranger": True}
    except (OSError, ValueError) as exc:
        answer = {"problem": f"{getattr(exc, 'filename', None) or job['staging']}: {getattr(exc, 'strerror', None) or exc}"}
    collector.tell()
    tell(**answer)


def _directly(job: dict[str, t.Any]) -> socket.socket:
    return socket.create_connection((job["address"], job["port"]), _CONNECT_TIMEOUT)


def _for_ssh(ssh: dict[str, t.Any]) -> str:
    """The login key, and the host keys below it as lines of a known_hosts file.

    ssh reads both from one file: it closes all descriptors but three, and the file has no name. It
    ignores what follows the login key, and lines of other hosts than ``_HOST``.
    """
    return "".join([ssh["key"], *(f"{_HOST} {key}\n" for key in ssh["host_keys"])])


def _through_ssh(job: dict[str, t.Any], messages: int) -> socket.socket:
    """A connection through the source's ssh server, whose forced command joins it to the offer.

    The server has to have one of the given host keys. The private key is in memory only.
    """
    ours, theirs = socket.socketpair()
    options = [
        *("BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/proc/self/fd/2", "GlobalKnownHostsFile=none"),
        *(f"HostKeyAlias={_HOST}", "CheckHostIP=no", "UpdateHostKeys=no", "VerifyHostKeyDNS=no"),
        *("IdentitiesOnly=yes", "IdentityAgent=none", "IdentityFile=/proc/self/fd/2"),
        *("PreferredAuthentications=publickey", "ControlPath=none", "Compression=no", "ForwardAgent=no"),
        *(f"ConnectTimeout={_CONNECT_TIMEOUT}", "ServerAliveInterval=15", "ServerAliveCountMax=4", "LogLevel=ERROR"),
    ]
    argv = ["ssh", "-F", "none", "-T", *(word for option in options for word in ("-o", option))]
    argv += ["-p", str(job["port"]), "-l", job["ssh"]["user"], "--", job["address"]]
    subprocess.Popen(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=messages, preexec_fn=_confine_ssh)
    theirs.close()
    ours.settimeout(3 * _CONNECT_TIMEOUT)
    return ours


def _refusal(exc: Exception, said: str, through_ssh: bool) -> tuple[str, str]:
    """Why there is no connection to the offer: what it means, and the end of a sentence.

    ``exc`` ended the attempt, and ``said`` is what ssh has printed.
    """
    if _NO_SUCH_HOST_KEY in said:
        return "stranger", "has another host key than the source"
    if said:
        # What ssh says itself, before it has a connection.
        if said.startswith("ssh: "):
            return "unreachable", f"cannot be reached: {said[:_LONGEST_REASON]}"
        return "denied", f"does not let the node in: {said[:_LONGEST_REASON]}"
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)):
        # The source has to end connections when a crowd of others opens them.
        return "broke", "closed the connection at once"
    if isinstance(exc, ssl.SSLError) and through_ssh:
        return "denied", f"lets the node in, but does not run the command of its key ({exc.reason})"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "stranger", f"has another certificate than the source ({exc.verify_message})"
    if isinstance(exc, ssl.SSLError):
        return "stranger", f"answers otherwise than the source ({exc.reason})"
    if isinstance(exc, socket.timeout):
        return "unreachable", "cannot be reached: it does not answer, as if a firewall drops what is sent to it"
    return "unreachable", f"cannot be reached: {getattr(exc, 'strerror', None) or exc}"


def _own_address(job: dict[str, t.Any]) -> str:
    """The address of this host for the source, unless it is translated; empty if it is unknown."""
    try:
        family, *_rest, source = socket.getaddrinfo(job["address"], job["port"], type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Sends nothing.
            probe.connect(source)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _confine_ssh() -> None:
    die_with_parent()
    # The source chooses what ssh prints, which stays in memory.
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_MESSAGES, _MOST_MESSAGES))


class _Broken(Exception):
    """The connection broke, or the source has closed it."""


class _Refused(Exception):
    """What answers has refused the certificate of the node."""


def _failed(exc: OSError) -> Exception:
    """The error for a connection that was established and has failed."""
    if isinstance(exc, ssl.SSLError) and "ALERT" in (exc.reason or ""):
        return _Refused(f"refused the certificate of the node ({exc.reason})")
    return _Broken(exc.strerror or str(exc))


class _Collector:
    def __init__(self, stream: ssl.SSLSocket, staging: str) -> None:
        self._stream, self._staging = stream, staging
        self._arrived, self._told, self._next = 0, 0, 0.0
        self._buffer = memoryview(bytearray(_CHUNK))

    def tell(self) -> None:
        if self._arrived > self._told:
            tell(bytes=self._arrived)
            self._told = self._arrived

    def get(self, number: int, entry: Entry) -> None:
        """Get what is missing of a file, or all of it if what is there is not of it."""
        everything = [(0, entry["size"])]
        with open(open_own(self._staging, entry["path"]), "r+b", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > entry["size"]:
                file.truncate(0)
            missing = missing_of(file.fileno(), entry["size"], _MOST_RANGES)
            for begin, end in missing:
                self._receive(number, file, begin, end)
            # What was there before is not known yet to be of this file.
            if missing != everything and not has_hash(file, entry):
                file.truncate(0)
                self._receive(number, file, *everything[0])

    def _receive(self, number: int, file: t.BinaryIO, at: int, end: int) -> None:
        """Receive the bytes from ``at`` to ``end``. Raises _Broken or _Refused."""
        if at == end:
            return
        try:
            self._stream.sendall(b"%d %d %d\n" % (number, at, end))
            line = b""
            while not line.endswith(b"\n"):
                byte = self._stream.recv(1)
                if not byte or len(line) == _LONGEST_ANSWER:
                    raise _Broken("closed by the source")
                line += byte
        except OSError as exc:
            raise _failed(exc) from exc
        if line != b"%d\n" % (end - at):
            raise _Broken("the source offers a file of another size")
        file.seek(at)
        while at < end:
            try:
                count = self._stream.recv_into(self._buffer[: min(_CHUNK, end - at)])
            except OSError as exc:
                raise _failed(exc) from exc
            if not count:
                raise _Broken("closed by the source")
            block = self._buffer[:count]
            while block:
                block = block[file.write(block) :]
            at += count
            self._arrived += count
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + _INTERVAL
                self.tell()
