# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node reaches its source, tried with real programs and a real ssh server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import sys
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Check, Checklist
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._preflight.direct import SwarmPorts, check_way
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct import DirectWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.direct_ssh import DirectSshWay
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.login_refusals import Login
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End

from tests.support import sshd
from tests.support.sshd import free_port
from tests.support.ways import Site

needs_sshd = pytest.mark.skipif(bool(sshd.lacking()), reason=sshd.lacking())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as sshd -T does")


def checked(way: DirectWay, required: bool = True) -> Check:
    checklist = Checklist()
    check_way(checklist, way, required)
    [found] = checklist.checks
    return found


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site.below(tmp_path)


@dataclasses.dataclass(frozen=True)
class Naming(End):
    """A source that names a port and does not listen there."""

    port: int = 0

    def argv(self, command: t.Any) -> list[str]:
        answer = f'{{"port": {self.port}}}'
        return ["sh", "-c", 'echo; echo "-- begin --"; read job; echo "$0"; cat > /dev/null', answer]


def test_check_of_direct_names_the_port_and_the_address(site: Site) -> None:
    port = free_port()
    found = checked(site.direct(ports=(port, port)))
    assert found == Check("way direct", "ok", f"the node reaches port {port} of 127.0.0.1")
    assert list(site.staging.iterdir()) == []


@pytest.mark.parametrize(("required", "state"), [(True, "failed"), (False, "warning")])
def test_check_of_direct_that_does_not_work_is_a_warning_where_others_are_permitted(
    site: Site, required: bool, state: str
) -> None:
    found = checked(site.direct(source_end=Naming(None, port=free_port())), required)
    assert (found.state, found.adapter) == (state, None)
    assert found.found.startswith("port ") and found.found.endswith(" of 127.0.0.1 cannot be reached: Connection refused.")
    assert found.remedy.startswith("Open this port of the source for the node")
    assert "kept" not in found.remedy


def test_check_of_swarm_that_does_not_work_names_its_ports(site: Site) -> None:
    direct = site.direct(source_end=Naming(None, port=free_port()))
    found = checked(SwarmPorts(**{field.name: getattr(direct, field.name) for field in dataclasses.fields(direct)}))
    assert (found.check, found.state) == ("way swarm", "failed")
    assert found.found.endswith(" of 127.0.0.1 cannot be reached: Connection refused.")
    assert found.remedy.startswith("Open transfer_swarm_ports of the source for the node")


# Gives up after a second, and otherwise does what the interpreter of a node is to do.
IMPATIENT = """\
#!{python}
import socket, sys
connect = socket.create_connection
socket.create_connection = lambda where, seconds: connect(where, 1)
exec(sys.argv[3])
"""


def test_check_of_direct_with_dropped_packets_says_so(site: Site, tmp_path: pathlib.Path) -> None:
    impatient = tmp_path / "python"
    impatient.write_text(IMPATIENT.format(python=sys.executable))
    impatient.chmod(0o755)
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        # The kernel drops what comes after these, because nobody accepts them.
        for _number in range(4):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((host, port))
        found = checked(site.direct(source_end=Naming(None, port=port), node_python=str(impatient)))
    dropped = "it does not answer, as if a firewall drops what is sent to it."
    assert found.found == f"port {port} of 127.0.0.1 cannot be reached: {dropped}"


@dataclasses.dataclass
class Door:
    """An ssh server, the file with the keys that it accepts, and an end that it leads to."""

    server: sshd.Server
    keys: pathlib.Path
    end: End


@pytest.fixture
def door(request: pytest.FixtureRequest) -> t.Iterator[Door]:
    with contextlib.ExitStack() as held:
        # Sockets need short paths.
        beside, of_server = (held.enter_context(tempfile.TemporaryDirectory(dir="/tmp")) for _number in range(2))
        (pathlib.Path(beside) / "further").write_text(getattr(request, "param", ""))
        server = held.enter_context(sshd.running(pathlib.Path(of_server), f"Include {beside}/further"))
        end = End(server.options(), os.path.join(beside, "socket"))
        held.callback(end.close)
        yield Door(server, pathlib.Path(of_server, "authorized_keys"), end)


