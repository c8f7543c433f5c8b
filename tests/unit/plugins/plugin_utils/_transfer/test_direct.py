# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Direct transfers: who gets what, what remains of killed parties, and what is said of failures."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import offer
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer.tls import NAME, context_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import direct, program
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct import rate_of
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.identity import Identity
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Ways

from tests.support.paths import CHECKOUT
from tests.support.processes import is_running, wait_for
from tests.support.sshd import Server, free_port
from tests.support.ways import WAYS, Site, interpreter, random_bytes

LIMIT = 30
MIB = 1 << 20
SECRET = b"what the node must not get"


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    site = Site.below(tmp_path, config=b"{}", weights=random_bytes(MIB), templates__tool=b"a template")
    (tmp_path / "secret").write_bytes(SECRET)
    return site


def content(site: Site) -> dict[str, bytes]:
    return {entry.path: (site.source / entry.path).read_bytes() for entry in site.wanted().manifest.files}


# --- the files ---


@pytest.mark.parametrize("staged", [500, MIB])
def test_direct_replaces_a_staged_file_that_is_no_beginning_of_the_right_one(site: Site, staged: int) -> None:
    (site.staging / "weights").write_bytes(bytes(staged))
    site.direct().fetch(site.wanted(), lambda count: None)
    assert site.arrived() == content(site)


def test_direct_refuses_a_staged_file_with_a_second_name(site: Site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    os.link(tmp_path / "theirs", site.staging / "weights")
    with pytest.raises(DeliveryError, match="weights: is no plain file of its own that belongs to this user"):
        site.direct().fetch(site.wanted(), lambda count: None)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_direct_sends_what_links_lead_to_and_follows_no_other_link(site: Site, tmp_path: pathlib.Path) -> None:
    wanted = site.wanted()
    (site.source / "weights").rename(tmp_path / "blob")
    (site.source / "weights").symlink_to(tmp_path / "blob")
    with pytest.raises(DeliveryError, match="Too many levels of symbolic links"):
        site.direct().fetch(wanted, lambda count: None)
    site.direct().fetch(dataclasses.replace(wanted, links={"weights": str(tmp_path / "blob")}), lambda count: None)
    assert site.arrived() == content(site)


def test_direct_with_a_file_that_changed_its_size_sends_nothing(site: Site) -> None:
    wanted = site.wanted()
    (site.source / "config").write_bytes(b"{} ")
    with pytest.raises(DeliveryError, match="config: is no plain file of 2 bytes any more"):
        site.direct().fetch(wanted, lambda count: None)
    assert site.arrived() == {}


def test_direct_with_both_ends_over_ssh_brings_the_files(site: Site, sshd: Server) -> None:
    with tempfile.TemporaryDirectory() as sockets:
        ends = {name: End(sshd.options(), os.path.join(sockets, name)) for name in ("at_source", "node")}
        way = dataclasses.replace(site, **ends).direct()
        way.fetch(site.wanted(), lambda count: None)
        for end in ends.values():
            end.close()
    assert site.arrived() == content(site)


# --- ports ---


def test_direct_starts_both_programs_at_the_same_time(site: Site, tmp_path: pathlib.Path) -> None:
    pythons = {}
    for own, other in (("source", "node"), ("node", "source")):
        (tmp_path / f"at_{own}").mkdir()
        meet = f": > {tmp_path}/at_{own}/began; until [ -e {tmp_path}/at_{other}/began ]; do sleep 0.01; done"
        pythons[f"{own}_python"] = interpreter(tmp_path / f"at_{own}", f'{meet}; exec {sys.executable} "$@"')
    site.direct(**pythons).fetch(site.wanted(), lambda count: None)
    assert site.arrived() == content(site)


def test_direct_takes_a_free_port_of_the_range(site: Site) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeliveryError, match=f"sbs29: port {port} is not free"):
            site.direct(ports=(port, port)).fetch(site.wanted(), lambda count: None)
        site.direct(ports=(port, port + 50)).fetch(site.wanted(), lambda count: None)
    assert site.arrived() == content(site)


def test_direct_that_is_not_reachable_falls_back_to_the_relay_for_all_adapters(site: Site) -> None:
    closed = site.direct(address="127.0.0.2", source_end=Elsewhere(None))
    calls: list[str] = []
    with WAYS["relay"](site) as relay:
        ways = Ways([closed, relay], lambda *refused: calls.append(refused[2]))
        ways.fetch(site.wanted("weights"), lambda count: None)
        ways.fetch(site.wanted("config"), lambda count: None)
    assert set(site.arrived()) == {"weights", "config"}
    [why] = calls
    assert why.endswith("of 127.0.0.2 cannot be reached: Connection refused."), why
    assert ways.taken["grammar_lora"] == {"way": "relay", "not_taken": [{"way": "direct", "why": why.partition(": ")[2]}]}


