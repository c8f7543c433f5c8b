# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Runs a command as another user by Ansible's own become plugin."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import os
import select
import shlex
import subprocess
import time
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from .._contact.failures import Account, Failure, explain

# Prompts arrive on standard error, which is a file: the seconds between two reads of it, and their
# size.
_POLL_INTERVAL = 0.1
_READ_SIZE = 1 << 16
# Higher exit statuses are those of ssh itself (255) or mean a signal.
_REGULAR_EXIT = range(128)
# Methods that do not say so by ``require_tty``.
_NEED_TERMINAL = ("machinectl", "run0")


def check_usable(host: str, plugin: t.Any) -> None:
    """Raise DeliveryError for a become method whose command has a terminal.

    A terminal changes the bytes that pass through it.
    """
    name = plugin.name.rpartition(".")[2]
    # Without a password, for instance for root, su needs no terminal.
    asks = name == "su" and plugin.get_option("become_pass")
    if plugin.require_tty or name in _NEED_TERMINAL or asks:
        raise DeliveryError.of(
            host,
            f"has no terminal for a transfer, but become method {plugin.name} requires one"
            + (" to ask for its password." if asks else "."),
            "Set ansible_become_method to one that needs no terminal, such as sudo. The served files were not changed.",
        )


@dataclasses.dataclass(frozen=True)
class Become:
    """``plugin`` and ``shell`` are those of Ansible's connection.

    ``account`` is for messages.
    """

    account: Account
    plugin: t.Any
    shell: t.Any

    def argv(self, command: c.Sequence[str]) -> list[str]:
        """Wrap ``command`` to run as the other user, after a success line on standard output."""
        return ["sh", "-c", self.plugin.build_become_command(shlex.join(command), self.shell)]

    def wait(self, process: subprocess.Popen[bytes], stderr: t.IO[bytes], timeout: int) -> bool:
        """Wait for the success line of ``process``; leave everything after that line unread.

        ``stderr`` is the file that the process's standard error goes to. The password is written
        only after its prompt: without a prompt, the command itself would read it. Returns False if
        the connection broke. Raises DeliveryError if the host refuses, or does not answer within
        ``timeout`` seconds.
        """
        stdout, stdin = (t.cast("t.IO[bytes]", pipe).fileno() for pipe in (process.stdout, process.stdin))
        password = self.plugin.get_option("become_pass")
        ready = select.poll()
        ready.register(stdout, select.POLLIN)
        deadline = time.monotonic() + timeout
        line, answered = b"", 0
        while (left := deadline - time.monotonic()) > 0:
            if ready.poll(1000 * (min(left, _POLL_INTERVAL) if password else left)):
                byte = os.read(stdout, 1)
                if not byte:
                    # It may have closed its output only.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        if process.wait(left) not in _REGULAR_EXIT:
                            return False
                    break
                line += byte
                if byte == b"\n":
                    if self.plugin.check_success(line):
                        return True
                    line = b""
            elif password:
                messages = os.pread(stderr.fileno(), _READ_SIZE, answered)
                if self.plugin.check_password_prompt(messages):
                    if answered:
                        break
                    answered = len(messages)
                    # If the process has ended, the loop notices it above.
                    with contextlib.suppress(BrokenPipeError):
                        os.write(stdin, f"{password}\n".encode())
        messages = os.pread(stderr.fileno(), _READ_SIZE, answered)
        raise self._refusal(messages, bool(answered), timeout if left <= 0 else 0)

    def without_prompt(self, messages: str) -> str:
        """What was written to standard error, without the prompt of the become method."""
        prompt = self.plugin.prompt
        return messages.replace(prompt, "", 1) if isinstance(prompt, str) and prompt else messages

    def _refusal(self, messages: bytes, answered: bool, waited: int) -> DeliveryError:
        host, user = self.account.host, self.account.become_user
        prompted = self.plugin.check_password_prompt(messages)
        if self.plugin.check_incorrect_password(messages) or (answered and prompted):
            problem = f"rejected the password to become {user}."
            remedy = "Correct ansible_become_password, or the answer to --ask-become-pass."
        elif prompted or self.plugin.check_missing_password(messages):
            problem = f"requires a password to become {user}."
            remedy = (
                "Set ansible_become_password, run with --ask-become-pass,"
                " or allow it without a password there (NOPASSWD in sudoers)."
            )
        elif known := explain(Failure("", messages.decode(errors="replace")), self.account):
            problem, remedy = known.problem, known.remedy
        else:
            why = " ".join(messages.decode(errors="replace").split())[-600:] or "no reason given"
            within = f" within {waited} seconds" if waited else ""
            problem = f"did not let this user become {user}{within}: {why}."
            remedy = "Check ansible_become_user, ansible_become_method and what the host permits (sudo -l)."
        return DeliveryError.of(host, problem, f"{remedy} The served files were not changed.")
