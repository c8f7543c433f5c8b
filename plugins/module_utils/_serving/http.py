# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""HTTP to an engine: bounded in time and size, without proxies and redirects."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import typing as t
from urllib.parse import urlsplit

from .._errors import DeliveryError
from .._files import open_regular

READY = "/health"
# The log-probabilities of a prompt of thousands of tokens have some megabytes.
MAX_BODY = 1 << 26
_MAX_KEY = 4096


class Unreachable(Exception):
    """Nobody answers: the connection is refused, reset, or ends within the answer."""


class TimedOut(Exception):
    """There is no complete answer in time. What was asked for may have happened, or may yet."""


class Answer(t.NamedTuple):
    """The answer of a server; ``text`` is its body."""

    status: int
    text: str
    # Seconds, from the header Retry-After.
    retry_after: float | None = None

    def json(self) -> t.Any:
        """Return the parsed body, None if it is not JSON."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None


class Client:
    """Requests to one server.

    ``timeout`` is that of a whole request, in seconds. ``ready`` is the path that answers with
    status 200 while the server is up.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 120, ready: str = READY) -> None:
        self._url = urlsplit(url)
        self._headers = {"Accept": "application/json"}
        self.has_key = api_key is not None
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.timeout = timeout
        self.ready = ready

    def get(self, path: str, timeout: float | None = None) -> Answer:
        """Raises Unreachable and TimedOut."""
        return self._request("GET", path, None, timeout)

    def post(self, path: str, body: t.Any, timeout: float | None = None) -> Answer:
        """Send JSON. Raises Unreachable and TimedOut."""
        return self._request("POST", path, json.dumps(body), timeout)

    def _request(self, method: str, path: str, body: str | None, timeout: float | None) -> Answer:
        seconds = self.timeout if timeout is None else timeout
        connect = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = connect(t.cast(str, self._url.hostname), self._url.port, timeout=seconds)
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            # A server that sends a byte now and then never runs into the timeout of the socket.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            headers = {**self._headers, **({} if body is None else {"Content-Type": "application/json"})}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(MAX_BODY + 1)
            if response.length and len(content) <= MAX_BODY:
                raise http.client.IncompleteRead(content, response.length)
        except socket.timeout as exc:
            raise TimedOut(f"did not answer within {seconds:g} seconds") from exc
        except (OSError, http.client.HTTPException) as exc:
            if overdue.is_set():
                raise TimedOut(f"did not answer within {seconds:g} seconds") from exc
            raise Unreachable(_reason(exc)) from exc
        finally:
            timer.cancel()
            connection.close()
        if overdue.is_set():
            raise TimedOut(f"did not answer within {seconds:g} seconds")
        if len(content) > MAX_BODY:
            raise Unreachable(f"sent an answer of more than {MAX_BODY} bytes")
        return Answer(response.status, content.decode("utf-8", "replace"), _seconds(response.getheader("Retry-After")))


def read_api_key(path: str) -> str:
    """Return the API key in a file. Raises DeliveryError without quoting the file."""
    with open_regular(path) as stream:
        content = stream.read(_MAX_KEY + 1)
    key = content.decode("latin-1").strip()
    if not key or len(content) > _MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise DeliveryError.of(path, "does not have one API key and nothing else.", "Write the key of the engine into it.")
    return key


def _reason(exc: Exception) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "refuses the connection"
    if isinstance(exc, (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead)):
        return "closed the connection without an answer"
    return f"cannot be reached: {getattr(exc, 'strerror', None) or exc or type(exc).__name__}"


def _seconds(header: str | None) -> float | None:
    try:
        return min(float(header), 3600.0) if header else None
    except ValueError:
        return None