class Elsewhere(End):
    """A source that nodes do not reach: it names a port on which nothing listens."""

    def argv(self, command: t.Any) -> list[str]:
        answer = f'{{"port": {free_port()}}}'
        return ["sh", "-c", 'echo; echo "-- begin --"; read job; echo "$0"; cat > /dev/null', answer]


# --- killed parties ---

# Runs a transfer in a process of its own, which can be killed as a worker of Ansible.
RUN = """\
import dataclasses, pathlib, sys
from tests.support.ways import Site
site = Site(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), tries=int(sys.argv[3]))
way = site.direct(options=dataclasses.replace(site.options, bwlimit="200"))
way.fetch(site.wanted(), lambda count: None)
"""


@contextlib.contextmanager
def running(site: Site, tries: int = 1) -> t.Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A slow transfer that has begun: the controller's process, and those at source and node."""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    argv = [sys.executable, "-c", RUN, str(site.source), str(site.staging), str(tries)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=path)
    try:
        wait_for(lambda: (site.staging / "weights").exists() and (site.staging / "weights").stat().st_size > 1000)
        at_source, at_node = map(int, pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        yield process, at_source, at_node
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


def state_of(directory: pathlib.Path) -> set[str]:
    return {str(path) for path in directory.rglob("*")}


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["controller", "source", "node"])
def test_direct_leaves_nothing_but_staged_bytes_of_killed_parties(site: Site, victim: int, tmp_path: pathlib.Path) -> None:
    before = state_of(tmp_path)
    with running(site) as (controller, *programs):
        os.kill((controller.pid, *programs)[victim], signal.SIGKILL)
        _out, errors = controller.communicate(timeout=LIMIT)
        wait_for(lambda: not any(map(is_running, programs)))
        assert victim == 0 or ("could not be transferred directly from sbs29 to jw2-1" in errors)
    assert state_of(tmp_path) - before <= {str(site.staging / name) for name in content(site)}
    kept = (site.staging / "weights").stat().st_size
    counts: list[int] = []
    site.direct().fetch(site.wanted("weights"), counts.append)
    assert sum(counts) == MIB - kept
    assert site.arrived()["weights"] == content(site)["weights"]


@pytest.mark.parametrize("victim", [0, 1], ids=["source", "node"])
def test_direct_resumes_after_a_program_was_killed(site: Site, victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_RETRY_DELAY", 0)
    started: list[int] = []

    class Watched(program.Program):
        def __init__(self, *arguments: t.Any) -> None:
            super().__init__(*arguments)
            started.append(self._process.pid)

    monkeypatch.setattr(direct, "Program", Watched)
    killed: list[int] = []

    def kill(count: int) -> None:
        if count and not killed:
            killed.append(started[victim])
            os.kill(started[victim], signal.SIGKILL)

    (site.source / "weights").write_bytes(random_bytes(16 * MIB))
    way = dataclasses.replace(site, tries=2).direct(options=dataclasses.replace(site.options, bwlimit="8M"))
    way.fetch(site.wanted(), kill)
    assert killed and len(started) == 4
    assert site.arrived() == content(site)


def test_direct_ends_when_the_controller_is_silent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SIGN_INTERVAL", 1000)
    monkeypatch.setattr(program, "lease", lambda timeout: 0.5)
    way = site.direct(options=dataclasses.replace(site.options, bwlimit="10"))
    with pytest.raises(DeliveryError, match=r"ended its part of the transfer before its end|closed by the source"):
        way.fetch(site.wanted(), lambda count: None)


# --- the offer, and who asks ---


@dataclasses.dataclass
class Offered:
    """A running offer of the files of a site."""

    port: int
    source: Identity
    node: Identity
    pid: int

    def connect(self, identity: Identity | None = None, trusted: str = "") -> ssl.SSLSocket:
        identity = identity or self.node
        context = context_of(False, identity.certificate, identity.key, trusted or self.source.certificate)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), LIMIT), server_hostname=NAME)

    def ask(self, request: bytes, **who: t.Any) -> bytes:
        """All that the offer answers to a request, until it closes the connection."""
        with self.connect(**who) as stream:
            stream.sendall(request)
            return everything(stream)


def everything(stream: socket.socket) -> bytes:
    """What arrives until the connection ends, or is refused, or nothing more comes."""
    stream.settimeout(0.5)
    found = b""
    with contextlib.suppress(OSError):
        while block := stream.recv(MIB):
            found += block
    return found


