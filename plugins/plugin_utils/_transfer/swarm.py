# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The way ``swarm``: the nodes of an agent get the files from the source and from each other.

Every worker of the run starts a member of the swarm on its node, and one of them that of the
source. If that worker ends, another one takes its place. The workers tell the members of each
other, and sign a certificate for each. Without one, nobody gets a byte.
"""

from __future__ import annotations

import base64
import collections.abc as c
import contextlib
import dataclasses
import ipaddress
import re
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import channel, offered, staged, swarm, torrent
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import SWARM, ports_of, ways_of

from .._contact.answers import INSPECT
from .._contact.forms import Exact, Flag, Form, Integer, Text
from .arrivals import Arrivals, TooSlow
from .direct import KEPT, rate_of
from .direct_ways import address_of, python_of
from .meeting import SOURCE, Meeting
from .program import Program, Unreached, kept_alive, lease
from .relay import End
from .rsync import TransferOptions, keepalive_timeout
from .ways import Progress, Wanted

_PARTS = (channel, offered, staged, torrent, swarm)
_PROBLEM = Text(1 << 12)
_SOURCE_ANSWERS: dict[str, Form] = {
    "file": Integer(),
    "root": Exact(64, re.compile("[0-9a-f]{64}"), "a SHA-256"),
    "layer": Exact(1 << 16, re.compile("[0-9A-Za-z+/]*=*"), "a list of hashes"),
    "port": Integer(),
    "sent": Integer(),
    "problem": _PROBLEM,
    "unusable": Flag(),
}
_NODE_ANSWERS: dict[str, Form] = {
    "port": Integer(),
    "bytes": Integer(),
    "problem": _PROBLEM,
    "unusable": Flag(),
    "unreachable": Flag(),
    "broke": Flag(),
}
_RETRY_DELAY = 2
# Seconds in which a node has to reach the first member.
_REACH = 20
_POLL_INTERVAL = 0.05
# A node that has all of an adapter gives to others for this part of the time that it has taken.
_SHARING = 0.25


class _Broke(Exception):
    """This try has ended; another one may succeed."""


@dataclasses.dataclass
class SwarmWay:
    """``source`` and ``node`` are their names, under their addresses the members reach them.

    Both listen on a port from the first to the last of ``ports``. ``directory`` is shared by all
    workers of the run. ``follows`` is whether another way was tried before, which may still hold
    the staging directory.
    """

    source: str
    node: str
    source_end: End
    node_end: End
    source_python: str
    node_python: str
    source_address: str
    node_address: str
    ports: tuple[int, int]
    plaintext: bool
    directory: str
    options: TransferOptions
    tries: int
    follows: bool = False
    name: t.ClassVar[str] = SWARM
    received: int = 0
    given_up: str = ""
    # Adapters that the node has and gives to others.
    _shared: list[_Member] = dataclasses.field(default_factory=list)

    def fetch(self, wanted: Wanted, progress: Progress) -> None:
        arrivals = Arrivals(wanted, self.options, progress)
        for number in range(self.tries):
            if number:
                time.sleep(_RETRY_DELAY)
            member = _Member(self, wanted, number)
            try:
                member.get(arrivals)
            except (_Broke, Unreached) as exc:
                failure = exc if isinstance(exc, DeliveryError) else self.error(wanted, f"{exc}.", KEPT)
                member.close()
            except BaseException:
                member.close()
                self.close()
                raise
            else:
                self._shared.append(member)
                return
            # The connections may hang.
            self.close()
            self.source_end.close()
            self.node_end.close()
        raise failure

    def tend_shared(self) -> None:
        """Keep the members alive that give to others, and end those whose time is over."""
        for member in list(self._shared):
            if not member.is_useful():
                member.close()
                self._shared.remove(member)

    def share(self) -> None:
        """Let the node give to others what it has, for a limited time."""
        while self._shared:
            self.tend_shared()
            time.sleep(_POLL_INTERVAL)

    def close(self) -> None:
        for member in self._shared:
            member.close()
        self._shared.clear()

    def error(self, wanted: Wanted, problem: str, remedy: str) -> DeliveryError:
        what = f"could not be transferred by the swarm of {self.source} to {self.node}: {problem}"
        return DeliveryError.of("", what, remedy, wanted.manifest.name)


class _Member:
    """One node's part in the swarm of one adapter, and the source's where this worker runs it."""

    def __init__(self, way: SwarmWay, wanted: Wanted, number: int) -> None:
        self._way, self._wanted, self._number = way, wanted, number
        self._running, self._at_source = contextlib.ExitStack(), contextlib.ExitStack()
        self._meeting = self._running.enter_context(Meeting(way.directory, way.source, wanted.manifest.digest))
        self._authority = None if way.plaintext else self._meeting.authority()
        self._piece = torrent.piece_size(sum(entry.size for entry in wanted.manifest.files))
        self._node: Program | None = None
        self._source: Program | None = None
        self._starts, self._until, self._heard_at, self._rest_until = 0, 0.0, 0.0, 0.0
        self._port, self._joined, self._announced = 0, False, False
        # Whether this worker runs the source's member, and whether that has said its port.
        self._leads, self._serves = False, False
        self._hashes: list[dict[str, str]] = []

    def close(self) -> None:
        self._end_source()
        if self._node:
            # It writes what it has in memory.
            self._node.end()
        self._running.close()

    def get(self, arrivals: Arrivals) -> None:
        """Get all that is missing. Raises _Broke if another try may succeed."""
        began, before = time.monotonic(), arrivals.bytes
        self._node = self._started(self._running, at_source=False)
        try:
            answer = self._join() or arrivals.follow(self._node, lambda arrived: self._tend())
        except TooSlow as exc:
            self._way.given_up = str(exc)
            remedy = f"Set transfer_minimum_rate below the rate of these links. {KEPT}"
            raise self._way.error(self._wanted, self._way.given_up, remedy) from exc
        finally:
            self._way.received += arrivals.bytes - before
        if answer is None:
            raise _Broke(_reason(self._node.ended()))
        self._judge(answer)
        self._meeting.leave_receivers()
        self._until = time.monotonic() + min(_SHARING * (time.monotonic() - began), self._way.options.timeout)

    def is_useful(self) -> bool:
        """Return whether others may still need this member; keep it alive."""
        if time.monotonic() > self._until or not self._meeting.has_receivers() or self._node is None:
            return False
        try:
            alive = self._node.answers(0) is not None
            self._watch_source()
        except (DeliveryError, _Broke):
            return False
        if self._leads and self._source is None:
            # A worker whose node still gets files starts it again.
            self._end_source()
        return alive

    def _join(self) -> dict[str, t.Any] | None:
        """Wait until the node's member has what it needs. Returns its answer if it has failed."""
        node, limit = t.cast("Program", self._node), keepalive_timeout(self._way.options.timeout)
        deadline = time.monotonic() + limit
        while not self._joined:
            if time.monotonic() > deadline:
                # The next try would take as long.
                self._way.given_up = f"{self._way.source} did not offer the files within {limit} seconds."
                raise self._way.error(self._wanted, self._way.given_up, f"Set transfer to another way. {KEPT}")
            answers = node.answers(_POLL_INTERVAL)
            if answers is None:
                error = node.ended()
                if not isinstance(error, Unreached):
                    self._way.given_up = f"{_reason(error)}."
                raise error
            for answer in answers:
                if "problem" in answer:
                    return answer
                # Once: every other member is sent what a node announces.
                if "port" in answer and not self._port:
                    self._port = self._permitted(self._way.node, answer["port"])
                    self._meeting.announce(self._way.node, self._way.node_address, self._port)
            self._tend()
        return None

    def _tend(self) -> None:
        """Run the source's member if nobody does, and tell the node's what is new."""
        self._way.tend_shared()
        self._watch_source()
        if self._source is None and time.monotonic() >= self._rest_until:
            self._leads = self._leads or self._meeting.lead()
            if self._leads:
                self._start_source()
        if not self._port:
            return
        node = t.cast("Program", self._node)
        if not self._joined:
            hashes = self._meeting.hashes()
            if hashes is None:
                return
            node.say(hashes=hashes)
            self._joined = True
        # Of two nodes, the one that was announced later connects to the other.
        others = []
        for name, address, port in self._meeting.new_members():
            self._announced = self._announced or (name, port) == (self._way.node, self._port)
            if name == SOURCE or not self._announced:
                others.append((address, port))
        if others:
            node.say(members=others)

    # --- the source's member ---

    def _start_source(self) -> None:
        """Start it, unless that has failed too often. Raises DeliveryError and _Broke."""
        failed = self._meeting.failed_starts()
        if failed and (failed[-1][1] or len(failed) >= self._way.tries or self._starts >= self._way.tries):
            self._end_source()
            problem, final = failed[-1]
            self._way.given_up = f"{problem}." if final else ""
            raise self._way.error(self._wanted, f"{problem}.", f"Correct it there, or set transfer to another way. {KEPT}")
        self._starts += 1
        try:
            self._source = self._started(self._at_source, at_source=True)
        except DeliveryError as exc:
            self._fail_source(_reason(exc), final=not isinstance(exc, Unreached))
            return
        self._heard_at, self._serves = time.monotonic(), False
        self._hashes = [{"root": "", "layer": ""} for entry in self._wanted.manifest.files if entry.size]

    def _watch_source(self) -> None:
        """Read what the source's member says, and end it if it has failed."""
        if self._source is None:
            return
        answers = self._source.answers(0)
        if answers is None:
            self._fail_source(_reason(self._source.ended()))
            return
        for answer in answers:
            self._heard_at = time.monotonic()
            if "problem" in answer:
                self._fail_source(f"{self._way.source}: {answer['problem']}", final=bool(answer.get("unusable")))
                return
            if "file" in answer:
                self._add_hashes(answer)
            if "port" in answer and not self._serves:
                self._serves = True
                self._serve(self._permitted(self._way.source, answer["port"]))
        if time.monotonic() - self._heard_at > self._way.options.timeout:
            self._fail_source(f"{self._way.source} was silent for {self._way.options.timeout} seconds")

    def _add_hashes(self, answer: dict[str, t.Any]) -> None:
        number = answer["file"]
        if not 0 <= number < len(self._hashes):
            raise DeliveryError.of(self._way.source, "described a file that it was not asked for.", INSPECT)
        self._hashes[number]["root"] = answer.get("root", "")
        self._hashes[number]["layer"] += answer.get("layer", "")
        size = [entry.size for entry in self._wanted.manifest.files if entry.size][number]
        if len(self._hashes[number]["layer"]) > 4 * (torrent.layer_size(size, self._piece) // 3 + 2):
            raise DeliveryError.of(self._way.source, "described a file with too many hashes.", INSPECT)

    def _serve(self, port: int) -> None:
        """The source's member is ready."""
        if self._meeting.hashes() is None:
            self._check_hashes()
            self._meeting.publish(self._hashes)
        self._meeting.announce(SOURCE, self._way.source_address, port)
        self._meeting.record_start()

    def _check_hashes(self) -> None:
        sizes = [entry.size for entry in self._wanted.manifest.files if entry.size]
        for size, found in zip(sizes, self._hashes):
            try:
                layer = base64.b64decode(found["layer"], validate=True)
            except ValueError:
                layer = None
            if not found["root"] or layer is None or len(layer) != torrent.layer_size(size, self._piece):
                raise DeliveryError.of(self._way.source, "described the files incompletely.", INSPECT)

    def _fail_source(self, problem: str, final: bool = False) -> None:
        """It has failed. The next start is this worker's, too."""
        self._meeting.record_start(problem, final)
        self._at_source.close()
        self._source = None
        self._rest_until = time.monotonic() + (0 if final else _RETRY_DELAY)

    def _end_source(self) -> None:
        self._at_source.close()
        self._source, self._leads = None, False
        self._meeting.stop_leading()

    # --- both ---

    def _started(self, running: contextlib.ExitStack, at_source: bool) -> Program:
        """A member at an end, with its job."""
        way = self._way
        if at_source:
            host, end, python, answers = way.source, way.source_end, way.source_python, _SOURCE_ANSWERS
        else:
            host, end, python, answers = way.node, way.node_end, way.node_python, _NODE_ANSWERS
        others = [program for one in (self, *way._shared) for program in (one._node, one._source) if program]
        try:
            with kept_alive(others):
                program = Program(running, end, host, python, _PARTS, answers, way.options.timeout)
                program.begin(**self._job(at_source), tls=self._tls())
        except DeliveryError as exc:
            if not isinstance(exc, Unreached) and not at_source:
                way.given_up = f"{_reason(exc)}."
            raise
        return program

    def _job(self, at_source: bool) -> dict[str, t.Any]:
        wanted, way = self._wanted, self._way
        files = [
            {
                "path": wanted.at_source(entry.path) if at_source else entry.path,
                "size": entry.size,
                "wanted": entry.path in wanted.names,
            }
            for entry in wanted.manifest.files
        ]
        return {
            "files": files,
            "piece": self._piece,
            "ports": way.ports,
            "rate": rate_of(way.options.bwlimit),
            "crowded": is_loopback(way.source_address if at_source else way.node_address),
            "timeout": way.options.timeout,
            "reach": _REACH,
            "staging": None if at_source else wanted.staging,
            # The program of the try before may not know yet that its controller is gone.
            "lock_timeout": 2 * lease(way.options.timeout) if way.follows or self._number else 0,
            "hashes": self._meeting.hashes() if at_source else None,
        }

    def _tls(self) -> dict[str, str] | None:
        if self._authority is None:
            return None
        issued = self._authority.issue(torrent.NAME)
        return {"authority": self._authority.certificate, "certificate": issued.certificate, "key": issued.key}

    def _permitted(self, host: str, port: int) -> int:
        first, last = self._way.ports
        if not (first <= port <= last if first else 0 < port < 1 << 16):
            raise DeliveryError.of(host, f"listens on port {port}, which the inventory does not permit.", INSPECT)
        return port

    def _judge(self, answer: dict[str, t.Any]) -> None:
        problem, way = answer["problem"], self._way
        if not problem:
            return
        if answer.get("broke"):
            raise _Broke(problem)
        if answer.get("unusable"):
            way.given_up = f"{way.node}: {problem}."
            remedy = "Install libtorrent for that interpreter, set transfer_swarm_python, or set transfer to auto."
            raise way.error(self._wanted, way.given_up, f"{remedy} {KEPT}")
        if answer.get("unreachable"):
            way.given_up = f"{problem}."
            remedy = (
                "Open transfer_swarm_ports between the source and the nodes, correct their addresses or set transfer to auto."
            )
            raise way.error(self._wanted, way.given_up, f"{remedy} {KEPT}")
        raise way.error(self._wanted, f"{problem}.", KEPT)


def _reason(error: DeliveryError) -> str:
    return " ".join(f"{problem.subject} {problem.problem}" for problem in error.problems).rstrip(".")


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def swarm_way(
    given: c.Mapping[str, t.Any],
    ends: tuple[str, str, End, End],
    hostvars: c.Mapping[str, c.Mapping[str, t.Any]],
    node_python: str,
    options: TransferOptions,
    directory: str,
) -> SwarmWay | None:
    """Return the way if it is to be tried.

    ``given`` are the options ``transfer_*`` of the task, ``ends`` the names of source and node and
    their ends.
    """
    names = ways_of(given)
    if SWARM not in names:
        return None
    source, node = ends[:2]
    return SwarmWay(
        *ends,
        given["transfer_swarm_source_python"] or python_of(hostvars[source]),
        given["transfer_swarm_python"] or node_python,
        given["transfer_direct_address"] or address_of(source, hostvars[source]),
        given["transfer_swarm_address"] or address_of(node, hostvars[node]),
        ports_of(given["transfer_swarm_ports"]),
        given["transfer_swarm_plaintext"],
        *(directory, options, given["transfer_tries"]),
        follows=names[0] != SWARM,
    )
