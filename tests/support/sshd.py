# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real ssh server for tests, on a free port of this machine and with its own keys."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import typing as t

# sshd needs its absolute path: it starts itself again for each connection.
_SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
_TRIES = 5
_LIMIT = 30

# sshd uses the first value of a setting.
_CONFIG = """\
{settings}
ListenAddress {address}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server. ``log`` grows while it runs, by a line for each message."""

    port: int
    user: str
    private_key: pathlib.Path
    known_hosts: pathlib.Path
    log: list[str]
    address: str = "127.0.0.1"

    @property
    def ssh_common_args(self) -> str:
        # Ignore the developer's ssh configuration and keys.
        return f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={self.known_hosts} -o GlobalKnownHostsFile=/dev/null"

    def options(self, **overrides: t.Any) -> dict[str, t.Any]:
        """The options of ansible.builtin.ssh that connect to it."""
        return {
            "host": self.address,
            "password": None,
            "port": self.port,
            "private_key_file": str(self.private_key),
            "remote_user": self.user,
            "ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s",
            "ssh_common_args": self.ssh_common_args,
            "ssh_executable": "ssh",
            "ssh_extra_args": "",
            "timeout": 10,
            **overrides,
        }

    def variables(self) -> dict[str, t.Any]:
        """The same options as variables of an inventory."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": str(self.private_key),
            "ansible_ssh_common_args": self.ssh_common_args,
        }


def lacking() -> str:
    """Why no server can be started here, or an empty string if one can."""
    if _SSHD is None:
        return "no sshd on this machine"
    missing = [program for program in ("ssh", "ssh-keygen") if shutil.which(program) is None]
    return f"no {missing[0]} on this machine" if missing else ""


@contextlib.contextmanager
def running(
    directory: pathlib.Path, *settings: str, address: str = "127.0.0.1", within: t.Sequence[str] = ()
) -> t.Iterator[Server]:
    """Run a server with its files in an empty ``directory``.

    ``settings`` are lines of sshd_config. ``within`` is a command that starts another one in the
    network namespace of ``address``.
    """
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name], check=True)
    shutil.copy(directory / "user_key.pub", directory / "authorized_keys")
    if os.geteuid() == 0:
        # sshd's unprivileged part needs it. Distributions create it when their service starts.
        pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for _try in range(_TRIES):
        port = free_port()
        process, log = _start(directory, address, port, settings, within)
        if process.poll() is None:
            break
    else:
        raise RuntimeError("sshd does not start:\n" + "\n".join(log))
    host_key = (directory / "host_key.pub").read_text(encoding="utf-8")
    (directory / "known_hosts").write_text(f"[{address}]:{port} {host_key}", encoding="utf-8")
    try:
        yield Server(port, getpass.getuser(), directory / "user_key", directory / "known_hosts", log, address)
    finally:
        process.terminate()
        process.wait(_LIMIT)


def free_port() -> int:
    """A port that is free now.

    If it is taken before sshd starts, sshd ends and another is tried.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    directory: pathlib.Path, address: str, port: int, settings: tuple[str, ...], within: t.Sequence[str]
) -> tuple[subprocess.Popen[str], list[str]]:
    """Start sshd and wait until it listens or has ended."""
    config = _CONFIG.format(address=address, port=port, directory=directory, settings="\n".join(settings))
    (directory / "sshd_config").write_text(config, encoding="utf-8")
    process = subprocess.Popen(
        [*within, str(_SSHD), "-D", "-e", "-f", str(directory / "sshd_config")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    log: list[str] = []
    listening = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                log.append(line.rstrip())
                if line.startswith(f"Server listening on {address}"):
                    listening.set()
        process.wait()
        listening.set()

    threading.Thread(target=read, daemon=True).start()
    if not listening.wait(_LIMIT):
        process.kill()
        process.wait()
    return process, log
