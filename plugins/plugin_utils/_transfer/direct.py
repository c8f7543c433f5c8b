# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The way ``direct``: the node gets the files from a port of the source, over TLS.

For each adapter and node, a program at the source offers the files and nothing else, and one on the
node gets them. The controller makes a key and a certificate for each of the two, which are in
memory only, and tells each the other's over its ssh connections, whose host keys it has checked.
Both programs end with their connection to the controller. Nothing is written at the source.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import channel, collect, offer, offered, staged, tls
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT

from .._contact.answers import INSPECT
from .._contact.forms import Exact, Flag, Form, Integer, Text
from .arrivals import INTERVAL, Arrivals, TooSlow
from .identity import Identity
from .program import NotStarted, Program, Unreached, lease
from .relay import End
from .rsync import TransferOptions
from .ways import Progress, Wanted

_PROBLEM = Text(1 << 12)
_OFFER_ANSWERS: dict[str, Form] = {"port": Integer(), "problem": _PROBLEM}
_COLLECT_ANSWERS: dict[str, Form] = {
    "bytes": Integer(),
    "problem": _PROBLEM,
    "own": Exact(64, re.compile(r"[0-9A-Za-z.:%_-]*"), "an address"),
    **dict.fromkeys(("unreachable", "denied", "stranger", "broke"), Flag()),
}
_OFFER = (channel, offered, tls, offer)
_COLLECT = (channel, tls, staged, collect)
# Of no adapter: no file, and no staging directory.
NOTHING = Wanted(Manifest("", (), (), {}, {}), (), "")
_RETRY_DELAY = 2
KEPT = "The received files were kept; run again to resume. The served files were not changed."
_UNITS = {"": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Broke(Exception):
    """The connection between the two ends broke, for the given reason."""


@dataclasses.dataclass
class DirectWay:
    """``source`` and ``node`` are their names.

    Nodes reach the source at ``address``, and a port from the first to the last of ``ports``.
    ``follows`` is whether another way was tried before, which may still hold the staging directory.
    """

    source: str
    node: str
    source_end: End
    node_end: End
    source_python: str
    node_python: str
    address: str
    ports: tuple[int, int]
    options: TransferOptions
    tries: int
    follows: bool = False
    name: t.ClassVar[str] = DIRECT
    unreachable: t.ClassVar[str] = (
        "Open this port of the source for the node, correct transfer_direct_address or set transfer to auto."
    )
    stranger: t.ClassVar[str] = (
        "Something else answers there, or stands between the hosts: correct transfer_direct_address and"
        " transfer_direct_ports, or set transfer to auto."
    )
    # Whether the offer listens for connections from its own machine only.
    local: t.ClassVar[bool] = False
    received: int = 0
    given_up: str = ""
    # The port and the address that the node was last sent to.
    place: str = ""
    # For the adapter that is being transferred: how often both ends have begun.
    _attempts: int = 0

    def probe(self) -> str:
        """Connect the node to the source without a transfer; return where. Raises DeliveryError."""
        self.tries = 1
        self.fetch(NOTHING, lambda count: None)
        return self.place

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        arrivals = Arrivals(wanted, self.options, progress)
        self._attempts = 0
        try:
            self._try(wanted, arrivals)
        except NotStarted as exc:
            # It would not start for the next adapter either.
            self.given_up = " ".join(f"{problem.subject} {problem.problem}" for problem in exc.problems)
            raise

    def _try(self, wanted: Wanted, arrivals: Arrivals) -> None:
        for number in range(self.tries):
            if number:
                time.sleep(_RETRY_DELAY)
            try:
                return self._attempt(wanted, arrivals)
            except _Broke as exc:
                failure = self._error(wanted, f"{exc}.")
            except Unreached as exc:
                failure = exc
            except DeliveryError:
                self._close()
                raise
            # The connections may hang.
            self._close()
        raise failure

    def _close(self) -> None:
        self.source_end.close()
        self.node_end.close()

    def _attempt(self, wanted: Wanted, arrivals: Arrivals) -> None:
        """Get all that is missing. Raises _Broke if another attempt may succeed."""
        at_source, at_node = Identity.new(), Identity.new()
        files = [{**dataclasses.asdict(entry), "path": wanted.at_source(entry.path)} for entry in wanted.files]
        with contextlib.ExitStack() as running:
            timeout = self.options.timeout
            # Both start at the same time.
            collecting = Program(running, self.node_end, self.node, self.node_python, _COLLECT, _COLLECT_ANSWERS, timeout)
            offering = Program(running, self.source_end, self.source, self.source_python, _OFFER, _OFFER_ANSWERS, timeout)
            offering.begin(
                files=files,
                ports=self.ports,
                certificate=at_source.certificate,
                key=at_source.key,
                other=at_node.certificate,
                rate=rate_of(self.options.bwlimit),
                local=self.local,
                # Once, and again if the staged beginning of a file was not that of this one.
                most=2 * sum(entry.size for entry in wanted.files),
                timeout=timeout,
            )
            access = self._access(running, self._port(offering, wanted), wanted)
            self.place = f"port {access['port']} of {self.address}"
            collecting.begin(
                files=[dataclasses.asdict(entry) for entry in wanted.files],
                staging=wanted.staging,
                address=self.address,
                **access,
                certificate=at_node.certificate,
                key=at_node.key,
                other=at_source.certificate,
                timeout=timeout,
                # The program of the attempt before may not know yet that its controller is gone.
                lock_timeout=2 * lease(timeout) if self.follows or self._attempts else 0,
            )
            self._attempts += 1
            self._follow(offering, collecting, wanted, arrivals)

    def _access(self, running: contextlib.ExitStack, port: int, wanted: Wanted) -> dict[str, t.Any]:
        """What the node needs to reach the offer, which listens on a port of the source."""
        return {"port": port, "ssh": None}

    def _watch_login(self, is_in: bool) -> None:
        """Called now and then with whether the node has reached the offer."""

    def _first(self, program: Program, wanted: Wanted) -> dict[str, t.Any]:
        """The first answer of a program at the source."""
        deadline = time.monotonic() + self.options.timeout
        while time.monotonic() < deadline:
            answers = program.answers(INTERVAL)
            if answers is None:
                error = program.ended()
                if not isinstance(error, Unreached):
                    # An older Python, for instance.
                    self.given_up = str(error.problems[0]).rstrip()
                raise error
            if answers:
                return answers[0]
        raise self._error(wanted, f"{self.source} did not answer within {self.options.timeout} seconds.")

    def _port(self, offering: Program, wanted: Wanted) -> int:
        """The port that the source listens on."""
        answer = self._first(offering, wanted)
        if "problem" in answer:
            raise self._error(wanted, f"{self.source}: {answer['problem']}.", "Correct it there.")
        first, last = self.ports
        port = int(answer.get("port", 0))
        if not (first <= port <= last if first else 0 < port < 1 << 16):
            raise DeliveryError.of(self.source, f"listens on port {port}, which the inventory does not permit.", INSPECT)
        return port

    def _follow(self, offering: Program, collecting: Program, wanted: Wanted, arrivals: Arrivals) -> None:
        def look_at_source(arrived: int) -> None:
            # Also keeps it alive.
            if offering.answers(0) is None:
                raise _Broke(str(offering.ended().problems[0]).rstrip("."))
            self._watch_login(arrived > 0)

        before = arrivals.bytes
        try:
            answer = arrivals.follow(collecting, look_at_source)
        except TooSlow as exc:
            self.given_up = str(exc)
            remedy = "Set transfer_minimum_rate below the rate of this link."
            raise self._error(wanted, self.given_up, remedy) from exc
        finally:
            self.received += arrivals.bytes - before
        if answer is None:
            raise _Broke(str(collecting.ended().problems[0]).rstrip("."))
        self._judge(answer, wanted)

    def _judge(self, answer: dict[str, t.Any], wanted: Wanted) -> None:
        problem = answer["problem"]
        if answer.get("broke"):
            raise _Broke(problem)
        if answer.get("unreachable"):
            self.given_up = f"{problem}."
            raise self._error(wanted, self.given_up, self.unreachable)
        if answer.get("stranger"):
            raise self._error(wanted, f"{problem}.", self.stranger)
        if problem:
            raise self._error(wanted, f"{problem}.")

    def _error(self, wanted: Wanted, problem: str, remedy: str = "") -> DeliveryError:
        if not wanted.names:
            return DeliveryError.of("", problem, remedy)
        what = f"could not be transferred directly from {self.source} to {self.node}: {problem}"
        return DeliveryError.of("", what, f"{remedy} {KEPT}".lstrip(), wanted.manifest.name)


def rate_of(bwlimit: str) -> int:
    """The bytes per second of a value of rsync's option bwlimit; 0 for no limit."""
    if not bwlimit:
        return 0
    unit = bwlimit[-1].upper() if bwlimit[-1].isalpha() else ""
    return int(float(bwlimit[: len(bwlimit) - len(unit)]) * _UNITS[unit])
