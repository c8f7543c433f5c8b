# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.ssh import OPTIONS, ssh_argv, without_secrets

# The values of ansible.builtin.ssh when only the host is set.
DEFAULTS: dict[str, t.Any] = {
    "host": "jw2",
    "password": None,
    "port": None,
    "private_key_file": None,
    "remote_user": None,
    "ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s",
    "ssh_common_args": "",
    "ssh_executable": "ssh",
    "ssh_extra_args": "",
    "timeout": 10,
}
FIRST = [
    "ssh",
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "Compression=no"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=4"),
    *("-o", "ControlMaster=auto"),
    *("-o", "ControlPersist=60"),
    *("-o", 'ControlPath="/run/50%%/node"'),
]
ANSIBLES = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s"]
LAST = ["-o", "Ciphers=^aes128-gcm@openssh.com"]


def argv(*command: str, **options: t.Any) -> list[str]:
    return ssh_argv({**DEFAULTS, **options}, command or ("true",), "/run/50%/node")


def understood(**options: t.Any) -> dict[str, str]:
    """The settings that ssh itself derives from the arguments."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    words = argv(**{"ssh_extra_args": "-F none", **options})
    done = subprocess.run([words[0], "-G", *words[1:]], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_options_are_those_read() -> None:
    assert set(OPTIONS) == set(DEFAULTS)


def test_ssh_argv_default_options() -> None:
    assert argv() == [*FIRST, *ANSIBLES, "-o", "ConnectTimeout=10", *LAST, "--", "jw2", "true"]


def test_ssh_argv_port_user_and_key() -> None:
    assert argv(port=2222, remote_user="deploy", private_key_file="~/keys/fleet key") == [
        *FIRST,
        *ANSIBLES,
        *("-o", "Port=2222"),
        *("-o", f'IdentityFile="{os.path.expanduser("~")}/keys/fleet key"'),
        *("-o", 'User="deploy"'),
        *("-o", "ConnectTimeout=10"),
        *LAST,
        *("--", "jw2", "true"),
    ]


def test_ssh_argv_proxy_command_and_extra_arguments() -> None:
    assert argv(ssh_common_args="-o ProxyCommand='ssh -W %h:%p -q bastion'", ssh_extra_args="-4 -v", timeout=None) == [
        *FIRST,
        *ANSIBLES,
        *("-o", "ProxyCommand=ssh -W %h:%p -q bastion"),
        *("-4", "-v"),
        *LAST,
        *("--", "jw2", "true"),
    ]


def test_ssh_argv_without_user_arguments() -> None:
    assert argv(ssh_args=None, ssh_common_args=None, ssh_extra_args=None, timeout=None) == [*FIRST, *LAST, "--", "jw2", "true"]


@pytest.mark.parametrize("option", ["ssh_args", "ssh_common_args", "ssh_extra_args"])
@pytest.mark.parametrize("flag", ["-C", "-4C", "-Cq"])
def test_ssh_argv_user_flags_cannot_enable_compression(option: str, flag: str) -> None:
    assert understood(**{option: f"-F none {flag} -o Compression=yes"})["compression"] == "no"


@pytest.mark.parametrize("option", ["ssh_args", "ssh_common_args", "ssh_extra_args"])
@pytest.mark.parametrize(
    ("arguments", "setting", "expected"),
    [
        ("-o StrictHostKeyChecking=no", "stricthostkeychecking", "true"),
        ("-oStrictHostKeyChecking=accept-new", "stricthostkeychecking", "true"),
        ("-o BatchMode=no", "batchmode", "yes"),
        ("-o ControlPath=/home/me/.ansible/cp/jw2", "controlpath", "/run/50%/node"),
        ("-o Ciphers=aes256-gcm@openssh.com", "ciphers", "aes256-gcm@openssh.com"),
        ("-o ProxyJump=bastion", "proxyjump", "bastion"),
        ("-J bastion", "proxyjump", "bastion"),
    ],
)
def test_ssh_argv_user_arguments_override_only_some_settings(option: str, arguments: str, setting: str, expected: str) -> None:
    assert understood(**{option: f"-F none {arguments}"})[setting] == expected


def test_ssh_argv_settings_are_accepted_by_ssh() -> None:
    settings = understood(port=2222, remote_user="deploy", private_key_file="/keys/fleet key")
    assert settings["user"] == "deploy"
    assert settings["port"] == "2222"
    assert settings["identityfile"] == "/keys/fleet key"
    assert settings["connecttimeout"] == "10"
    assert settings["ciphers"].startswith("aes128-gcm@openssh.com,")


def test_ssh_argv_proxy_jump_is_passed_on() -> None:
    assert argv(ssh_common_args="-o ProxyJump=me@bastion:2222") == [
        *FIRST,
        *ANSIBLES,
        *("-o", "ConnectTimeout=10"),
        *("-o", "ProxyJump=me@bastion:2222"),
        *LAST,
        *("--", "jw2", "true"),
    ]


def test_ssh_argv_without_control_path_shares_no_connection() -> None:
    assert 'ControlPath="none"' in ssh_argv(DEFAULTS, ("true",))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-o", "ProxyCommand=sshpass -p secret ssh -W %h:%p bastion"], ["-o", "ProxyCommand=..."]),
        (["-o", "proxycommand sshpass -p secret\nssh"], ["-o", "proxycommand ..."]),
        (["-oProxyCommand=sshpass -p secret ssh"], ["-oProxyCommand=..."]),
        (["-4oProxyCommand=sshpass -p secret ssh"], ["-4oProxyCommand=..."]),
        (["-o", "KnownHostsCommand=/bin/keys --token secret"], ["-o", "KnownHostsCommand=..."]),
        (["-o", "LocalCommand=say secret"], ["-o", "LocalCommand=..."]),
        (["-o", "SetEnv=TOKEN=secret"], ["-o", "SetEnv=..."]),
        (["-o", 'User="deploy"', "-J", "me:secret@bastion"], ["-o", 'User="deploy"', "-J", "..."]),
        (["-o", "ProxyJump=me:secret@bastion"], ["-o", "ProxyJump=..."]),
        (["-vJme:secret@bastion", "-4"], ["-vJ...", "-4"]),
        (["-o", "RemoteCommand=secret", "-E", "/secret"], ["-o", "RemoteCommand=...", "-E", "..."]),
        (["-o", "secret", "-i", "/key", "-p22"], ["-o", "...", "-i", "/key", "-p22"]),
        (["-o", '"ProxyJump"=me:secret@bastion', "secret"], ["-o", "...", "..."]),
        (["-J"], ["-J"]),
    ],
)
def test_without_secrets_omits_values_that_may_be_secret(words: list[str], shown: list[str]) -> None:
    after = ["--", "jw2", "rsync -J secret"]
    assert without_secrets(["ssh", *words]) == ["ssh", *shown]
    if words[-1] != "-J":
        assert without_secrets(["ssh", *words, *after]) == ["ssh", *shown, *after]


def test_without_secrets_shows_all_options_of_the_collection() -> None:
    command = argv(password="x", port=22, remote_user="me", private_key_file="/key")  # noqa: S106
    assert without_secrets(command) == command


def test_ssh_argv_password_is_prompted_once_and_no_argument() -> None:
    once = ["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]
    expected = [*FIRST[:1], *once, *FIRST[3:], *ANSIBLES, "-o", "ConnectTimeout=10", *LAST, "--", "jw2", "true"]
    assert argv(password="secret") == expected  # noqa: S106
    weakened = "-F none -o BatchMode=yes -o NumberOfPasswordPrompts=9 -o StrictHostKeyChecking=ask"
    settings = understood(password="secret", ssh_args=weakened)  # noqa: S106
    assert (settings["batchmode"], settings["numberofpasswordprompts"], settings["stricthostkeychecking"]) == ("no", "1", "true")


@pytest.mark.parametrize("command", [["echo", "a b", "$HOME", "it's", 'say "x"', "*", "", "a;b", "-n", "ä", "\\"]])
def test_ssh_argv_command_words_reach_remote_shell_unchanged(command: list[str]) -> None:
    *_options, host, remote = argv(*command)
    assert host == "jw2"
    assert shlex.split(remote) == command
    shown = ["printf", "%s\\0", *command]
    done = subprocess.run(["sh", "-c", argv(*shown)[-1]], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == command


def test_ssh_argv_host_is_never_an_option() -> None:
    assert argv(host="-oProxyCommand=id")[-3:] == ["--", "-oProxyCommand=id", "true"]
