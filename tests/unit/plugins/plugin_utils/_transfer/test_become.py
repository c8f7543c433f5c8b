# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Becoming another user by Ansible's own plugin, with fake sudo programs that behave in many ways.

The real sudo and its passwords are in tests/integration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import subprocess
import tempfile

import pytest
from ansible.plugins.loader import become_loader, shell_loader
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.failures import Account
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._transfer.become import Become

SECRET = "s3cret ü"  # noqa: S105
LIMIT = 30
# The last argument is the command; the one after -p is the prompt.
SUDO = """\
#!/bin/sh
prompt=; while [ $# -gt 1 ]; do test "$1" != -p || prompt=$2; shift; done
{behaves}
eval "$1"
"""
ASKS = 'printf %s "$prompt" >&2; read -r word'


@dataclasses.dataclass
class Waited:
    """The return value of ``Become.wait``, and the command's output for the input ``after``."""

    became: bool
    output: str


def wait(
    directory: pathlib.Path,
    behaves: str,
    password: str | None = None,
    timeout: int = LIMIT,
    after: str = "",
    instead: list[str] | None = None,
) -> Waited:
    """Wait for a sudo that behaves so, or for another command ``instead`` of it."""
    program = directory / "sudo"
    program.write_text(SUDO.format(behaves=behaves), encoding="utf-8")
    program.chmod(0o755)
    plugin, shell = become_loader.get("sudo"), shell_loader.get("sh")
    options = {"ansible_become_exe": str(program), "ansible_become_flags": "-S", "ansible_become_user": "serving"}
    plugin.set_options(var_options={**options, **({"ansible_become_password": password} if password else {})})
    shell.executable = "/bin/sh"
    become = Become(Account("jw2-1", "deploy", plugin.get_option("become_user"), "sudo"), plugin, shell)
    argv = become.argv(["cat"])
    assert SECRET not in str(argv)
    with tempfile.TemporaryFile() as stderr, contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(instead or argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=directory)
        )
        stack.callback(process.kill)
        became = become.wait(process, stderr, timeout)
        output, _nothing = process.communicate(after.encode(), LIMIT)
        return Waited(became, output.decode())


@pytest.mark.parametrize("password", [None, SECRET])
@pytest.mark.parametrize("noise", [":", "echo Welcome; echo to this host", "printf 'no newline: '", "echo motd >&2"])
def test_become_without_prompt_passes_all_input_to_command(tmp_path: pathlib.Path, noise: str, password: str | None) -> None:
    # A password without a prompt would come first in the command's input.
    assert wait(tmp_path, noise, password, after="its input\n") == Waited(became=True, output="its input\n")


@pytest.mark.parametrize("noise", [":", "echo 'a lecture on power' >&2", "echo Welcome"])
def test_become_prompt_is_answered_with_password(tmp_path: pathlib.Path, noise: str) -> None:
    behaves = f'{noise}; {ASKS}; test "$word" = "{SECRET}" || exit 1'
    assert wait(tmp_path, behaves, SECRET, after="its input\n") == Waited(became=True, output="its input\n")


REFUSALS: dict[str, tuple[str, str | None, str]] = {
    "a wrong password, reported in English": (
        f'{ASKS}; echo "Sorry, try again." >&2; {ASKS}; exit 1',
        SECRET,
        "rejected the password to become serving. Correct ansible_become_password",
    ),
    "a wrong password, reported in another language": (
        f'{ASKS}; echo "다시 시도하십시오." >&2; {ASKS}; exit 1',
        SECRET,
        "rejected the password to become serving. Correct ansible_become_password",
    ),
    "no password set": (
        'echo "sudo: a password is required" >&2; exit 1',
        None,
        "requires a password to become serving. Set ansible_become_password",
    ),
    "no such user": (
        'echo "sudo: unknown user serving" >&2; exit 1',
        SECRET,
        'as user deploy becoming serving by sudo, the become user serving does not exist: "sudo: unknown user',
    ),
    "another program than sudo": (
        "exit 0",
        None,
        "as user deploy becoming serving by sudo, sudo refused the command and gave no reason.",
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_become_refusal_names_reason_and_remedy(tmp_path: pathlib.Path, why: str) -> None:
    behaves, password, message = REFUSALS[why]
    with pytest.raises(DeliveryError) as caught:
        wait(tmp_path, behaves, password)
    assert str(caught.value).startswith(f"jw2-1: {message}")
    assert str(caught.value).endswith("The served files were not changed.")
    assert SECRET not in str(caught.value)


def test_become_wrong_password_is_given_once(tmp_path: pathlib.Path) -> None:
    """Repeated failures may lock the account."""
    behaves = f'for _try in 1 2 3; do {ASKS} || exit 1; echo "$word" >> given; done; exit 1'
    with pytest.raises(DeliveryError, match="rejected the password"):
        wait(tmp_path, behaves, SECRET)
    assert (tmp_path / "given").read_text(encoding="utf-8") == f"{SECRET}\n"


@pytest.mark.parametrize("password", [None, SECRET])
def test_become_without_answer_times_out(tmp_path: pathlib.Path, password: str | None) -> None:
    with pytest.raises(DeliveryError, match=r"jw2-1: did not let this user become serving within 1 seconds: it hangs\."):
        wait(tmp_path, "echo it hangs >&2; read -r word", password, timeout=1)


@pytest.mark.parametrize("ends", ["exit 255", "kill -KILL $$"])
def test_become_broken_connection_is_no_refusal(tmp_path: pathlib.Path, ends: str) -> None:
    assert wait(tmp_path, ends).became is False


@pytest.mark.timeout(60)
def test_become_that_closes_its_output_and_goes_on_is_a_refusal(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match="jw2-1: as user deploy becoming serving by sudo, sudo refused"):
        # Without a shell above it, which would keep the output open.
        wait(tmp_path, "", timeout=1, instead=["sh", "-c", "exec >&-; exec sleep 1000"])
