# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Direct transfers whose ssh connections to the controller end, or fall silent."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import glob
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import direct, program, ssh
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct import DirectWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End

from tests.support import sshd as sshd_server
from tests.support.processes import is_running, wait_for
from tests.support.ways import Site, random_bytes

LIMIT = 60
SIZE = 4 << 20

pytestmark = pytest.mark.skipif(bool(sshd_server.lacking()), reason=sshd_server.lacking())


@dataclasses.dataclass
class Hosts:
    """A source and a node that are reached through a real ssh server."""

    site: Site
    server: sshd_server.Server
    keys: pathlib.Path
    at_source: End
    node: End

    def way(self, name: str) -> DirectWay:
        options = dataclasses.replace(self.site.options, bwlimit="1M")
        ends = {"source_end": self.at_source, "node_end": self.node, "options": options}
        if name == "direct":
            return self.site.direct(**ends)
        way = self.site.direct_ssh(self.server, self.keys, login=self.at_source, **ends)
        # The key stays until the connection to the program that has added it ends.
        way._watch_login = lambda is_in: None  # type: ignore[method-assign]
        return way


@pytest.fixture
def hosts(tmp_path: pathlib.Path) -> t.Iterator[Hosts]:
    site = Site.below(tmp_path, weights=random_bytes(SIZE))
    # Sockets need short paths.
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, sshd_server.running(pathlib.Path(directory)) as server:
        source, node = (End(server.options(), os.path.join(directory, name)) for name in ("source", "node"))
        yield Hosts(site, server, pathlib.Path(directory, "authorized_keys"), source, node)
        source.close()
        node.close()


def holder_of(path: pathlib.Path) -> int:
    """The process of another program that has opened a file."""
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        pid = int(link.split("/")[2])
        try:
            if pid != os.getpid() and os.readlink(link) == str(path):
                return pid
        except OSError:
            continue
    raise AssertionError(f"nobody has opened {path}")


def client_of(end: End) -> int:
    """The process of ssh that holds the shared connection to an end."""
    argv = ["ssh", "-F", "none", "-o", f"ControlPath={end.control_path}", "-O", "check", "127.0.0.1"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    return int(re.findall(r"pid=(\d+)", done.stderr)[0])


def session_of(pid: int) -> int:
    """The process of sshd that a program was started by."""
    while not pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert pid > 1
    return pid


@pytest.mark.parametrize(
    ("name", "cut_off", "how"),
    [
        *(("direct", end, how) for end in ("source", "node") for how in ("client", "session", "silence")),
        ("direct_ssh", "source", "session"),
        ("direct_ssh", "source", "silence"),
    ],
)
def test_direct_ends_at_both_hosts_with_the_link_of_one_and_resumes(
    hosts: Hosts, name: str, cut_off: str, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(program, "_SIGN_INTERVAL", 0.2)
    monkeypatch.setattr(program, "lease", lambda timeout: 3)
    weights, before = hosts.site.staging / "weights", hosts.keys.read_bytes()
    way, wanted = hosts.way(name), hosts.site.wanted()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        fetching = pool.submit(way.fetch, wanted, lambda count: None)
        wait_for(lambda: weights.exists() and weights.stat().st_size > 100_000)
        programs = {"source": holder_of(hosts.site.source / "weights"), "node": holder_of(hosts.site.staging)}
        client = client_of(hosts.at_source if cut_off == "source" else hosts.node)
        if how == "session":
            os.kill(session_of(programs[cut_off]), signal.SIGKILL)
        else:
            os.kill(client, signal.SIGKILL if how == "client" else signal.SIGSTOP)
        wait_for(lambda: not is_running(programs[cut_off]))
        if how == "silence":
            # As ssh does when it hears nothing for a minute.
            os.kill(client, signal.SIGKILL)
        with pytest.raises(DeliveryError, match="could not be transferred directly from sbs29 to jw2-1"):
            fetching.result(LIMIT)
    wait_for(lambda: not any(map(is_running, programs.values())))
    wait_for(lambda: hosts.keys.read_bytes() == before)
    assert {path for path in tmp_path.rglob("*") if not path.is_dir()} == {hosts.site.source / "weights", weights}
    kept = weights.stat().st_size
    assert 0 < kept < SIZE
    counts: list[int] = []
    way.options = hosts.site.options
    way.fetch(wanted, counts.append)
    assert sum(counts) == SIZE - kept
    assert hosts.site.arrived() == {"weights": (hosts.site.source / "weights").read_bytes()}
    assert way.given_up == ""


@dataclasses.dataclass(frozen=True)
class Flaky(End):
    """An end whose first connection fails, after it has printed something."""

    printed: str = ""
    connections: list[list[str]] = dataclasses.field(default_factory=list)

    def argv(self, command: t.Any) -> list[str]:
        self.connections.append(list(command))
        failing = ["sh", "-c", 'printf "$0"; echo Connection reset by peer >&2; exit 255', self.printed]
        return super().argv(command if len(self.connections) > 1 else failing)


@pytest.mark.parametrize("end", ["node_end", "source_end"])
@pytest.mark.parametrize("printed", ["", "\\n-- begin --\\n"], ids=["before", "after"])
def test_direct_after_a_connection_that_failed_once_may_be_taken_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, end: str, printed: str
) -> None:
    """Before or after the program has started."""
    monkeypatch.setattr(direct, "_RETRY_DELAY", 0)
    site = Site.below(tmp_path, config=b"{}", weights=b"weights")
    way = site.direct(**{end: Flaky(None, printed=printed)}, tries=2)
    way.fetch(site.wanted("config"), lambda count: None)
    assert (way.given_up, site.arrived()) == ("", {"config": b"{}"})


def test_direct_with_a_host_that_is_not_reached_is_not_taken_again(tmp_path: pathlib.Path) -> None:
    site = Site.below(tmp_path, weights=b"weights")
    way = site.direct(node_end=Flaky(None), tries=1)
    with pytest.raises(DeliveryError, match="could not be reached for the transfer: Connection reset by peer"):
        way.fetch(site.wanted(), lambda count: None)
    assert way.given_up == "jw2-1 could not be reached for the transfer: Connection reset by peer."


def test_close_with_a_stopped_client_has_a_limit(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_CHECK_TIMEOUT", 1)
    hosts.node.greeting(LIMIT)
    client = client_of(hosts.node)
    os.kill(client, signal.SIGSTOP)
    try:
        hosts.node.close()
        # The next command opens another one.
        assert not os.path.exists(hosts.node.control_path)
    finally:
        os.kill(client, signal.SIGKILL)