@pytest.fixture
def offered(site: Site, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Offered]:
    """The offer of a transfer whose node does not ask for anything itself."""
    made: list[Identity] = []
    original = Identity.new
    monkeypatch.setattr(Identity, "new", lambda: made.append(original()) or made[-1])
    told = threading.Event()
    release = threading.Event()
    port: list[int] = []
    at_source: list[int] = []

    class Waiting(direct.DirectWay):
        def _follow(self, offering: program.Program, collecting: program.Program, *rest: t.Any) -> None:
            at_source.append(offering._process.pid)
            told.set()
            assert release.wait(LIMIT)

        def _port(self, *arguments: t.Any) -> int:
            port.append(super()._port(*arguments))
            # The node's program is told another one.
            return free_port()

    way = site.direct()
    waiting = Waiting(*(getattr(way, field.name) for field in dataclasses.fields(way)))
    thread = threading.Thread(target=waiting.fetch, args=(site.wanted(), lambda count: None), daemon=True)
    thread.start()
    assert told.wait(LIMIT)
    try:
        yield Offered(port[0], *made, at_source[0])
    finally:
        release.set()
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_offer_gives_its_node_the_files_by_number(offered: Offered, site: Site) -> None:
    files = list(content(site).values())
    for number, data in enumerate(files):
        with offered.connect() as stream:
            stream.sendall(b"%d %d %d\n" % (number, len(data) // 2, len(data)))
            expected = b"%d\n" % (len(data) - len(data) // 2) + data[len(data) // 2 :]
            assert everything(stream) == expected


@pytest.mark.parametrize(
    "request_line",
    [
        *(b"3 0 0\n", b"-1 0 2\n", b"0 -1 2\n", b"0 2 1\n", b"0 0 3\n", b"0 99999999999999999999 2\n"),
        *(b"0\n", b"0 0\n", b"0 0 2 0\n", b"/etc/passwd 0 2\n", b"\n", b"\0" * 5000),
    ],
)
def test_offer_answers_nothing_else(offered: Offered, request_line: bytes) -> None:
    with offered.connect() as stream:
        stream.sendall(request_line)
        stream.settimeout(LIMIT)
        # It closes the connection, with bytes that it has not read.
        with contextlib.suppress(ConnectionError):
            assert stream.recv(1) == b""
    # And goes on.
    assert offered.ask(b"0 0 2\n").startswith(b"2\n{}")


def test_offer_gives_nothing_to_another_certificate(offered: Offered) -> None:
    """That of another node of the same run, of the source itself, or one of the same name."""
    for identity in (Identity.new(), Identity(offered.source.certificate, Identity.new().key)):
        try:
            assert offered.ask(b"0 0 2\n", identity=identity) == b""
        except (ssl.SSLError, ConnectionError):
            continue
    assert offered.ask(b"0 0 2\n").startswith(b"2\n{}")


def test_offer_gives_nothing_without_a_certificate_or_without_tls(offered: Offered) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", offered.port), LIMIT))
    with stream, contextlib.suppress(OSError):
        stream.sendall(b"0 0 2\n")
        assert everything(stream) == b""
    with socket.create_connection(("127.0.0.1", offered.port), LIMIT) as plain:
        plain.sendall(b"0 0 2\n" * 100)
        assert b"{}" not in everything(plain)


def test_offer_talks_no_older_tls(offered: Offered) -> None:
    context = context_of(False, offered.node.certificate, offered.node.key, offered.source.certificate)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", offered.port), LIMIT) as plain, pytest.raises(
        ssl.SSLError, match="PROTOCOL_VERSION"
    ):
        context.wrap_socket(plain, server_hostname=NAME)


def test_offer_sends_at_most_twice_the_files(offered: Offered, site: Site) -> None:
    sent = 0
    for _number in range(4):
        sent += len(offered.ask(b"2 0 %d\n" % MIB))
    total = sum(map(len, content(site).values()))
    assert MIB < sent <= 2 * total + 4 * len(b"1048576\n")


def test_offer_serves_its_node_while_strangers_crowd_its_port(offered: Offered) -> None:
    with contextlib.ExitStack() as crowd:
        strangers = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", offered.port), LIMIT))
            for _number in range(2 * offer._MOST_STRANGERS)
        ]
        assert offered.ask(b"0 0 2\n").startswith(b"2\n{}")
        # It took them in their order, and has ended the oldest already.
        for stranger in strangers[: offer._MOST_STRANGERS]:
            stranger.setblocking(False)
            assert stranger.recv(1) == b""


def test_offer_ends_the_former_connection_of_its_node(offered: Offered) -> None:
    with offered.connect() as first:
        assert offered.ask(b"0 0 2\n").startswith(b"2\n{}")
        assert everything(first) == b""


def test_offer_shows_its_key_to_nobody_and_has_no_rights(offered: Offered) -> None:
    of = pathlib.Path(f"/proc/{offered.pid}")
    assert b"PRIVATE" not in (of / "cmdline").read_bytes()
    status = dict(line.split(":", 1) for line in (of / "status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    # The kernel gives what belongs to a process that nobody may attach to, to root.
    assert (of / "maps").stat().st_uid == 0
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
        assert (status["Groups"].split(), status["CapEff"].strip()) == ([], "0" * 16)


def test_program_of_a_node_gets_no_new_privileges(site: Site) -> None:
    """Nor does the ssh that it starts."""
    made = Identity.new()
    with contextlib.ExitStack() as running, socket.create_server(("127.0.0.1", 0)) as listener:
        collecting = program.Program(running, site.node, "jw2-1", sys.executable, direct._COLLECT, direct._COLLECT_ANSWERS, LIMIT)
        identity = {"certificate": made.certificate, "key": made.key, "other": made.certificate}
        where = {"address": "127.0.0.1", "port": listener.getsockname()[1], "ssh": None}
        collecting.begin(files=[], staging="", **where, **identity, timeout=LIMIT, lock_timeout=0)
        listener.settimeout(LIMIT)
        connection, _address = listener.accept()
        with connection:
            status = pathlib.Path(f"/proc/{collecting._process.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in status


def test_offer_holds_the_bandwidth_limit(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    descriptor = os.open(site.source / "weights", os.O_RDONLY)
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(offer.time, "sleep", sleep)
    monkeypatch.setattr(offer.time, "monotonic", lambda: now[0])

    request = iter(b"0 0 %d\n" % MIB)

    class Client:
        def recv(self, count: int) -> bytes:
            return bytes([next(request)])

        def settimeout(self, seconds: float) -> None:
            pass

        def sendall(self, data: bytes) -> None:
            # Never much more at a time than a tenth of a second takes.
            assert len(data) <= 52428

    offering = offer._Offer([(descriptor, MIB)], t.cast("ssl.SSLContext", None), 512 << 10, 5, MIB)
    assert offering._answer(t.cast("ssl.SSLSocket", Client()))
    os.close(descriptor)
    assert sum(slept) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("bwlimit", "rate"), [("", 0), ("0", 0), ("100", 102400), ("100k", 102400), ("1.5M", 3 << 19), ("1G", 1 << 30)]
)
def test_rate_of_is_what_rsync_makes_of_it(bwlimit: str, rate: int) -> None:
    assert rate_of(bwlimit) == rate


# --- hostile ends ---

# An interpreter that answers something else than the program does.
HOSTILE = """\
#!/bin/sh
echo; echo "-- begin --"; read job
{script}
"""


def hostile(directory: pathlib.Path, script: str) -> str:
    interpreter = directory / "python"
    interpreter.write_text(HOSTILE.replace("{script}", script))
    interpreter.chmod(0o755)
    return str(interpreter)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("""echo '{"port": 22}'; cat""", "sbs29: listens on port 22, which the inventory does not permit"),
        ("""echo '{"port": -1}'; cat""", "sbs29: listens on port -1, which the inventory does not permit"),
        ("""echo '{"port": "22"}'; cat""", "sbs29: gave an answer of another form"),
        (r"""echo '{"problem": "\\u001b[2Jgone"}'; cat""", r"sbs29: \\x1b\[2Jgone"),
        ("exit 4", "sbs29: ended its part of the transfer before its end"),
    ],
)
def test_direct_with_a_hostile_source_fails_and_names_it(site: Site, tmp_path: pathlib.Path, script: str, message: str) -> None:
    way = site.direct(source_python=hostile(tmp_path, script), ports=(8700, 8709))
    with pytest.raises(DeliveryError, match=message):
        way.fetch(site.wanted(), lambda count: None)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo '{}'; echo '[]'; cat", "jw2-1: gave an answer of another form"),
        ("""echo '{"bytes": 1e400}'; cat""", "jw2-1: gave an answer of another form"),
        # sshd at the source is asked about this address.
        ("""echo '{"problem": "", "own": "::1,user=root"}'; cat""", "own is not an address"),
        (r"""echo '{"problem": "\\u001b[2Jgone"}'; cat""", r"to jw2-1: \\x1b\[2Jgone"),
        ("exit 4", "jw2-1: ended its part of the transfer before its end"),
    ],
)
def test_direct_with_a_hostile_node_fails_and_names_it(site: Site, tmp_path: pathlib.Path, script: str, message: str) -> None:
    with pytest.raises(DeliveryError, match=message):
        site.direct(node_python=hostile(tmp_path, script)).fetch(site.wanted(), lambda count: None)


