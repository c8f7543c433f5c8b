# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP servers of a fake engine: the engine's own, and one for the test that controls it.

The control server is on a port of its own, and answers when the engine is dead, too:

=========================  =========================================================
GET /calls                 the calls of the engine, in order
POST /faults               add faults (a list of the fields of ``Fault``)
DELETE /faults             remove all faults
POST /held?calls=1         wait until so many calls are held
POST /release              let all held calls go on
POST /restart              end the engine, with its faults, and start it again
POST /start                start another engine instead: the fields of ``Settings``
=========================  =========================================================
"""

from __future__ import annotations

import dataclasses
import http.server
import importlib
import os
import socket
import struct
import threading
import typing as t

from .faults import DEAD, DIES, HOLD, RESET, STATUS, STOPS, WAIT, Fault, Faults
from .personality import OTHER, Answer, Call, Personality, Settings, Work

_HELD_LIMIT = 60
_SHOWN = 4000


@dataclasses.dataclass
class Seen:
    """A call of the engine. ``status`` is None while it is not answered, or if it never is."""

    kind: str
    name: str
    route: str
    body: str
    status: int | None = None
    answer: str = ""
    dead: bool = False


class Engine:
    """A fake engine, as a process: it may start, die and start again on the same port."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.calls: list[Seen] = []
        self.gone = False
        self.faults = Faults()
        self.personality = _started(settings, self.faults)
        self.server: _Server | None = _Server(("127.0.0.1", 0), _handler(self.answer))
        self.port = self.server.server_address[1]
        _serve(self.server)

    def restart(self) -> None:
        """End it and start it again. Faults and unanswered calls belong to the old process."""
        self.faults.release()
        self.faults = Faults()
        try:
            self.personality = _started(self.settings, self.faults)
        except (OSError, ValueError):
            # An adapter of the start cannot be read.
            self.die(refusing=True)
            return
        self.gone = False
        if self.server is None:
            self.server = _Server(("127.0.0.1", self.port), _handler(self.answer))
            _serve(self.server)

    def replace(self, settings: Settings) -> None:
        """End it and start another engine on the same port."""
        self.settings, self.calls = settings, []
        self.restart()

    def die(self, refusing: bool) -> None:
        self.gone = True
        if refusing and self.server is not None:
            # Without the listener, connections are refused.
            server, self.server = self.server, None
            server.shutdown()
            server.server_close()

    def answer(self, call: Call) -> Answer | None:
        """Return the answer to a call, or None if its connection is reset."""
        body = call.content.decode("utf-8", "replace")[:_SHOWN]
        if self.gone:
            self.calls.append(Seen(OTHER, "", call.route, body, dead=True))
            return None
        personality, faults = self.personality, self.faults
        with personality.admitted(call) as refusal:
            if refusal is not None:
                self.calls.append(Seen(refusal.kind, refusal.name, call.route, body))
                return self._seen(self.calls[-1], refusal.finish())
            work = personality.begin(call)
            seen = Seen(work.kind, work.name, call.route, body, dead=personality.dead)
            self.calls.append(seen)
            return self._seen(seen, self._carried_out(personality, faults, work))

    def _carried_out(self, personality: Personality, faults: Faults, work: Work) -> Answer | None:
        fault = faults.instead(work.kind, work.name, after=False)
        if fault is not None and not self._goes_on(personality, faults, fault):
            return self._instead(fault)
        answer = personality.without_engine(work) if personality.dead else work.finish()
        fault = faults.instead(work.kind, work.name, after=True)
        if fault is not None and not self._goes_on(personality, faults, fault):
            return self._instead(fault)
        return None if self.gone or personality is not self.personality else answer

    def _goes_on(self, personality: Personality, faults: Faults, fault: Fault) -> bool:
        if fault.does in (HOLD, WAIT):
            faults.pause(fault)
        elif fault.does in (DIES, STOPS):
            self.die(refusing=fault.does == STOPS)
        elif fault.does == DEAD:
            personality.dead = True
        return fault.does not in (STATUS, RESET, DIES, STOPS)

    @staticmethod
    def _instead(fault: Fault) -> Answer | None:
        return Answer(fault.status, fault.body) if fault.does == STATUS else None

    @staticmethod
    def _seen(seen: Seen, answer: Answer | None) -> Answer | None:
        if answer is not None:
            seen.status, seen.answer = answer.status, answer.encoded().decode("utf-8", "replace")[:_SHOWN]
        return answer

    # Control

    def control(self, call: Call) -> Answer | None:
        if call.route == "GET /calls":
            return Answer(200, [dataclasses.asdict(seen) for seen in self.calls])
        if call.route == "POST /faults":
            for fields in call.json():
                self.faults.add(Fault(**fields))
        elif call.route == "DELETE /faults":
            self.faults.clear()
        elif call.route == "POST /held":
            return Answer(200, self.faults.wait_until_held(int(call.query["calls"][0]), _HELD_LIMIT))
        elif call.route == "POST /release":
            self.faults.release()
        elif call.route == "POST /restart":
            self.restart()
        elif call.route == "POST /start":
            self.replace(Settings(**call.json()))
        else:
            return Answer(404, "no such route")
        return Answer(200, {})


def _started(settings: Settings, faults: Faults) -> Personality:
    module = importlib.import_module(f".personalities.{settings.personality}", __package__)
    personality: type[Personality] = module.PERSONALITY
    return personality(settings, faults)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Print nothing: clients that give up are part of the tests."""


def _serve(server: http.server.HTTPServer) -> None:
    # The default interval delays the end of the server.
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()


def _handler(answer: t.Callable[[Call], Answer | None]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_call(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.title(): value for name, value in self.headers.items()}
            found = answer(Call.of(self.command, self.path, headers, content))
            if found is None:
                self.reset()
                return
            data = found.encoded()
            self.send_response(found.status)
            if found.content_type:
                self.send_header("Content-Type", found.content_type)
            for name, value in found.headers.items():
                if name != "Content-Type":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PUT = handle_call

        def reset(self) -> None:
            self.close_connection = True
            # Without lingering, closing resets the connection. Closing it in Python would first
            # end it in an orderly way.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

        def log_message(self, *args: t.Any) -> None:
            pass

    return Handler


def serve() -> tuple[int, int]:
    """Serve in threads. Returns the ports of the engine and of its control."""
    engine = Engine(Settings("lmdeploy", base=""))
    control = _Server(("127.0.0.1", 0), _handler(engine.control))
    _serve(control)
    return engine.port, control.server_address[1]