def through(site: Site, door: Door, keys: pathlib.Path | None = None) -> DirectSshWay:
    return site.direct_ssh(door.server, keys or door.keys, source_end=door.end, login=door.end)


@needs_sshd
@pytest.mark.parametrize("door", ["AllowTcpForwarding no\nPermitOpen none\nDisableForwarding yes\nPermitTTY no"], indirect=True)
def test_check_of_direct_ssh_logs_in_and_leaves_no_key(site: Site, door: Door) -> None:
    """Without any forwarding."""
    before = door.keys.read_bytes()
    found = checked(through(site, door))
    assert found == Check("way direct_ssh", "ok", f"the node reaches port {door.server.port} of 127.0.0.1")
    assert door.keys.read_bytes() == before
    assert [line for line in door.server.log if "Accepted publickey" in line]


@needs_sshd
@needs_root
def test_check_of_direct_ssh_that_is_denied_names_the_setting_and_the_host(
    site: Site, door: Door, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "keys").write_bytes(b"")
    found = checked(through(site, door, tmp_path / "keys"))
    assert found.state == "failed"
    assert "Permission denied (publickey). sshd at sbs29 has AuthorizedKeysFile" in found.found
    assert found.found.endswith(f"AuthorizedKeysFile {door.keys}, which is not {tmp_path}/keys.")
    assert found.remedy.startswith("In sshd_config at sbs29: Set transfer_direct_authorized_keys to a file that it names")


@needs_sshd
@needs_root
@pytest.mark.parametrize(
    "door", ["Match Address 192.0.2.0/24\n  ForceCommand internal-sftp\nMatch User root\n  MaxSessions 9\n"], indirect=True
)
def test_settings_of_sshd_are_those_for_the_address_of_the_node(site: Site, door: Door) -> None:
    way = through(site, door)
    refused = {}
    for address in ("192.0.2.7", "198.51.100.7", ""):
        way._login = Login(door.server.user, address)
        refused[address] = [one.setting for one in way.refusals()]
    assert refused == {"192.0.2.7": ["ForceCommand internal-sftp"], "198.51.100.7": [], "": []}


@needs_sshd
@needs_root
def test_check_of_direct_ssh_that_no_setting_explains_says_so(site: Site, door: Door) -> None:
    way, before = through(site, door), door.keys.read_bytes()
    admitted = way._access

    def access(*arguments: t.Any) -> dict[str, t.Any]:
        found = admitted(*arguments)
        # Something else replaces the file.
        door.keys.write_bytes(before)
        return found

    way._access = access  # type: ignore[method-assign]
    found = checked(way)
    assert found.found.endswith("No setting of sshd at sbs29 refuses it.")
    assert found.remedy.startswith("See its log there.")


@needs_sshd
def test_check_of_direct_ssh_with_unknown_settings_says_so(site: Site, door: Door, tmp_path: pathlib.Path) -> None:
    (tmp_path / "keys").write_bytes(b"")
    way = through(site, door, tmp_path / "keys")
    way._read_settings = lambda: {"problem": "only root can let sshd evaluate its settings"}  # type: ignore[method-assign]
    found = checked(way, required=False)
    assert found.state == "warning"
    unknown = "Which setting of sshd at sbs29 refuses it is unknown: only root can let sshd evaluate its settings."
    assert found.found.endswith(unknown)
    assert found.remedy.startswith("See which keys sshd at the source accepts")


def test_check_of_direct_at_a_source_that_cannot_be_reached_names_it(site: Site, tmp_path: pathlib.Path) -> None:
    found = checked(site.direct(source_python=str(tmp_path / "absent")))
    assert found.found.startswith(f"sbs29: has no {tmp_path}/absent")
