# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which prompts the askpass program answers when it is run as ssh runs it.

Real logins are in tests/integration.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import subprocess

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.askpass import askpass

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")

SECRET = "pass' $HOME `id` \\ %s \u00fc"  # noqa: S105
MARKER = 'ControlPath="/run/it\'s [a] * $HOME/node"'
# Runs instead of ssh, with ssh's arguments, and passes the prompt from its environment.
ASKS = '"$SSH_ASKPASS" "$prompt"; exit $?'


def ssh(host: str, *options: str) -> list[str]:
    return ["ssh", "-F", "none", "-o", MARKER, *(word for option in options for word in ("-o", option)), "--", host, "true"]


def ask(environment: dict[str, str], prompt: str, *arguments: str) -> str | None:
    """The answer to an ssh process with these arguments, None if it is not answered."""
    done = subprocess.run(
        ["sh", "-c", ASKS, *(arguments or ssh("jw2"))],
        env={**os.environ, **environment, "prompt": prompt},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        assert done.stderr == ""
        return done.stdout
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f": {prompt}\n")
    assert SECRET not in done.stderr
    return None


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (ssh("jw2", "User=deploy"), "deploy@jw2"),
        (ssh("JW2.example.org", "User=deploy"), "deploy@jw2.example.org"),
        (ssh("jw2", "User=deploy", "HostName=192.0.2.7", "Port=2222"), "deploy@192.0.2.7"),
        (ssh("jw2", "User=deploy", "HostName=192.0.2.7", "HostKeyAlias=node.example.org"), "deploy@node.example.org"),
        (ssh("jw2", "User=deploy", """HostKeyAlias="it's $(id);*[x]?" """), "deploy@it's $(id);*[x]?"),
    ],
)
def test_askpass_answers_prompts_of_its_host_only(tmp_path: pathlib.Path, argv: list[str], name: str) -> None:
    with askpass(argv, MARKER, SECRET, str(tmp_path)) as environment:
        for prompt in (f"{name}'s password: ", f"({name}) Password: ", f"({name}) "):
            assert ask(environment, prompt, *argv) == f"{SECRET}\n"
        for prompt in (
            "deploy@bastion's password: ",
            "(deploy@bastion) Password: ",
            # A server's own text follows ssh's.
            f"(deploy@bastion) ({name}) Password: ",
            f"(deploy@bastion) {name}'s password: ",
            f"Enter passphrase for key '{name}': ",
            "Enter passphrase for key '/home/me/.ssh/id_ed25519': ",
            "Enter PIN for 'token': ",
            "The authenticity of host 'jw2' can't be established. Are you sure you want to continue connecting (yes/no)? ",
            f"Enter {name}'s new password: ",
            f"{name}'s password: again",
            f"x{name}'s password: ",
            "",
        ):
            assert ask(environment, prompt, *argv) is None


def test_askpass_jump_host_with_same_name_is_not_answered(tmp_path: pathlib.Path) -> None:
    """Two hosts behind one address with forwarded ports: ssh's prompts do not name the port."""
    with askpass(ssh("jw2", "User=deploy", "ProxyJump=deploy@jw2:2222"), MARKER, SECRET, str(tmp_path)) as environment:
        # As ssh starts the process that connects to a jump host.
        jump = ["ssh", "-l", "deploy", "-p", "2222", "-F", "none", "-W", "[jw2]:22", "jw2"]
        assert ask(environment, "deploy@jw2's password: ", *jump) is None


def test_askpass_password_exists_in_memory_only(tmp_path: pathlib.Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with askpass(ssh("jw2"), MARKER, SECRET, str(tmp_path)) as environment:
        assert SECRET not in str(environment)
        assert environment["SSH_ASKPASS_REQUIRE"] == "force"
        program = pathlib.Path(environment["SSH_ASKPASS"])
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [program]
        assert (stat.S_IMODE(program.stat().st_mode), stat.S_IMODE(program.parent.stat().st_mode)) == (0o500, 0o700)
        text = program.read_text(encoding="utf-8")
        assert SECRET not in text
        [memory] = [word.rstrip(";") for word in text.split() if word.startswith("/proc/") and "/fd/" in word]
        assert pathlib.Path(memory).read_text(encoding="utf-8") == f"{SECRET}\n"
        assert stat.S_IMODE(os.stat(memory).st_mode) == 0o400
        # Processes started meanwhile do not inherit the descriptor.
        assert subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout.split() == list("0123")
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_askpass_invalid_ssh_arguments_answer_nothing(tmp_path: pathlib.Path) -> None:
    with askpass(ssh("jw2", "NoSuchOption=1"), MARKER, SECRET, str(tmp_path)) as environment:
        assert ask(environment, "deploy@jw2's password: ") is None
