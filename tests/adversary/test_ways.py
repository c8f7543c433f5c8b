# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends of a transfer that do what their owners like, and others on the network."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import admit, offer
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.tls import NAME, context_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import direct, program, swarm
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.identity import Identity
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.meeting import SOURCE, Meeting
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.program import Program
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Ways

from tests.support import sshd
from tests.support.ways import LOCAL, WAYS, Site, interpreter, random_bytes

LIMIT = 30
DATA = b"the bytes of an adapter"


@dataclasses.dataclass
class Offered:
    """A running offer of one file, ``DATA``."""

    port: int
    source: Identity
    node: Identity
    program: Program

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), LIMIT)

    def connect(self) -> ssl.SSLSocket:
        """A connection of the node itself."""
        context = context_of(False, self.node.certificate, self.node.key, self.source.certificate)
        return context.wrap_socket(self.plain(), server_hostname=NAME)

    def serves(self) -> bool:
        with self.connect() as stream:
            stream.sendall(b"0 0 %d\n" % len(DATA))
            return received(stream, len(DATA) + 3) == b"%d\n" % len(DATA) + DATA

    def printed(self) -> str:
        return os.pread(self.program._stderr.fileno(), 1 << 20, 0).decode()


def received(stream: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        block = stream.recv(count - len(found))
        if not block:
            break
        found += block
    return found


@pytest.fixture
def offered(tmp_path: pathlib.Path) -> t.Iterator[Offered]:
    (tmp_path / "weights").write_bytes(DATA)
    source, node = Identity.new(), Identity.new()
    with contextlib.ExitStack() as running:
        program = Program(running, LOCAL, "sbs29", sys.executable, direct._OFFER, direct._OFFER_ANSWERS, LIMIT)
        program.begin(
            files=[{"path": str(tmp_path / "weights"), "size": len(DATA)}],
            ports=(0, 0),
            local=False,
            certificate=source.certificate,
            key=source.key,
            other=node.certificate,
            rate=0,
            most=100 * len(DATA),
            timeout=LIMIT,
        )
        [answer] = program.answers(LIMIT) or [{}]
        yield Offered(answer["port"], source, node, program)


def test_offer_goes_on_after_connections_that_are_reset_at_once(offered: Offered) -> None:
    for _number in range(50):
        with offered.plain() as stranger:
            stranger.sendall(b"anything")
            # Closing it sends a reset.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert offered.serves()
    assert offered.printed() == ""


class Served(Exception):
    """Ends a loop of the offer that has no other end."""


def test_offer_goes_on_when_it_has_no_descriptors_or_threads_left(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread"), None]
    here, there = zip(*(socket.socketpair() for _number in accepted))

    class Listener:
        def accept(self) -> tuple[socket.socket, str]:
            if not accepted:
                raise Served
            failure = accepted.pop(0)
            if isinstance(failure, OSError):
                raise failure
            monkeypatch.setattr(offer.threading.Thread, "start", lambda self: fail(failure) if failure else greeted.append(self))
            return here[len(accepted)], ""

    def fail(failure: Exception) -> None:
        raise failure

    greeted: list[threading.Thread] = []
    made = Identity.new()
    offering = offer._Offer([], context_of(True, made.certificate, made.key, made.certificate), 0, LIMIT, 0)
    with pytest.raises(Served):
        offering.serve(t.cast("socket.socket", Listener()))
    # The one without a thread was closed, and forgotten.
    there[1].settimeout(LIMIT)
    assert (there[1].recv(1), len(greeted), len(offering._strangers)) == (b"", 1, 1)
    for one in (*here, *there, *offering._strangers):
        one.close()


def test_offer_ends_a_handshake_that_takes_too_long_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "_HANDSHAKE_TIMEOUT", 0.5)
    made = Identity.new()
    offering = offer._Offer([], context_of(True, made.certificate, made.key, made.certificate), 0, LIMIT, 0)
    ends = socket.socketpair()
    with ends[1] as slow:
        offering._admit(offering._context.wrap_socket(ends[0], server_side=True, do_handshake_on_connect=False))
        # The head of a message of the handshake with 512 bytes.
        slow.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        for _number in range(300):
            try:
                slow.sendall(b"\0")
            except OSError:
                break
            # Each byte arrives within the limit.
            time.sleep(0.05)
        else:
            pytest.fail("the handshake went on")
    assert offering._strangers == []


def test_offer_that_ends_a_connection_sends_nothing_unencrypted() -> None:
    """Another thread may be about to send: it must find the connection closed, not without TLS."""
    made = Identity.new()
    at_source = context_of(True, made.certificate, made.key, made.certificate)
    at_node = context_of(False, made.certificate, made.key, made.certificate)
    ends = socket.socketpair()
    with at_source.wrap_socket(ends[0], server_side=True, do_handshake_on_connect=False) as client:
        thread = threading.Thread(target=at_node.wrap_socket, args=(ends[1],), kwargs={"server_hostname": NAME}, daemon=True)
        thread.start()
        client.settimeout(LIMIT)
        client.do_handshake()
        thread.join(LIMIT)
        offer._shut(client)
        assert client.version() == "TLSv1.3"
        with pytest.raises(OSError):
            client.sendall(DATA)


def test_offer_answers_a_few_requests_for_each_file(offered: Offered) -> None:
    """A node could keep the source busy with requests for nothing."""
    with offered.connect() as stream:
        stream.sendall(b"0 0 0\n" * 1000)
        assert received(stream, 1000) == b"0\n" * offer._MOST_REQUESTS


def started(running: contextlib.ExitStack, interpreter: str) -> Program:
    program = Program(running, LOCAL, "jw2-1", interpreter, direct._COLLECT, direct._COLLECT_ANSWERS, LIMIT)
    program.wait()
    return program


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a program as another user")
def test_program_lets_nobody_attach_before_it_gets_a_key(tmp_path: pathlib.Path) -> None:
    python = interpreter(tmp_path, f'exec setpriv --reuid=65534 --regid=65534 --clear-groups {sys.executable} "$@"')
    with contextlib.ExitStack() as running:
        process = started(running, python)._process
        of = pathlib.Path(f"/proc/{process.pid}")
        assert "\nUid:\t65534\t" in (of / "status").read_text()
        # The kernel gives what belongs to a process that nobody may attach to, to root.
        assert (of / "mem").stat().st_uid == (of / "fd").stat().st_uid == 0


def test_controller_does_not_read_answers_without_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_MOST_ANSWERS", 1 << 18)
    script = """echo; echo "-- begin --"; yes '{"bytes": 1}'"""
    with contextlib.ExitStack() as running:
        endless = started(running, interpreter(tmp_path, script))
        with pytest.raises(DeliveryError, match=r"jw2-1: gave too many answers\."):
            while True:
                assert endless.answers(LIMIT)


@pytest.mark.parametrize("end", ["source_python", "node_python"])
def test_reason_for_another_way_has_no_control_characters(tmp_path: pathlib.Path, end: str) -> None:
    site = Site.below(tmp_path, config=b"{}")
    way = site.direct(**{end: interpreter(tmp_path, r"printf 'a\033[2Jb\nc' >&2; exit 3")})
    with WAYS["relay"](site) as relay:
        ways = Ways([way, relay])
        ways.fetch(site.wanted(), lambda count: None)
    [refused] = ways.taken["grammar_lora"]["not_taken"]
    assert refused["why"] == r"did not start its part of the transfer: a\x1b[2Jb c."


LEFT = {
    "a link": 'ln -s "$1/weights" "$0/weights"',
    "a second name": 'ln "$1/weights" "$0/weights"',
    "a FIFO": 'mkfifo "$0/weights"',
    "a directory": 'mkdir "$0/weights"',
    "a link to a directory": 'rmdir "$0/templates"; ln -s "$1" "$0/templates"',
    "a link in its own place": 'rm -r "$0"; ln -s "$1" "$0"',
    "no subdirectory": 'rmdir "$0/templates"',
    "a subdirectory of everybody": 'chmod 777 "$0" "$0/templates"; exit 1',
}


@pytest.mark.parametrize("after", ["direct", "relay", "swarm"])
@pytest.mark.parametrize("left", LEFT)
def test_way_after_a_failed_command_writes_nowhere_else(tmp_path: pathlib.Path, left: str, after: str) -> None:
    site = Site.below(tmp_path, config=b"{}", weights=random_bytes(10_000), templates__tool=b"a template")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    theirs = {name: name.encode() for name in ("weights", "tool", "other")}
    for name, data in theirs.items():
        (elsewhere / name).write_bytes(data)
    command = site.command("sh", "-c", f"{LEFT[left]}; exit 1", "{staging}", str(elsewhere))
    with WAYS[after](site) as following:
        Ways([command, following]).fetch(site.wanted(), lambda count: None)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == theirs
    assert site.arrived() == {entry.path: (site.source / entry.path).read_bytes() for entry in site.wanted().manifest.files}
    for directory in (site.staging, site.staging / "templates"):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_node_follows_no_link_in_the_place_of_a_subdirectory(tmp_path: pathlib.Path) -> None:
    site = Site.below(tmp_path, templates__tool=b"a template")
    (site.staging / "templates").rmdir()
    (site.staging / "templates").symlink_to(tmp_path)
    with pytest.raises(DeliveryError, match="templates/tool: Not a directory"):
        site.direct().fetch(site.wanted(), lambda count: None)
    assert not (tmp_path / "tool").exists()


@pytest.mark.skipif(os.geteuid() != 0 or bool(sshd.lacking()), reason="needs root, to start a program as another user, and sshd")
def test_node_without_root_uses_its_login_key_while_nobody_can_attach(tmp_path: pathlib.Path) -> None:
    python = f'exec setpriv --reuid=65534 --regid=65534 --clear-groups {sys.executable} "$@"'
    (tmp_path / "server").mkdir()
    # All may enter the directories above it, unlike those above tmp_path.
    with tempfile.TemporaryDirectory() as there, sshd.running(tmp_path / "server") as server:
        pathlib.Path(there).chmod(0o755)
        site = Site.below(pathlib.Path(there), config=b"{}")
        os.chown(site.staging, 65534, 65534)
        keys = tmp_path / "server" / "authorized_keys"
        way = site.direct_ssh(server, keys, node_python=interpreter(tmp_path, python))
        way.fetch(site.wanted(), lambda count: None)
        assert site.arrived() == {"config": b"{}"}


def test_login_key_expires_by_the_clock_of_the_ssh_server(tmp_path: pathlib.Path) -> None:
    """A user may have another time zone, in which the key would expire hours later."""
    site = Site.below(tmp_path, config=b"{}")
    keys = tmp_path / "authorized_keys"
    server = sshd.Server(1, "root", tmp_path, tmp_path, tmp_path)
    there = interpreter(tmp_path, f'export TZ=Etc/GMT-14; exec {sys.executable} "$@"')
    with contextlib.ExitStack() as running:
        site.direct_ssh(server, keys, source_python=there)._access(running, 1, site.wanted())
        [expiry] = re.findall('expiry-time="([0-9]+)"', keys.read_text())
    assert 0 < time.mktime(time.strptime(expiry, "%Y%m%d%H%M%S")) - time.time() <= admit._EXPIRY


@pytest.mark.skipif(bool(sshd.lacking()), reason=sshd.lacking())
def test_source_cannot_fill_the_memory_of_a_node_with_messages_of_ssh(tmp_path: pathlib.Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nhead -c 1000000 /dev/zero >&2 && : > {tmp_path}/unbounded\n")
    (tmp_path / "ssh").chmod(0o755)
    site = Site.below(tmp_path / "site", config=b"{}")
    python = interpreter(tmp_path, f'PATH={tmp_path}:$PATH exec {sys.executable} "$@"')
    with sshd.running(tmp_path / "server") as server:
        way = site.direct_ssh(server, tmp_path / "server" / "authorized_keys", node_python=python)
        with pytest.raises(DeliveryError, match="does not let the node in"):
            way.fetch(site.wanted(), lambda count: None)
    assert not (tmp_path / "unbounded").exists()


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """The temporary directory of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_swarm_serves_its_nodes_while_strangers_crowd_the_port_of_the_source(tmp_path: pathlib.Path, run: pathlib.Path) -> None:
    site = Site.below(tmp_path / "site", weights=random_bytes(1 << 20))
    other = dataclasses.replace(site, staging=tmp_path / "other")
    other.staging.mkdir(mode=0o700)
    first = other.swarm(run, node="jw2-0")
    with contextlib.closing(first), contextlib.ExitStack() as crowd:
        first.fetch(other.wanted(), lambda count: None)
        [leader] = first._shared
        members = Meeting(str(run), "sbs29", site.wanted().manifest.digest).new_members()
        [port] = [port for name, _address, port in members if name == SOURCE]
        for number in range(200):
            stranger = crowd.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT))
            stranger.sendall(b"\x16\x03\x01" if number % 2 else b"\x13BitTorrent protocol")
        second = site.swarm(run)
        with contextlib.closing(second), concurrent.futures.ThreadPoolExecutor() as workers:
            getting = workers.submit(second.fetch, site.wanted(), lambda count: None)
            while not getting.done():
                assert leader._source and leader._source.answers(0.1) is not None
            getting.result(LIMIT)
    assert site.arrived() == {"weights": (site.source / "weights").read_bytes()}


@pytest.mark.parametrize("end", ["source_python", "node_python"])
def test_swarm_announces_a_member_once_however_often_it_says_its_port(
    tmp_path: pathlib.Path, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    site = Site.below(tmp_path / "site", config=b"{}")
    said = [f'{{"file": 0, "root": "{"00" * 32}"}}' if end == "source_python" else "{}", *['{"port": 8710}'] * 100]
    lines = "\n".join(f"echo '{answer}'" for answer in [*said, '{"problem": "enough"}'])
    python = interpreter(tmp_path, f'echo; echo "-- begin --"; read job; {lines}; cat')
    with contextlib.closing(site.swarm(run, **{end: python})) as way, pytest.raises(DeliveryError, match="enough"):
        way.fetch(site.wanted(), lambda count: None)
    name = SOURCE if end == "source_python" else "jw2-1"
    members = Meeting(str(run), "sbs29", site.wanted().manifest.digest).new_members()
    assert [member for member in members if member[0] == name] == [(name, "127.0.0.1", 8710)]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("""echo '{"port": 22}'; cat""", "jw2-1: listens on port 22, which the inventory does not permit"),
        ("""echo '{"port": 8710, "bytes": "many"}'; cat""", "jw2-1: gave an answer of another form: .bytes is not an integer"),
        ("""while echo '{"bytes": 1}'; do :; done""", "jw2-1: gave too many answers"),
        ("""echo '{"problem": "\\u001b[2J"}'; cat""", r"to jw2-1: \\x1b\[2J"),
    ],
)
def test_swarm_bounds_what_a_node_says(
    tmp_path: pathlib.Path, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    monkeypatch.setattr(program, "_MOST_ANSWERS", 1 << 16)
    site = Site.below(tmp_path / "site", config=b"{}")
    python = interpreter(tmp_path, f'echo; echo "-- begin --"; read job; {script}')
    with contextlib.closing(site.swarm(run, node_python=python, ports=(8710, 8719))) as way, pytest.raises(
        DeliveryError, match=problem
    ):
        way.fetch(site.wanted(), lambda count: None)