# A source with the certificate of the offer, whose files are others.
LYING = """\
import base64, json, os, sys, zlib
job = json.loads(sys.stdin.readline())
files = json.loads(zlib.decompress(base64.b64decode(job["files"])))
changed = [[name, part.replace({old!r}, {new!r})] for name, part in files]
job["files"] = base64.b64encode(zlib.compress(json.dumps(changed).encode())).decode()
exec(job["loader"], {{"given": job}})
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('b"%d\\n" % (end - at)', 'b"%d\\n" % (end - at + 1)', "the source offers a file of another size"),
        ('b"%d\\n" % (end - at)', 'b"9" * 1000', "closed by the source"),
        ("client.sendall(block)", "return False", "closed by the source"),
        ("client.sendall(block)", "client.sendall(block * 3)", "the source offers a file of another size"),
    ],
)
def test_direct_with_a_source_that_sends_something_else_writes_no_more_than_described(
    site: Site, tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "lying.py").write_text(LYING.format(old=old, new=new))
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\necho; echo "-- begin --"\nexec {sys.executable} {tmp_path}/lying.py\n')
    interpreter.chmod(0o755)
    with pytest.raises(DeliveryError, match=message):
        site.direct(source_python=str(interpreter)).fetch(site.wanted(), lambda count: None)
    assert all(len(data) <= len(content(site)[name]) for name, data in site.arrived().items())


def other_certificate(connection: socket.socket, made: list[Identity]) -> None:
    other = Identity.new()
    context = context_of(True, other.certificate, other.key, other.certificate)
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(connection, server_side=True) as stream:
        stream.sendall(b"2\n{}")


def no_tls(connection: socket.socket, made: list[Identity]) -> None:
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        everything(connection)


def refusal(connection: socket.socket, made: list[Identity]) -> None:
    """The source's key, but another node is expected."""
    context = context_of(True, made[0].certificate, made[0].key, made[0].certificate)
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as stream:
        with contextlib.suppress(ssl.SSLError):
            stream.do_handshake()
        # A reset would overtake the alert.
        while os.read(stream.fileno(), MIB):
            pass


