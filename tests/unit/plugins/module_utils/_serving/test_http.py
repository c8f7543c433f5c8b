# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client against sockets that answer byte by byte."""

from __future__ import annotations

import os
import pathlib
import socket
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving import http
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.http import (
    Client,
    TimedOut,
    Unreachable,
    read_api_key,
)

Serve = t.Callable[[t.Callable[[socket.socket, bytes], None]], str]


@pytest.fixture
def serve() -> t.Iterator[Serve]:
    """Return a function that serves one connection, and returns the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(answer: t.Callable[[socket.socket, bytes], None]) -> str:
        def work() -> None:
            connection, _address = listener.accept()
            with connection:
                answer(connection, connection.recv(65536))

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    with listener:
        yield start
        for thread in threads:
            thread.join()


def test_client_sends_key_and_json_and_returns_status_and_body(serve: Serve) -> None:
    seen = []

    def answer(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(b'HTTP/1.1 429 X\r\nRetry-After: 3\r\nContent-Length: 7\r\n\r\n{"a":1}')

    found = Client(serve(answer), "secret").post("/v1/x", {"b": 2})
    assert (found.status, found.json(), found.retry_after) == (429, {"a": 1}, 3.0)
    assert b"Authorization: Bearer secret\r\n" in seen[0] and b"Content-Type: application/json\r\n" in seen[0]


def test_client_follows_no_redirect_and_no_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    text = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    assert Client(serve(lambda connection, _request: connection.sendall(text))).get("/").status == 302


def test_client_gives_up_on_an_answer_that_trickles(serve: Serve) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            # Each byte arrives well within the timeout of the socket.
            while not ended.wait(0.01):
                connection.sendall(b"x")
        except OSError:
            pass

    with pytest.raises(TimedOut, match=r"did not answer within 0\.2 seconds"):
        Client(serve(answer), timeout=0.2).get("/")
    ended.set()


def test_client_gives_up_on_silence(serve: Serve) -> None:
    ended = threading.Event()
    with pytest.raises(TimedOut):
        Client(serve(lambda _connection, _request: ended.wait() and None), timeout=0.1).get("/")
    ended.set()


def test_client_refuses_a_large_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 10)
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11
    with pytest.raises(Unreachable, match="more than 10 bytes"):
        Client(serve(lambda connection, _request: connection.sendall(text))).get("/")


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_client_says_that_the_connection_was_closed(serve: Serve, text: bytes) -> None:
    with pytest.raises(Unreachable):
        Client(serve(lambda connection, _request: connection.sendall(text))).get("/")


def test_client_says_that_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="refuses the connection"):
        Client(f"http://127.0.0.1:{port}").get("/")


def test_answer_that_is_no_json_is_none() -> None:
    assert http.Answer(200, "Success").json() is None
    assert http.Answer(200, "[" * 100_000).json() is None


def test_api_key_is_read_from_a_plain_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1234\n")
    assert read_api_key(str(path)) == "sk-1234"


@pytest.mark.parametrize("content", ["", "\n", "two keys", "secret\nsecret", "k\u00e9y", "x" * 5000])
def test_api_key_of_another_form_is_refused_without_quoting_it(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DeliveryError, match="does not have one API key") as caught:
        read_api_key(str(path))
    assert "secret" not in str(caught.value)


def test_api_key_in_a_fifo_is_refused(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(DeliveryError, match="is not a plain file"):
        read_api_key(str(tmp_path / "key"))
