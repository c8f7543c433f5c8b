# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swarms of several nodes: who gets what, what remains of killed parties, and what failures say."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import queue
import signal
import socket
import ssl
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import swarm as member
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import torrent
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import program, swarm
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.identity import Authority
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.meeting import Meeting
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Ways

from tests.support.paths import CHECKOUT
from tests.support.processes import is_running, wait_for
from tests.support.ways import LOCAL, WAYS, Site, interpreter, random_bytes

LIMIT = 30
MIB = 1 << 20
# The size of a piece of the weights, and the characters of all their hashes.
PIECE = torrent.piece_size(3 * MIB)
LAYER = 4 * torrent.layer_size(3 * MIB, PIECE) // 3


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site.below(tmp_path / "site", config=b"{}", weights=random_bytes(3 * MIB), templates__tool=b"a template", empty=b"")


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """The temporary directory of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def content(site: Site) -> dict[str, bytes]:
    return {entry.path: (site.source / entry.path).read_bytes() for entry in site.wanted().manifest.files}


def nodes(site: Site, count: int) -> list[Site]:
    """The same source for further nodes."""
    made = [dataclasses.replace(site, staging=site.staging.with_name(f"staging{number}")) for number in range(count)]
    for one in made:
        (one.staging / "templates").mkdir(parents=True, mode=0o700)
    return made


class Started:
    """The programs that were started: their hosts and processes, in this order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.programs: list[program.Program] = []
        started = self.programs

        class Watched(program.Program):
            def __init__(self, *arguments: t.Any) -> None:
                super().__init__(*arguments)
                started.append(self)

        patch.setattr(swarm, "Program", Watched)

    def at(self, host: str) -> list[int]:
        return [one._process.pid for one in self.programs if one.host == host]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def fetch(way: swarm.SwarmWay, site: Site) -> int:
    """Get all files, and give to others as long as that is useful."""
    with contextlib.closing(way):
        way.fetch(site.wanted(), lambda count: None)
        way.share()
    return way.received


# --- several nodes ---


def test_swarm_brings_the_files_to_several_nodes_from_one_source(site: Site, run: pathlib.Path, started: Started) -> None:
    sites = nodes(site, 4)
    with concurrent.futures.ThreadPoolExecutor() as workers:
        fetches = [
            workers.submit(
                fetch, one.swarm(run, node=f"jw2-{number}", options=dataclasses.replace(site.options, bwlimit="4M")), one
            )
            for number, one in enumerate(sites)
        ]
        received = [one.result(LIMIT) for one in fetches]
    assert [one.arrived() for one in sites] == [content(site)] * 4
    assert received == [sum(map(len, content(site).values()))] * 4
    # A worker that ends early leaves the source's member to another one.
    assert 1 <= len(started.at("sbs29")) <= 3


def test_swarm_lets_a_node_get_what_the_source_no_longer_offers_from_another_node(site: Site, run: pathlib.Path) -> None:
    first, second = nodes(site, 2)
    giving = first.swarm(run, node="jw2-1")
    with contextlib.closing(giving):
        giving.fetch(first.wanted(), lambda count: None)
        member = giving._shared[0]
        member._at_source.close()
        member._source = None
        # It stays the leader, so nobody starts the source's member again.
        with concurrent.futures.ThreadPoolExecutor() as workers:
            getting = workers.submit(fetch, second.swarm(run, node="jw2-2"), second)
            while not getting.done():
                assert member._node and member._node.answers(0.1) is not None
            getting.result(LIMIT)
    assert second.arrived() == content(site)


def test_swarm_shares_no_longer_than_a_part_of_its_time_and_not_without_receivers(site: Site, run: pathlib.Path) -> None:
    way = site.swarm(run)
    with contextlib.closing(way), Meeting(str(run), "sbs29", site.wanted().manifest.digest) as other:
        began = time.monotonic()
        way.fetch(site.wanted(), lambda count: None)
        [member] = way._shared
        assert 0 < member._until - time.monotonic() <= swarm._SHARING * (time.monotonic() - began)
        assert member.is_useful()
        until, member._until = member._until, time.monotonic()
        assert not member.is_useful()
        member._until = until
        other.leave_receivers()
        assert not member.is_useful()
        way.share()
        assert way._shared == []


# --- resuming, and killed parties ---


