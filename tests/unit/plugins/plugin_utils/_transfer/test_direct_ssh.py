# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Direct transfers through an ssh server: what the key permits, and what killed parties leave."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer import direct_ssh
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ways import Ways

from tests.support import sshd
from tests.support.paths import CHECKOUT
from tests.support.processes import is_running, wait_for
from tests.support.sshd import free_port
from tests.support.ways import WAYS, Site, random_bytes

LIMIT = 30
MIB = 1 << 20

pytestmark = pytest.mark.skipif(bool(sshd.lacking()), reason=sshd.lacking())


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site.below(tmp_path, config=b"{}", weights=random_bytes(MIB))


@dataclasses.dataclass
class Door:
    """An ssh server of its own, and the file with the keys that it accepts."""

    server: sshd.Server
    keys: pathlib.Path
    before: bytes


@pytest.fixture
def door() -> t.Iterator[Door]:
    with tempfile.TemporaryDirectory() as directory, sshd.running(pathlib.Path(directory)) as server:
        keys = pathlib.Path(directory, "authorized_keys")
        yield Door(server, keys, keys.read_bytes())


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def test_direct_ssh_takes_the_key_away_when_the_first_bytes_arrive(site: Site, door: Door) -> None:
    seen: list[bytes] = []
    way = site.direct_ssh(door.server, door.keys, options=dataclasses.replace(site.options, bwlimit="1M"))
    original = way._watch_login

    def watch(is_in: bool) -> None:
        original(is_in)
        seen.append(door.keys.read_bytes())

    way._watch_login = watch  # type: ignore[method-assign]
    way.fetch(site.wanted(), lambda count: None)
    assert door.keys.read_bytes() == seen[-1] == door.before
    assert not any(b"PRIVATE" in text for text in seen)


