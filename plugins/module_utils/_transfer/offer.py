# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""The source's end of a direct transfer: offers a few files to one node.

They are opened before anybody can connect. From then on, the process opens nothing, starts nothing
and, if it was started by root, has the rights of nobody. A client that has proved to be the node
names a file by its number, and the bytes that it lacks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
import typing as t

from .channel import end_with_controller, tell
from .offered import confine, listen, open_file
from .tls import context_of

_CHUNK = 1 << 18
# Connections that have not proved yet to be the node's, and the seconds that each has for it.
_MOST_STRANGERS = 64
_HANDSHAKE_TIMEOUT = 20
# Seconds to wait for a descriptor.
_PAUSE = 0.1
_LONGEST_REQUEST = 64
# For each file. An honest node has at most 61, if what was staged has many holes and is wrong.
_MOST_REQUESTS = 64
# A connection may be idle so many times as long between two requests as within an answer.
_IDLE_FACTOR = 10


def main(job: dict[str, t.Any]) -> None:
    """Offer files until the controller ends this process.

    ``job`` has the ``files`` (``path`` and ``size``), the first and the last of the ``ports`` to
    listen on (0 for any), whether to listen on this machine only (``local``), ``certificate``,
    ``key`` and ``other`` of ``context_of``, the bytes per second (``rate``, 0 for no limit), the
    seconds that a connection may be idle (``timeout``), ``most``, the bytes that the node may get
    in all, and the seconds of ``lease``. Answers with the ``port``, or with the ``problem``.
    """
    try:
        files = [(open_file(entry["path"], entry["size"]), entry["size"]) for entry in job["files"]]
        context = context_of(True, job["certificate"], job["key"], job["other"])
        listener = listen(job["local"], job["ports"], _MOST_STRANGERS)
    except OSError as exc:
        tell(problem=f"{exc.filename or ''}: {exc.strerror or exc}".lstrip(": "))
        return
    end_with_controller(job["lease"], lambda: None)
    confine()
    tell(port=listener.getsockname()[1])
    _Offer(files, context, job["rate"], job["timeout"], job["most"]).serve(listener)


class _Offer:
    """Serves one node, over one connection at a time: a new one ends the one before."""

    def __init__(self, files: list[tuple[int, int]], context: ssl.SSLContext, rate: int, timeout: float, most: int) -> None:
        self._files, self._context, self._rate, self._timeout, self._left = files, context, rate, timeout, most
        self._requests_left = _MOST_REQUESTS * len(files)
        self._changing = threading.Lock()
        # Those without a complete handshake, the oldest first.
        self._strangers: list[socket.socket] = []
        self._current: socket.socket | None = None
        self._serving = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                # No descriptor is left, until a stranger has gone.
                time.sleep(_PAUSE)
                continue
            # It may have been reset already.
            with contextlib.suppress(OSError, ValueError):
                client = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                self._admit(client)

    def _admit(self, client: ssl.SSLSocket) -> None:
        client.settimeout(_HANDSHAKE_TIMEOUT)
        with self._changing:
            # A crowd of strangers must not keep the node out: the oldest of them has to leave.
            if len(self._strangers) == _MOST_STRANGERS:
                _shut(self._strangers.pop(0))
            self._strangers.append(client)
        try:
            threading.Thread(target=self._greet, args=(client,), daemon=True).start()
        except RuntimeError:
            # No thread is left.
            self._forget(client)
            client.close()

    def _forget(self, stranger: socket.socket) -> None:
        with self._changing, contextlib.suppress(ValueError):
            self._strangers.remove(stranger)

    def _greet(self, client: ssl.SSLSocket) -> None:
        """Serve a connection if the node has opened it."""
        with client, contextlib.suppress(OSError, ValueError):
            try:
                # The time limit is for all of it, not for each byte.
                client.do_handshake()
            finally:
                self._forget(client)
            with self._changing:
                if self._current:
                    _shut(self._current)
                self._current = client
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._serving:
                while self._answer(client):
                    pass

    def _answer(self, client: ssl.SSLSocket) -> bool:
        """Answer one request: a line with the number of a file and where to begin and to end.

        The answer is a line with the number of bytes, and the bytes. Raises ValueError for
        anything else.
        """
        # The node may be hashing what was there already.
        client.settimeout(_IDLE_FACTOR * self._timeout)
        self._requests_left -= 1
        request = b""
        while not request.endswith(b"\n"):
            byte = client.recv(1)
            if not byte or len(request) == _LONGEST_REQUEST or self._requests_left < 0:
                return False
            request += byte
        number, at, end = map(int, request.split())
        if not 0 <= number < len(self._files):
            raise ValueError(number)
        descriptor, size = self._files[number]
        if not 0 <= at <= end <= size:
            raise ValueError(at, end)
        client.settimeout(self._timeout)
        client.sendall(b"%d\n" % (end - at))
        chunk = min(_CHUNK, max(1024, self._rate // 10)) if self._rate else _CHUNK
        began, sent = time.monotonic(), 0
        while at < end:
            block = os.pread(descriptor, min(chunk, end - at), at)
            self._left -= len(block)
            # The file has become shorter, or the node asks for the same bytes again and again.
            if not block or self._left < 0:
                return False
            client.sendall(block)
            at, sent = at + len(block), sent + len(block)
            if self._rate:
                time.sleep(max(0.0, began + sent / self._rate - time.monotonic()))
        return True


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # The method of an SSLSocket would first let other threads go on without encryption.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
