# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""A command that runs as another user on its host, whom Ansible's own become plugin becomes there."""

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

# Prompts come on standard error, which is a file: it is looked at so often, in seconds, and so many bytes of it.
_LOOK = 0.1
_LOOKED_AT = 1 << 16
# Other statuses are those of ssh itself (255), or tell of a signal.
_ENDED_BY_ITSELF = range(128)


@dataclasses.dataclass(frozen=True)
class Become:
    """C(plugin) and C(shell) are the ones of Ansible's connection, with their options. C(host) is a name for messages."""

    host: str
    plugin: t.Any
    shell: t.Any

    def argv(self, command: c.Sequence[str]) -> list[str]:
        """What runs C(command) as the other user, after a line on standard output that says that it does."""
        return ["sh", "-c", self.plugin.build_become_command(shlex.join(command), self.shell)]

    def wait(self, process: subprocess.Popen[bytes], said: t.IO[bytes], timeout: int) -> bool:
        """Wait for that line of C(process), whose standard error is the file C(said); what follows the line is left unread.

        A password is written when it is asked for and never before: where nobody asks, the command itself would read it.
        False when the connection broke. Raises DeliveryError where the host refuses, or says nothing for C(timeout) seconds.
        """
        stdout, stdin = (t.cast("t.IO[bytes]", pipe).fileno() for pipe in (process.stdout, process.stdin))
        password = self.plugin.get_option("become_pass")
        ready = select.poll()
        ready.register(stdout, select.POLLIN)
        deadline = time.monotonic() + timeout
        line, answered = b"", 0
        while (left := deadline - time.monotonic()) > 0:
            if ready.poll(1000 * (min(left, _LOOK) if password else left)):
                byte = os.read(stdout, 1)
                if not byte:
                    if process.wait() not in _ENDED_BY_ITSELF:
                        return False
                    break
                line += byte
                if byte == b"\n":
                    if self.plugin.check_success(line):
                        return True
                    line = b""
            elif password:
                messages = os.pread(said.fileno(), _LOOKED_AT, answered)
                if self.plugin.check_password_prompt(messages):
                    if answered:
                        break
                    answered = len(messages)
                    # Who has gone already is seen above.
                    with contextlib.suppress(BrokenPipeError):
                        os.write(stdin, f"{password}\n".encode())
        raise self._refusal(os.pread(said.fileno(), _LOOKED_AT, answered), bool(answered), timeout if left <= 0 else 0)

    def _refusal(self, messages: bytes, answered: bool, waited: int) -> DeliveryError:
        user = self.plugin.get_option("become_user") or "another user"
        asked = self.plugin.check_password_prompt(messages)
        if self.plugin.check_incorrect_password(messages) or (answered and asked):
            problem = f"does not take the password that was given to become {user}."
            remedy = "Correct ansible_become_password, or what --ask-become-pass is answered with."
        elif asked or self.plugin.check_missing_password(messages):
            problem = f"asks for a password to become {user}."
            remedy = "Set ansible_become_password, run with --ask-become-pass, or let it not ask there (NOPASSWD in sudoers)."
        else:
            why = " ".join(messages.decode(errors="replace").split())[-600:] or "no word of why"
            within = f" within {waited} seconds" if waited else ""
            problem = f"did not let this user become {user}{within}: {why}."
            remedy = "Look at ansible_become_user, ansible_become_method and what the host permits (sudo -l)."
        return DeliveryError.of(self.host, problem, f"{remedy} What is served was not touched.")
