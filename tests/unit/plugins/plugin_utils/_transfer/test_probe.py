# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection of a transfer to this machine, local and over a real ssh server."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.probe import probe
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.relay import End

from tests.support.sshd import Server


@pytest.fixture
def socket(tmp_path: pathlib.Path) -> t.Iterator[str]:
    """The path of a control socket, which must be closed again."""
    path = tmp_path / "s"
    yield str(path)
    assert not path.exists()


def test_probe_accepts_programs_that_are_there(sshd: Server, socket: str) -> None:
    probe("jw2-1", End(None), ["sh", "env"])
    probe("jw2-1", End(sshd.options(), socket), ["sh", "env"])


def test_probe_names_all_missing_programs(sshd: Server, socket: str) -> None:
    for end in (End(None), End(sshd.options(), socket)):
        with pytest.raises(DeliveryError, match=r"^jw2-1: finds no absent-1 and no absent-2 in the search path of a transfer\."):
            probe("jw2-1", end, ["absent-1", "sh", "absent-2"])


def test_probe_of_closed_port_says_so(sshd: Server, socket: str) -> None:
    with pytest.raises(DeliveryError, match=r"an ssh connection failed: ssh: connect to host 127\.0\.0\.1 port 1: Connection"):
        probe("jw2-1", End(sshd.options(port=1), socket), ["sh"])


def test_probe_refuses_unknown_host_key_although_ansible_need_not(sshd: Server, socket: str, tmp_path: pathlib.Path) -> None:
    other_key, known = tmp_path / "other_key", tmp_path / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other_key], check=True)
    known.write_text(f"[127.0.0.1]:{sshd.port} {other_key.with_suffix('.pub').read_text(encoding='utf-8')}", encoding="utf-8")
    options = dataclasses.replace(sshd, known_hosts=known).options(ssh_args="-o StrictHostKeyChecking=no")
    with pytest.raises(DeliveryError, match=r"Host key verification failed\.") as caught:
        probe("jw2-1", End(options, socket), ["sh"])
    assert "always check the host key" in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Greeting(End):
    """An end whose shell prints a line before the output of each command."""

    def argv(self, command: t.Any) -> list[str]:
        return ["sh", "-c", 'echo "Welcome to jw2"; exec "$@"', "sh", *super().argv(command)]


def test_probe_refuses_text_of_the_shell_at_a_source_only() -> None:
    probe("jw2-1", Greeting(None), ["sh"])
    with pytest.raises(DeliveryError, match=r'sbs29: prints "Welcome to jw2\\n" before the output of each command'):
        probe("sbs29", Greeting(None), ["sh"], source=True)
    with pytest.raises(DeliveryError, match="jw2-1: finds no absent in the search path"):
        probe("jw2-1", Greeting(None), ["absent"])