def test_swarm_transfers_the_missing_pieces_of_a_staged_file(site: Site, run: pathlib.Path) -> None:
    data = bytearray(content(site)["weights"])
    # Two pieces of it are missing, and one is wrong.
    for piece in (3, 20):
        data[piece * PIECE : (piece + 1) * PIECE] = bytes(PIECE)
    data[40 * PIECE] ^= 1
    (site.staging / "weights").write_bytes(data)
    received = fetch(site.swarm(run), site)
    assert received == 3 * PIECE + len(b"{}a template")
    assert site.arrived() == content(site)


@pytest.mark.parametrize("host", ["sbs29", "jw2-1"])
def test_swarm_goes_on_after_a_program_was_killed(
    site: Site, run: pathlib.Path, host: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    way = dataclasses.replace(site, tries=2).swarm(run, options=dataclasses.replace(site.options, bwlimit="2M"))
    killed: list[int] = []

    def kill(count: int) -> None:
        if count and not killed:
            killed.append(started.at(host)[0])
            os.kill(killed[0], signal.SIGKILL)

    with contextlib.closing(way):
        way.fetch(site.wanted(), kill)
    assert killed and len(started.at(host)) == 2
    assert site.arrived() == content(site)


@pytest.mark.parametrize("after", ["relay", "direct"])
def test_swarm_whose_source_died_falls_back_without_losing_what_has_arrived(
    site: Site, run: pathlib.Path, started: Started, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    way = site.swarm(run, options=dataclasses.replace(site.options, bwlimit="2M"))
    counts: list[int] = []

    def kill(count: int) -> None:
        if sum(counts) < MIB <= sum(counts) + count:
            os.kill(started.at("sbs29")[0], signal.SIGKILL)
        counts.append(count)

    with WAYS[after](site) as other, contextlib.closing(way):
        ways = Ways([way, other])
        ways.fetch(site.wanted(), kill)
        assert way.received >= MIB
        assert ways.received <= 1.05 * 3 * MIB
    assert site.arrived() == content(site)
    [refused] = ways.taken["grammar_lora"]["not_taken"]
    assert "sbs29 ended its part of the transfer before its end" in refused["why"]


# Runs a transfer in a process of its own, which can be killed as a worker of Ansible.
RUN = """\
import dataclasses, pathlib, sys
from tests.support.ways import Site
site = Site(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
way = site.swarm(pathlib.Path(sys.argv[3]), options=dataclasses.replace(site.options, bwlimit="200"))
way.fetch(site.wanted(), lambda count: print(count, flush=True))
"""


def test_swarm_leaves_no_process_and_no_key_of_a_killed_worker(site: Site, run: pathlib.Path) -> None:
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    argv = [sys.executable, "-c", RUN, str(site.source), str(site.staging), str(run)]
    with subprocess.Popen(argv, env=path, stdout=subprocess.PIPE) as worker:
        try:
            children = pathlib.Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
            assert worker.stdout and int(worker.stdout.readline())
            programs = list(map(int, children.read_text().split()))
            assert len(programs) == 2
        finally:
            worker.kill()
    wait_for(lambda: not any(map(is_running, programs)))
    assert set(site.arrived()) == set(content(site))
    assert not any(b"PRIVATE" in data for data in site.arrived().values())
    # Its lock is gone, so another worker leads.
    assert fetch(site.swarm(run, follows=True), site) < 3 * MIB
    assert site.arrived() == content(site)


def test_swarm_ends_when_the_controller_is_silent(site: Site, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SIGN_INTERVAL", 1000)
    monkeypatch.setattr(program, "lease", lambda timeout: 1)
    way = site.swarm(run, options=dataclasses.replace(site.options, bwlimit="10"))
    with contextlib.closing(way), pytest.raises(DeliveryError, match="ended its part of the transfer before its end"):
        way.fetch(site.wanted(), lambda count: None)


def test_swarm_whose_source_starts_slowly_keeps_the_node_alive(
    site: Site, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_SIGN_INTERVAL", 0.1)
    monkeypatch.setattr(program, "lease", lambda timeout: 1)
    slow = interpreter(run, f'sleep 2; exec {sys.executable} "$@"')
    fetch(site.swarm(run, source_python=slow), site)
    assert site.arrived() == content(site)


def test_swarm_whose_source_hashes_without_end_is_given_up(
    site: Site, run: pathlib.Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "keepalive_timeout", lambda timeout: 1)
    hashing = interpreter(run, """echo; echo "-- begin --"; read job; while echo '{"sent": 0}'; do sleep 0.1; done""")
    way = dataclasses.replace(site, tries=3).swarm(run, source_python=hashing)
    with pytest.raises(DeliveryError, match=r"sbs29 did not offer the files within 1 seconds\."):
        fetch(way, site)
    assert way.given_up and len(started.at("sbs29")) == 1


def test_swarm_whose_connection_to_the_node_breaks_at_first_tries_again(
    site: Site, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    once = f'[ -e {run}/broken ] && exec {sys.executable} "$@"; : > {run}/broken; echo; echo "-- begin --"; read job; exit 255'
    way = dataclasses.replace(site, tries=2).swarm(run, node_python=interpreter(run, once))
    fetch(way, site)
    assert (site.arrived(), way.given_up) == (content(site), "")


def test_swarm_whose_source_dies_after_its_node_has_all_is_led_by_another_worker(
    site: Site, run: pathlib.Path, started: Started
) -> None:
    way = site.swarm(run)
    with contextlib.closing(way), Meeting(str(run), "sbs29", site.wanted().manifest.digest) as other:
        way.fetch(site.wanted(), lambda count: None)
        [member] = way._shared
        member._until += LIMIT
        assert not other.lead()
        os.kill(started.at("sbs29")[0], signal.SIGKILL)
        wait_for(lambda: member.is_useful() and other.lead())


# --- members and strangers ---


@pytest.fixture
def giving(site: Site, run: pathlib.Path) -> t.Iterator[swarm._Member]:
    """The member of a node that has everything, and with it that of the source."""
    [one] = nodes(site, 1)
    way = one.swarm(run, node="jw2-0")
    with contextlib.closing(way):
        way.fetch(one.wanted(), lambda count: None)
        yield way._shared[0]


def refused(giving: swarm._Member, site: Site, run: pathlib.Path, **changes: t.Any) -> None:
    """Assert that a node gets nothing, while the members are there."""
    with concurrent.futures.ThreadPoolExecutor() as workers:
        getting = workers.submit(fetch, site.swarm(run, **changes), site)
        while not getting.done():
            assert giving._node and giving._node.answers(0.1) is not None
            assert giving._source and giving._source.answers(0.1) is not None
        with pytest.raises(DeliveryError, match="no member of the swarm can be reached"):
            getting.result(LIMIT)
    assert set(site.arrived().values()) <= {b""}


def test_swarm_gives_nothing_to_a_certificate_of_another_authority(
    giving: swarm._Member, site: Site, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_REACH", 2)
    other = Authority.new()
    monkeypatch.setattr(Authority, "issue", lambda self, name, issue=Authority.issue: issue(other, name))
    refused(giving, site, run)


def test_swarm_gives_nothing_to_a_member_without_tls(
    giving: swarm._Member, site: Site, run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_REACH", 2)
    refused(giving, site, run, plaintext=True)


@pytest.mark.parametrize("secure", [True, False])
def test_swarm_answers_strangers_nothing(giving: swarm._Member, secure: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _name, address, port in Meeting(giving._way.directory, "sbs29", giving._wanted.manifest.digest).new_members():
        found = b""
        with socket.create_connection((address, port), LIMIT) as plain, contextlib.suppress(OSError):
            plain.settimeout(2)
            stranger = context.wrap_socket(plain, server_hostname="00" * 20) if secure else plain
            stranger.sendall(b"\x13BitTorrent protocol" + bytes(48))
            found = stranger.recv(MIB)
        assert b"BitTorrent" not in found


@contextlib.contextmanager
def offering(site: Site, crowded: bool) -> t.Iterator[tuple[t.Any, int, bytes]]:
    """The source's member without TLS in this process, its port, and the name of its torrent."""
    # The environments for other ansible-cores have none, and select no test of this file.
    import libtorrent

    path = site.source / "weights"
    with contextlib.closing(open(path, "rb")) as file:
        found = torrent.hashes_of(file.read, path.stat().st_size, PIECE)
        job = {"files": [{"path": str(path), "size": path.stat().st_size}], "piece": PIECE, "ports": (0, 0)}
        source = member._Source(libtorrent, {**job, "tls": None, "rate": 0, "crowded": crowded, "staging": None}, queue.Queue())
        port = source._listen()
        source._join([found], [file.fileno()])
        source._open([found])
        yield source, port, source._handle.info_hashes().v2.to_bytes()[:20]


def test_swarm_member_looks_for_no_others(site: Site) -> None:
    with offering(site, crowded=True) as (source, _port, _hash):
        settings, flags = source._session.get_settings(), source._lt.torrent_flags
        searches = ("dht", "lsd", "upnp", "natpmp", "incoming_utp", "outgoing_utp")
        assert [name for name in searches if settings[f"enable_{name}"]] == []
        assert not source._session.is_dht_running()
        assert source._handle.trackers() == []
        for flag in (flags.disable_dht, flags.disable_lsd, flags.disable_pex):
            assert source._handle.flags() & flag
        assert source._handle.torrent_file().priv()


@pytest.mark.parametrize("crowded", [True, False])
def test_swarm_member_serves_an_address_once_unless_several_members_have_it(site: Site, crowded: bool) -> None:
    with offering(site, crowded) as (_source, port, name), contextlib.ExitStack() as running:

        def greeted(number: int) -> bool:
            node = running.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT))
            node.sendall(b"\x13BitTorrent protocol" + bytes(7) + b"\x10" + name + b"%020d" % number)
            with contextlib.suppress(ConnectionResetError):
                return bool(node.recv(1))
            return False

        assert [greeted(number) for number in range(3)] == [True, crowded, crowded]


def test_swarm_without_tls_brings_the_files(site: Site, run: pathlib.Path) -> None:
    fetch(site.swarm(run, plaintext=True), site)
    assert site.arrived() == content(site)
    assert not list(run.rglob("authority"))


def test_swarm_ignores_a_member_that_sends_wrong_blocks(site: Site, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    wanted = site.wanted()
    [honest] = nodes(site, 1)
    way = honest.swarm(run, node="jw2-0")
    with contextlib.closing(way), contextlib.ExitStack() as running:
        way.fetch(honest.wanted(), lambda count: None)
        [giving] = way._shared
        # It says that it has everything, and has other bytes.
        liar = program.Program(running, LOCAL, "liar", sys.executable, swarm._PARTS, swarm._SOURCE_ANSWERS, LIMIT)
        job = giving._job(at_source=True)
        for number, entry in enumerate(job["files"]):
            entry["path"] = str(tmp_path / f"lie{number}")
            pathlib.Path(entry["path"]).write_bytes(random_bytes(entry["size"]))
        liar.begin(**job, tls=giving._tls())
        wait_for(
            lambda: (
                [giving._meeting.announce("jw2-9", "127.0.0.1", a["port"]) for a in liar.answers(0.1) or () if "port" in a] != []
            )
        )
        with concurrent.futures.ThreadPoolExecutor() as workers:
            getting = workers.submit(fetch, site.swarm(run), site)
            while not getting.done():
                for one in (giving._node, giving._source, liar):
                    assert one and one.answers(0.05) is not None
            getting.result(LIMIT)
    assert site.arrived() == {entry.path: (site.source / entry.path).read_bytes() for entry in wanted.manifest.files}


# --- hosts that cannot take part ---


def without_libtorrent(directory: pathlib.Path) -> str:
    """An interpreter that cannot import libtorrent."""
    return interpreter(directory, f'exec {sys.executable} -S "$@"')


def test_swarm_on_a_node_without_libtorrent_names_it_and_takes_another_way(site: Site, run: pathlib.Path) -> None:
    way = site.swarm(run, node_python=without_libtorrent(run))
    with pytest.raises(DeliveryError, match=r"jw2-1: the Python package libtorrent cannot be imported by .* Install libtorrent"):
        fetch(way, site)
    with WAYS["relay"](site) as relay:
        Ways([way, relay]).fetch(site.wanted(), lambda count: None)
    assert way.given_up
    assert site.arrived() == content(site)


def test_swarm_goes_on_without_a_node_where_nothing_starts(site: Site, run: pathlib.Path) -> None:
    first, second = nodes(site, 2)
    broken, other = first.swarm(run, node="jw2-1", node_python="/nowhere/python"), second.swarm(run, node="jw2-2")
    with concurrent.futures.ThreadPoolExecutor() as workers:
        getting = workers.submit(fetch, other, second)
        with WAYS["relay"](first) as relay:
            ways = Ways([broken, relay])
            ways.fetch(first.wanted(), lambda count: None)
        getting.result(LIMIT)
    assert [one.arrived() for one in (first, second)] == [content(site)] * 2
    # It would not start for the next adapter either.
    assert broken.given_up.startswith("jw2-1 has no /nowhere/python")
    assert (ways.taken["grammar_lora"]["way"], other.given_up) == ("relay", "")


def test_swarm_without_libtorrent_at_the_source_is_not_tried_by_every_node(
    site: Site, run: pathlib.Path, started: Started
) -> None:
    python = without_libtorrent(run)
    for number, one in enumerate(nodes(site, 2)):
        way = dataclasses.replace(one, tries=3).swarm(run, source_python=python, node=f"jw2-{number}")
        with pytest.raises(DeliveryError, match="sbs29: the Python package libtorrent cannot be imported by"):
            fetch(way, one)
        assert way.given_up
    assert len(started.at("sbs29")) == 1


def test_swarm_without_a_free_port_says_so(site: Site, run: pathlib.Path) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeliveryError, match=f"port {port} is not free"):
            fetch(site.swarm(run, ports=(port, port)), site)


# --- hostile ends ---


def answering(directory: pathlib.Path, *answers: str) -> str:
    lines = "\n".join(f"echo '{answer}'" for answer in answers)
    return interpreter(directory, f"echo; echo '-- begin --'; read job\n{lines}\ncat > /dev/null")


def described(layer: str) -> str:
    """The answers of a source about the files of ``site``, the last one of several pieces."""
    layers = ["", "", layer]
    return "\n".join(json.dumps({"file": at, "root": "11" * 32, "layer": of}) for at, of in enumerate(layers))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('{"port": 22}', "sbs29: listens on port 22, which the inventory does not permit"),
        ('{"file": 3, "root": "00", "layer": ""}', "sbs29: gave an answer of another form"),
        (f'{{"file": 9, "root": "{"00" * 32}", "layer": ""}}', "sbs29: described a file that it was not asked for"),
        (f'{{"file": 0, "root": "{"00" * 32}", "layer": "{"A" * 400}"}}', "sbs29: described a file with too many hashes"),
        ('{"port": 8710}', "sbs29: described the files incompletely"),
        (described(layer="A" * (LAYER - 2) + "==") + '\n{"port": 8710}', "sbs29: described the files incompletely"),
        (described(layer="A" + "=" * (LAYER - 1)) + '\n{"port": 8710}', "sbs29: described the files incompletely"),
    ],
    ids=["port", "no hash", "other file", "long layer", "no layer", "short layer", "no base64"],
)
def test_swarm_refuses_what_a_source_should_not_say(site: Site, run: pathlib.Path, answer: str, problem: str) -> None:
    way = site.swarm(run, source_python=answering(run, *answer.splitlines()), ports=(8710, 8799))
    with pytest.raises(DeliveryError, match=problem):
        fetch(way, site)


def test_swarm_whose_source_dies_again_and_again_is_started_a_few_times(
    site: Site, run: pathlib.Path, tmp_path: pathlib.Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    # It is ready each time, and then it is gone.
    said = [*described(layer="A" * LAYER).splitlines(), '{"port": 8711}']
    dying = interpreter(run, "\n".join(["echo; echo '-- begin --'; read job", *(f"echo '{line}'" for line in said)]))
    one = dataclasses.replace(site, tries=3, timeout=3)
    way = one.swarm(run, source_python=dying, node_python=answering(tmp_path, '{"port": 8710}'))
    with pytest.raises(DeliveryError, match="sbs29 ended its part of the transfer before its end"):
        fetch(way, one)
    assert len(started.at("sbs29")) == 3


def test_swarm_whose_source_failed_for_another_node_is_not_started_again(
    site: Site, run: pathlib.Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    broken = interpreter(run, "echo; echo '-- begin --'; read job; exit 255")
    for number, one in enumerate(nodes(site, 2)):
        way = dataclasses.replace(one, tries=2).swarm(run, source_python=broken, node=f"jw2-{number}")
        with pytest.raises(DeliveryError, match="sbs29 ended its part of the transfer before its end"):
            fetch(way, one)
    assert len(started.at("sbs29")) == 2


def test_swarm_node_that_gets_no_bytes_says_so(site: Site) -> None:
    data = (site.source / "weights").read_bytes()
    hashes = torrent.hashes_of(io.BytesIO(data).read, len(data), PIECE)
    with contextlib.ExitStack() as running:
        node = program.Program(running, LOCAL, "jw2-1", sys.executable, swarm._PARTS, swarm._NODE_ANSWERS, LIMIT)
        job = {"piece": PIECE, "ports": (0, 0), "tls": None, "rate": 0, "crowded": True, "reach": LIMIT, "lock_timeout": 0}
        files = [{"path": "weights", "size": len(data), "wanted": True}]
        node.begin(**job, files=files, staging=str(site.staging), timeout=1)
        [listening] = node.answers(LIMIT) or [{}]
        assert listening.keys() == {"port"}
        node.say(hashes=[{"root": hashes.root.hex(), "layer": base64.b64encode(hashes.layer).decode()}])
        [last] = node.answers(LIMIT) or [{}]
    assert last == {"problem": "no bytes came from the swarm for 1 seconds", "broke": True}


def test_swarm_whose_node_gets_no_bytes_is_tried_again(
    site: Site, run: pathlib.Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    starved = answering(run, '{"problem": "no bytes came", "broke": true}')
    with pytest.raises(DeliveryError, match="no bytes came"):
        fetch(dataclasses.replace(site, tries=3).swarm(run, node_python=starved), site)
    assert len(started.at("jw2-1")) == 3


def test_swarm_whose_source_is_silent_names_it(
    site: Site, run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "_RETRY_DELAY", 0)
    ends = {"source_python": answering(run), "node_python": answering(tmp_path, '{"port": 8710}')}
    way = site.swarm(run, options=dataclasses.replace(site.options, timeout=2), **ends)
    with pytest.raises(DeliveryError, match="sbs29 was silent for 2 seconds"):
        fetch(way, site)


def test_swarm_whose_source_describes_other_bytes_ends(site: Site, run: pathlib.Path) -> None:
    """A changed file has other hashes, which the members agree on: the verification finds that."""
    wanted = site.wanted()
    (site.source / "weights").write_bytes(random_bytes(3 * MIB))
    way = site.swarm(run)
    with contextlib.closing(way):
        way.fetch(wanted, lambda count: None)
    assert site.arrived()["weights"] == (site.source / "weights").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up rights")
def test_swarm_source_that_root_started_offers_files_of_root_alone(site: Site, run: pathlib.Path) -> None:
    for path in site.source.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    sites = nodes(site, 3)
    with concurrent.futures.ThreadPoolExecutor() as workers:
        fetches = [workers.submit(fetch, one.swarm(run, node=f"jw2-{number}"), one) for number, one in enumerate(sites)]
        for one in fetches:
            one.result(LIMIT)
    assert [one.arrived() for one in sites] == [content(site)] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_swarm_source_that_root_started_has_no_rights(giving: swarm._Member, started: Started) -> None:
    assert giving._source
    of = pathlib.Path(f"/proc/{giving._source._process.pid}")
    status = dict(line.split(":", 1) for line in (of / "status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65534"}
    assert status["NoNewPrivs"].strip() == "1"
    assert (of / "maps").stat().st_uid == 0
    assert b"PRIVATE" not in (of / "cmdline").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_swarm_has_its_keys_in_files_without_a_name(giving: swarm._Member) -> None:
    for one in (giving._node, giving._source):
        assert one
        opened = pathlib.Path(f"/proc/{one._process.pid}/fd").iterdir()
        unnamed = [path for path in opened if os.readlink(path) == "/memfd:identity (deleted)"]
        assert [path for path in unnamed if b"PRIVATE" in path.read_bytes()]


def test_swarm_program_of_a_node_gets_no_new_privileges(giving: swarm._Member) -> None:
    assert giving._node
    status = pathlib.Path(f"/proc/{giving._node._process.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in status


def test_swarm_makes_certificates_out_to_its_own_torrents(run: pathlib.Path) -> None:
    made = Authority.new()
    issued = made.issue(torrent.NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=made.certificate)
    (run / "pair").write_text(issued.certificate + issued.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(run / "pair")
    ours, theirs = socket.socketpair()
    with concurrent.futures.ThreadPoolExecutor() as workers:
        accepted = workers.submit(server.wrap_socket, theirs, server_side=True)
        with context.wrap_socket(ours, server_hostname=torrent.NAME), accepted.result(LIMIT):
            pass