def test_direct_ssh_key_of_a_node_gets_it_nothing_but_the_offer(site: Site, door: Door, tmp_path: pathlib.Path) -> None:
    """Neither a shell nor files, forwarding, an agent or a terminal, whatever it asks for."""
    answers: list[str] = []
    pair = direct_ssh.login_key()
    (tmp_path / "key").write_text(pair[0])
    (tmp_path / "key").chmod(0o600)
    port = free_port()
    way = site.direct_ssh(door.server, door.keys)
    admitted = way._access

    def try_it(*arguments: t.Any) -> dict[str, t.Any]:
        found = admitted(*arguments)
        ssh = ["ssh", "-F", "none", "-p", str(door.server.port), "-i", str(tmp_path / "key"), "-o", "IdentitiesOnly=yes"]
        ssh += ["-o", f"UserKnownHostsFile={door.server.known_hosts}", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
        host = f"{door.server.user}@127.0.0.1"
        for attempt in (
            [host, "id; cat /etc/passwd"],
            ["-tt", host],
            ["-s", host, "sftp"],
            ["-W", f"127.0.0.1:{door.server.port}", host],
            ["-R", f"{port}:127.0.0.1:{port}", host, "id"],
            ["-L", f"{port}:127.0.0.1:{door.server.port}", host, "id"],
        ):
            done = subprocess.run([*ssh, *attempt], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
            answers.append((done.stdout + done.stderr).decode(errors="replace"))
        return found

    way._access = try_it  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct_ssh, "login_key", lambda: pair)
        way.fetch(site.wanted(), lambda count: None)
    assert len(answers) == 6
    assert not any(word in answer for answer in answers for word in ("uid=", "root:", "SSH-2.0", "gid="))
    assert site.arrived()["weights"] == (site.source / "weights").read_bytes()
    # Afterwards, not even that.
    ssh = ["ssh", "-F", "none", "-p", str(door.server.port), "-i", str(tmp_path / "key"), "-o", "IdentitiesOnly=yes"]
    ssh += ["-o", f"UserKnownHostsFile={door.server.known_hosts}", "-o", "BatchMode=yes", f"{door.server.user}@127.0.0.1"]
    done = subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "Permission denied" in done.stderr


def test_direct_ssh_with_an_interpreter_in_a_directory_with_a_space_brings_the_files(
    site: Site, door: Door, tmp_path: pathlib.Path
) -> None:
    python = tmp_path / "of the site" / "python3"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    site.direct_ssh(door.server, door.keys, source_python=str(python)).fetch(site.wanted(), lambda count: None)
    assert site.arrived()["weights"] == (site.source / "weights").read_bytes()


def test_direct_ssh_with_a_server_that_reads_other_keys_names_its_settings_and_falls_back(
    site: Site, door: Door, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "keys").write_bytes(b"")
    way = site.direct_ssh(door.server, tmp_path / "keys")
    with pytest.raises(DeliveryError, match=r"does not let the node in: .*Permission denied \(publickey\)\. See which keys sshd"):
        way.fetch(site.wanted(), lambda count: None)
    with WAYS["relay"](site) as relay:
        ways = Ways([way, relay])
        ways.fetch(site.wanted(), lambda count: None)
    [refused] = ways.taken["grammar_lora"]["not_taken"]
    assert refused["way"] == "direct_ssh" and "Permission denied (publickey)" in refused["why"]
    assert (tmp_path / "keys").read_bytes() == b""


def test_direct_ssh_with_a_server_that_forces_another_command_says_so_and_is_given_up(site: Site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "server").mkdir()
    with sshd.running(tmp_path / "server", "ForceCommand echo 'This account is for file transfers only.'") as server:
        way = site.direct_ssh(server, server.private_key.parent / "authorized_keys")
        with pytest.raises(DeliveryError, match="lets the node in, but does not run the command of its key"):
            way.fetch(site.wanted(), lambda count: None)
    assert "does not run the command of its key" in way.given_up


def test_direct_ssh_with_keys_that_cannot_be_changed_safely_is_refused(site: Site, door: Door, tmp_path: pathlib.Path) -> None:
    os.link(door.keys, tmp_path / "other")
    way = site.direct_ssh(door.server, door.keys)
    with pytest.raises(DeliveryError, match="authorized_keys cannot be changed: it is no plain file of its own"):
        way.fetch(site.wanted(), lambda count: None)
    assert "cannot be changed" in way.given_up
    assert door.keys.read_bytes() == door.before


def test_direct_ssh_with_a_source_that_names_an_option_as_its_user_is_refused(
    site: Site, door: Door, tmp_path: pathlib.Path
) -> None:
    hostile = tmp_path / "python"
    # The third program that is started there adds the key.
    hostile.write_text(
        "#!/bin/sh\necho >> {0}; if test $(wc -l < {0}) = 3; then echo; echo '-- begin --'; read job;"
        ' echo \'{{"user": "-oProxyCommand=touch {1}"}}\'; cat >/dev/null; else exec {2} "$@"; fi\n'.format(
            tmp_path / "starts", tmp_path / "harm", sys.executable
        )
    )
    hostile.chmod(0o755)
    way = site.direct_ssh(door.server, door.keys, source_python=str(hostile))
    with pytest.raises(DeliveryError, match=r"sbs29: gave an answer of another form: \"user is not the name of a user"):
        way.fetch(site.wanted(), lambda count: None)
    assert not (tmp_path / "harm").exists()


def host_key_of(server: sshd.Server) -> str:
    return " ".join((server.private_key.parent / "host_key.pub").read_text().split()[:2])


def test_direct_ssh_node_logs_in_to_no_server_with_another_host_key(site: Site, door: Door) -> None:
    """The address of the source leads somewhere else, for instance to somebody in between."""
    directory = door.keys.parent / "other"
    directory.mkdir()
    with sshd.running(directory, f"AuthorizedKeysFile {door.keys}") as other:
        way = site.direct_ssh(other, door.keys, once=lambda _read: [host_key_of(door.server)])
        with pytest.raises(DeliveryError) as failed:
            way.fetch(site.wanted(), lambda count: None)
        reason = f"port {other.port} of 127.0.0.1 has another host key than the source."
        [problem] = failed.value.problems
        assert problem.problem.endswith(f": {reason}")
        assert problem.remedy.startswith("Something else answers there")
        assert way.given_up == reason
        assert (site.arrived(), [line for line in other.log if "publickey" in line]) == ({}, [])
        # That server would have accepted the key.
        site.direct_ssh(other, door.keys).fetch(site.wanted(), lambda count: None)
        assert [line for line in other.log if "Accepted publickey" in line]
    assert door.keys.read_bytes() == door.before


def test_direct_ssh_reads_the_host_keys_of_the_server_that_the_controller_is_connected_to(site: Site, door: Door) -> None:
    way = site.direct_ssh(door.server, door.keys, login=End(door.server.options()), ssh_port=1)
    assert way._read_host_keys(site.wanted()) == [host_key_of(door.server)]


RUN = """\
import dataclasses, pathlib, sys
from tests.support import sshd
from tests.support.ways import Site
site = Site(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
server = sshd.Server(int(sys.argv[3]), "", pathlib.Path(), pathlib.Path(), [])
way = site.direct_ssh(server, pathlib.Path(sys.argv[4]), options=dataclasses.replace(site.options, bwlimit="200"))
if sys.argv[5] == "door":
    way._watch_login = lambda is_in: None
way.fetch(site.wanted(), lambda count: None)
"""


@pytest.mark.parametrize("victim", ["controller", "node", "source", "door"])
def test_direct_ssh_leaves_no_process_and_no_key_of_killed_parties(site: Site, door: Door, victim: str) -> None:
    """Only the program that adds the key leaves it there, until the next transfer."""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    argv = [sys.executable, "-c", RUN, str(site.source), str(site.staging), str(door.server.port), str(door.keys), victim]
    controller = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=path)
    try:
        wait_for(lambda: (site.staging / "weights").exists() and (site.staging / "weights").stat().st_size > 100_000)
        programs = children(controller.pid)
        at_node, at_source = programs[:2]
        [client] = children(at_node)
        os.kill({"controller": controller.pid, "node": at_node, "source": at_source}.get(victim, programs[-1]), signal.SIGKILL)
        if victim == "door":
            assert b"lorafleet.delivery:" in door.keys.read_bytes()
            # The transfer goes on: the node has logged in.
            controller.kill()
        controller.communicate(timeout=LIMIT)
        wait_for(lambda: not any(map(is_running, [*programs, client])))
    finally:
        controller.kill()
        controller.communicate(timeout=LIMIT)
    if victim != "door":
        wait_for(lambda: door.keys.read_bytes() == door.before)
    counts: list[int] = []
    site.direct_ssh(door.server, door.keys).fetch(site.wanted(), counts.append)
    assert door.keys.read_bytes() == door.before
    assert 0 < sum(counts) < MIB
    assert site.arrived()["weights"] == (site.source / "weights").read_bytes()