def end(connection: socket.socket, made: list[Identity]) -> None:
    connection.close()


@pytest.mark.parametrize(
    ("answer", "problem", "remedy", "connections"),
    [
        (other_certificate, r"has another certificate than the source \(self-signed certificate\)", "Something else answers", 1),
        (no_tls, r"answers otherwise than the source \(WRONG_VERSION_NUMBER\)", "Something else answers", 1),
        (refusal, r"refused the certificate of the node \(TLSV1_ALERT_UNKNOWN_CA\)", "Something else answers", 1),
        (end, "closed the connection at once", "run again to resume", 2),
    ],
)
def test_direct_with_something_else_at_the_port_says_so_and_may_be_taken_again(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    answer: t.Callable[[socket.socket, list[Identity]], None],
    problem: str,
    remedy: str,
    connections: int,
) -> None:
    """It is somebody between the two, or another process of the source's machine."""
    monkeypatch.setattr(direct, "_RETRY_DELAY", 0)
    made: list[Identity] = []
    original = Identity.new
    monkeypatch.setattr(Identity, "new", lambda: made.append(original()) or made[-1])
    accepted = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            nonlocal accepted
            with contextlib.suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    accepted += 1
                    with contextlib.suppress(OSError):
                        answer(connection, made)

        threading.Thread(target=serve, daemon=True).start()
        way = site.direct(source_end=Named(None, search=str(port)), tries=2)
        with pytest.raises(DeliveryError, match=f"port {port} of 127.0.0.1 {problem}.*{remedy}"):
            way.fetch(site.wanted(), lambda count: None)
    # Not for its other adapters, whose offers may have another port.
    assert (accepted, way.given_up) == (connections, "")
    assert not any(site.arrived().values())


@dataclasses.dataclass(frozen=True)
class Named(End):
    """A source that names the given port."""

    search: str = ""

    def argv(self, command: t.Any) -> list[str]:
        script = 'echo; echo "-- begin --"; read job; echo "{\\"port\\": $0}"; cat > /dev/null'
        return ["sh", "-c", script, self.search]
