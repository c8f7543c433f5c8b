# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""A member of a swarm: the source, which has the files, or a node, which gets and gives them.

libtorrent moves the bytes. It knows the other members from the controller alone, and reaches the
files through descriptors that this program has opened.
"""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import socket
import sys
import threading
import time
import typing as t

from .channel import end_with_controller, forbid_attaching, tell
from .offered import confine, listen, open_file
from .staged import Unusable, hold, open_own
from .torrent import Hashes, hashes_of, torrent_of

_SETTINGS = {
    # The controller knows all members, so none is looked for, and this one is not announced.
    **dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False),
    **dict.fromkeys(("enable_incoming_utp", "enable_outgoing_utp"), False),
    "user_agent": "",
    "peer_fingerprint": "",
    # The obfuscation of the protocol adds nothing to TLS.
    **dict.fromkeys(("out_enc_policy", "in_enc_policy"), 2),
    # Every member gives to all that want something, all the time.
    "unchoke_slots_limit": 200,
    "choking_algorithm": 0,
    "seed_choking_algorithm": 1,
    "unchoke_interval": 2,
    "optimistic_unchoke_interval": 4,
    "mixed_mode_algorithm": 0,
    "request_queue_time": 1,
    "max_out_request_queue": 500,
    "initial_picker_threshold": 4,
    "strict_end_game_mode": False,
    "connections_limit": 500,
    # Many nodes connect at the same moment.
    "listen_queue_size": 500,
    "connection_speed": 100,
    "torrent_connect_boost": 100,
    "min_reconnect_time": 1,
    "max_failcount": 60,
    "max_queued_disk_bytes": 8 << 20,
    # Seconds after which a member that sends nothing is given up, or asked no more for a block.
    "peer_connect_timeout": 5,
    "inactivity_timeout": 60,
    "peer_timeout": 30,
    "request_timeout": 10,
    "piece_timeout": 8,
    # Another port is not permitted.
    "max_retry_port_bind": 0,
    "listen_system_port_fallback": False,
}
# libtorrent requires parameters for key exchanges that TLS 1.3 does not use: ffdhe2048 of RFC 7919.
_DH = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
# Seconds between two looks at the state, and between two statements to the controller.
_POLL_INTERVAL = 0.1
_INTERVAL = 1
# Seconds between two tries to connect to the members that are not connected.
_DIAL_INTERVAL = 3
# Seconds for libtorrent to listen, and to write what it has received.
_LISTEN_TIMEOUT = 5
_FLUSH_TIMEOUT = 60
# Seconds between two times at which what libtorrent has in memory is written, and those to do so
# when the controller is gone.
_FLUSH_INTERVAL = 5
_END_TIMEOUT = 8
# Raw bytes in one answer with hashes.
_MOST_HASHES = 30_000


class _Failed(Exception):
    """The swarm brings nothing more; the text is the reason, the arguments are for the answer."""

    def __init__(self, problem: str, **more: bool) -> None:
        super().__init__(problem)
        self.more = more


def main(job: dict[str, t.Any]) -> None:
    """Take part until the controller ends this process.

    ``job`` has the ``files`` (``path``, ``size``, and at a node whether they are ``wanted``), the
    size of a ``piece``, the first and the last of the ``ports``, ``tls`` (``authority``,
    ``certificate`` and ``key``, PEM texts, or null), the bytes per second (``rate``, 0 for no
    limit), whether several members have one address (``crowded``), the seconds without any bytes
    after which a node gives up (``timeout``), those in which it has to reach a member (``reach``),
    and those of ``lease``. At a node, it has the ``staging``
    directory and the seconds to wait for another receiver (``lock_timeout``). At the source, both
    are null, and ``hashes`` may have what an earlier program answered.

    The source answers with the hashes of each file, with its ``port``, and then with ``sent`` about
    once a second. A node answers with its ``port``. When it has heard the ``hashes`` and
    ``members``, it answers with ``bytes``, the number of bytes that have arrived, and at the end
    with the ``problem``, which is empty if there is none, and whether this host is ``unusable``,
    nobody was reached (``unreachable``) or no more bytes came (``broke``). After a success it goes
    on giving to others.
    """
    os.umask(0o077)
    heard: queue.Queue[dict[str, t.Any]] = queue.Queue()
    ended = threading.Event()

    def end() -> None:
        heard.put({"end": True})
        ended.wait(_END_TIMEOUT)

    end_with_controller(job["lease"], end, heard.put)
    forbid_attaching()
    try:
        import libtorrent
    except ImportError as exc:
        tell(problem=f"the Python package libtorrent cannot be imported by {sys.executable}: {exc}", unusable=True)
        return
    member: _Member | None = None
    try:
        member = (_Node if job["staging"] else _Source)(libtorrent, job, heard)
        member.take_part()
        ended.set()
    except _Failed as exc:
        if member:
            member.flush()
        tell(problem=str(exc), **exc.more)
    except Unusable as exc:
        tell(problem=str(exc))
    except OSError as exc:
        tell(problem=f"{exc.filename or ''}: {exc.strerror or exc}".lstrip(": "))


def _hashes(given: t.Iterable[dict[str, str]]) -> list[Hashes]:
    return [Hashes(bytes.fromhex(of["root"]), base64.b64decode(of["layer"])) for of in given]


def _in_memory(text: str) -> str:
    """The path of a file that has no other name, and is gone with this process."""
    descriptor = os.memfd_create("identity")
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"


class _Member:
    def __init__(self, libtorrent: t.Any, job: dict[str, t.Any], heard: queue.Queue[dict[str, t.Any]]) -> None:
        self._lt, self._job, self._heard = libtorrent, job, heard
        # A torrent has no empty files.
        self._files = [entry for entry in job["files"] if entry["size"]]
        self._handle: t.Any = None

    def take_part(self) -> None:
        """Take part until the controller is gone. Raises _Failed, Unusable and OSError."""
        raise NotImplementedError

    def _listen(self) -> int:
        """Start libtorrent on the first free port. Raises OSError and _Failed."""
        with listen(False, self._job["ports"], 1) as probe:
            port = int(probe.getsockname()[1])
        tls = self._job["tls"]
        secure = "s" if tls else ""
        category = self._lt.alert.category_t
        self._session = self._lt.session(
            {
                **_SETTINGS,
                "listen_interfaces": f"0.0.0.0:{port}{secure},[::]:{port}{secure}",
                "allow_multiple_connections_per_ip": self._job["crowded"],
                "alert_mask": category.error_notification | category.storage_notification | category.status_notification,
                # Once open, files stay open.
                "file_pool_size": 40 + 2 * len(self._files),
            }
        )
        deadline = time.monotonic() + _LISTEN_TIMEOUT
        while time.monotonic() < deadline:
            self._session.wait_for_alert(1000)
            for alert in self._session.pop_alerts():
                if isinstance(alert, self._lt.listen_succeeded_alert) and alert.port == port:
                    return port
        raise _Failed(f"libtorrent cannot listen on port {port}{' with TLS' if tls else ''}", unusable=bool(tls))

    def _join(self, hashes: list[Hashes], descriptors: list[int | None]) -> None:
        """Add the torrent. Files without a descriptor are not wanted."""
        lt, tls, seed = self._lt, self._job["tls"], not self._job["staging"]
        sizes = [entry["size"] for entry in self._files]
        torrent = torrent_of(sizes, hashes, self._job["piece"], tls["authority"] if tls else "")
        try:
            given = lt.load_torrent_buffer(lt.bencode(torrent))
        except RuntimeError as exc:
            # libtorrent has compared them with each other.
            raise _Failed(f"the hashes of the files are wrong: {exc}") from exc
        layout = given.ti.files()
        numbers = [at for at in range(layout.num_files()) if not layout.file_flags(at) & lt.file_flags_t.flag_pad_file]
        given.save_path = "/proc/self/fd"
        given.renamed_files = {at: f"/proc/self/fd/{one}" for at, one in zip(numbers, descriptors) if one is not None}
        flags = lt.torrent_flags
        given.flags = flags.paused | flags.disable_dht | flags.disable_lsd | flags.disable_pex | flags.apply_ip_filter
        if seed:
            given.flags |= flags.seed_mode
        else:
            priorities = [0] * layout.num_files()
            for at, one in zip(numbers, descriptors):
                priorities[at] = 0 if one is None else 4
            given.file_priorities = priorities
        given.storage_mode = lt.storage_mode_t.storage_mode_sparse
        self._handle = self._session.add_torrent(given)
        if tls:
            self._handle.set_ssl_certificate(*map(_in_memory, (tls["certificate"], tls["key"], _DH)))
        if self._job["rate"]:
            self._handle.set_upload_limit(self._job["rate"])
            self._handle.set_download_limit(self._job["rate"])
        self._handle.resume()

    def _hear(self, seconds: float) -> dict[str, t.Any]:
        """The next message, if there is one in this time."""
        with contextlib.suppress(queue.Empty):
            return self._heard.get(timeout=seconds)
        return {}

    def _check(self) -> t.Any:
        """Return the state of the torrent. Raises _Failed for one that has failed."""
        for alert in self._session.pop_alerts():
            if alert.what() in ("torrent_error", "file_error", "torrent_error_alert", "file_error_alert"):
                raise _Failed(f"libtorrent failed: {alert.message()}")
        return self._handle.status()

    def _wait_for(self, kind: str, count: int) -> bool:
        """Wait for some alerts of a kind; return whether they came without an error."""
        deadline, found = time.monotonic() + _FLUSH_TIMEOUT, 0
        while found < count and time.monotonic() < deadline:
            self._session.wait_for_alert(1000)
            for alert in self._session.pop_alerts():
                if isinstance(alert, getattr(self._lt, kind)):
                    if getattr(alert, "error", None) and alert.error.value():
                        return False
                    found += 1
        return found >= count

    def flush(self) -> None:
        """Write what was received to the files."""
        if self._handle:
            self._handle.flush_cache()
            self._wait_for("cache_flushed_alert", 1)


class _Source(_Member):
    def take_part(self) -> None:
        descriptors = [open_file(entry["path"], entry["size"]) for entry in self._files]
        hashes = _hashes(self._job["hashes"] or ())
        if not hashes:
            hashes = [self._describe(number, one) for number, one in enumerate(descriptors)]
        port = self._listen()
        self._join(hashes, list(descriptors))
        self._open(hashes)
        confine()
        tell(port=port)
        while not self._hear(1):
            tell(sent=self._check().total_payload_upload)

    def _describe(self, number: int, descriptor: int) -> Hashes:
        """Compute the hashes of a file and tell the controller."""
        said = time.monotonic()

        def read(count: int) -> bytes:
            nonlocal said
            if time.monotonic() - said > 1:
                said = time.monotonic()
                tell(sent=0)
            return os.read(descriptor, count)

        found = hashes_of(read, self._files[number]["size"], self._job["piece"])
        for at in range(0, len(found.layer) or 1, _MOST_HASHES):
            part = base64.b64encode(found.layer[at : at + _MOST_HASHES]).decode()
            tell(file=number, root=found.root.hex(), layer=part)
        return found

    def _open(self, hashes: list[Hashes]) -> None:
        """Let libtorrent open all files while this process may still do so."""
        # It closes the files of a torrent that it finds complete, and opens them when needed.
        if not self._wait_for("torrent_finished_alert", 1):
            raise _Failed("libtorrent does not take the files as complete")
        self.flush()
        first = 0
        for entry in self._files:
            self._handle.read_piece(first)
            first += -(-entry["size"] // self._job["piece"])
        if not self._wait_for("read_piece_alert", len(self._files)):
            raise _Failed("libtorrent cannot read the files")


class _Node(_Member):
    def take_part(self) -> None:
        held = hold(self._job["staging"], self._job["lock_timeout"])
        self._members: dict[tuple[str, int], tuple[str, int]] = {}
        self._arrived, self._base, self._told = 0, -1, 0
        self._moved = self._told_at = self._dialled = self._flushed = 0.0
        self._since: float | None = None
        self._reached = self._done = False
        for entry in self._job["files"]:
            if entry["wanted"] and not entry["size"]:
                os.ftruncate(open_own(self._job["staging"], entry["path"]), 0)
        descriptors: list[int | None] = [self._opened(entry) if entry["wanted"] else None for entry in self._files]
        tell(port=self._listen())
        while True:
            message = self._hear(_POLL_INTERVAL)
            if "end" in message:
                self.flush()
                return
            if "hashes" in message:
                self._join(_hashes(message["hashes"]), descriptors)
                self._moved = self._flushed = time.monotonic()
            self._meet(message.get("members", ()))
            if self._handle:
                self._dial()
                self._look(held)

    def _opened(self, entry: dict[str, t.Any]) -> int:
        descriptor = open_own(self._job["staging"], entry["path"])
        if os.fstat(descriptor).st_size > entry["size"]:
            os.ftruncate(descriptor, 0)
        return descriptor

    def _meet(self, members: t.Iterable[tuple[str, int]]) -> None:
        for address, port in members:
            with contextlib.suppress(OSError):
                found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][4]
                self._members[address, port] = (str(found[0]), port)
            self._since = self._since or time.monotonic()
            self._dialled = 0

    def _dial(self) -> None:
        if time.monotonic() - self._dialled < _DIAL_INTERVAL:
            return
        self._dialled = time.monotonic()
        connected = {tuple(peer.ip) for peer in self._handle.get_peer_info()}
        for member in self._members.values():
            if member not in connected:
                self._handle.connect_peer(member)

    def _look(self, held: int) -> None:
        """Tell what has arrived. Raises _Failed if nothing does."""
        status, now = self._check(), time.monotonic()
        if self._done:
            return
        states = self._lt.torrent_status.states
        if status.state in (states.checking_files, states.checking_resume_data, states.queued_for_checking):
            # What was staged is being hashed.
            self._moved = now
            self._since = self._since and now
            return
        if self._base < 0:
            self._base = status.total_wanted_done
        if status.total_wanted_done - self._base > self._arrived:
            self._arrived, self._moved = status.total_wanted_done - self._base, now
        if status.is_finished:
            self.flush()
            self._done = True
            os.close(held)
        if self._arrived > self._told and (self._done or now - self._told_at > _INTERVAL):
            self._told, self._told_at = self._arrived, now
            tell(bytes=self._arrived)
        if self._done:
            tell(problem="")
            return
        if now - self._flushed > _FLUSH_INTERVAL:
            self._flushed = now
            self._handle.flush_cache()
        if not self._reached:
            unready = self._lt.peer_info.connecting | self._lt.peer_info.handshake
            self._reached = any(not peer.flags & unready for peer in self._handle.get_peer_info())
            if not self._reached and self._since and now - self._since > self._job["reach"]:
                raise _Failed("no member of the swarm can be reached", unreachable=True)
        if now - self._moved > self._job["timeout"]:
            raise _Failed(f"no bytes came from the swarm for {self._job['timeout']} seconds", broke=True)
