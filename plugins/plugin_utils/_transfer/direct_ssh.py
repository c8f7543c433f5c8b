# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.
"""The way ``direct_ssh``: a direct transfer through the ssh server of the source.

It is for nodes that reach no other port there. A key of this one transfer, which is in memory only,
is admitted for the moment in which the node logs in. Its forced command joins the connection to the
offer, and does nothing else. The node logs in only where the server has a host key of the source.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import re
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._transfer import (
    admit,
    authorized_keys,
    channel,
    host_keys,
    sshd_settings,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._ways import DIRECT_SSH

from .._contact.forms import Exact, Form, ListOf, Text
from .arrivals import Arrivals
from .direct import NOTHING, DirectWay
from .identity import login_key
from .login_refusals import ANSWERS as SETTINGS_ANSWERS
from .login_refusals import Login, Refusal, refusals
from .program import Program
from .relay import End
from .ways import Wanted

_ADMIT = (channel, authorized_keys, admit)
_ADMIT_ANSWERS: dict[str, Form] = {
    "user": Exact(32, re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"), "the name of a user"),
    "problem": Text(1 << 12),
}
_HOST_KEYS = (channel, host_keys)
_HOST_KEYS_ANSWERS: dict[str, Form] = {
    "keys": ListOf(Exact(1 << 12, re.compile(r"[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+=*"), "a host key"), 16),
    "problem": Text(1 << 12),
}
_SETTINGS = (channel, sshd_settings)
_DENIED = (
    "See which keys sshd at the source accepts for this user (PubkeyAuthentication, AuthorizedKeysFile, AllowUsers,"
    " PermitRootLogin, Match in sshd_config), correct transfer_direct_authorized_keys and transfer_direct_address,"
    " or set transfer to auto."
)


@dataclasses.dataclass
class DirectSshWay(DirectWay):
    """``login`` is the source's end as the user that the controller logs in as.

    ``once`` returns what a function returns, which it calls once in a run for all nodes.
    """

    login: End = dataclasses.field(default_factory=lambda: End(None))
    ssh_port: int = 22
    authorized_keys: str = "~/.ssh/authorized_keys"
    once: c.Callable[[c.Callable[[], list[str]]], list[str] | None] = lambda read: read()
    name: t.ClassVar[str] = DIRECT_SSH
    local: t.ClassVar[bool] = True
    stranger: t.ClassVar[str] = (
        "Something else answers there, or stands between the hosts: correct transfer_direct_address, or ansible_port"
        " of the source, or set transfer to auto."
    )
    # Whether the last login was denied, and what is known of it.
    denied: bool = False
    _login: Login = dataclasses.field(default_factory=lambda: Login("", ""))
    _admitting: Program | None = None
    _host_keys: list[str] = dataclasses.field(default_factory=list)

    def _attempt(self, wanted: Wanted, arrivals: Arrivals) -> None:
        # Before anything else starts, which could not wait for long.
        read = functools.partial(self._read_host_keys, wanted)
        self._host_keys = self._host_keys or self.once(read) or read()
        super()._attempt(wanted, arrivals)

    def _access(self, running: contextlib.ExitStack, port: int, wanted: Wanted) -> dict[str, t.Any]:
        private, public = login_key()
        admitting = Program(running, *self._at_login, _ADMIT, _ADMIT_ANSWERS, self.options.timeout)
        admitting.begin(public=public, port=port, authorized_keys=self.authorized_keys)
        self._admitting = admitting
        running.callback(self._remove_key)
        user = self._answer_of(admitting, "user", wanted)
        self._login = Login(user, "")
        return {"port": self.ssh_port, "ssh": {"user": user, "key": private, "host_keys": self._host_keys}}

    def _read_host_keys(self, wanted: Wanted) -> list[str]:
        """The public host keys of the source, as its ssh server shows them there."""
        with contextlib.ExitStack() as running:
            reading = Program(running, *self._at_login, _HOST_KEYS, _HOST_KEYS_ANSWERS, self.options.timeout)
            reading.begin(port=self.ssh_port, over_ssh=self.login.ssh is not None)
            keys: list[str] = self._answer_of(reading, "keys", wanted)
        return keys

    @property
    def _at_login(self) -> tuple[End, str, str]:
        return self.login, self.source, self.source_python

    def _answer_of(self, program: Program, key: str, wanted: Wanted) -> t.Any:
        """What a program at the source answers. A problem is one of all adapters."""
        answer = self._first(program, wanted)
        if key in answer:
            return answer[key]
        self.given_up = f"{self.source}: {answer.get('problem', 'no reason given')}."
        raise self._error(wanted, self.given_up, "Set transfer to another way.")

    def _judge(self, answer: dict[str, t.Any], wanted: Wanted) -> None:
        self._login = dataclasses.replace(self._login, address=answer.get("own", ""))
        self.denied = answer.get("denied", False)
        if self.denied or answer.get("stranger"):
            # The same server would answer for the next adapter.
            self.given_up = f"{answer['problem']}."
        if self.denied:
            raise self._error(wanted, self.given_up, _DENIED)
        super()._judge(answer, wanted)

    def refusals(self) -> list[Refusal]:
        """The settings of sshd that refuse the last login. Raises DeliveryError if unknown."""
        found = self._read_settings()
        if "problem" in found:
            raise DeliveryError.of(self.source, f"{found['problem']}.")
        return refusals(found, self._login)

    def _read_settings(self) -> dict[str, t.Any]:
        at_source = (self.source_end, self.source, self.source_python)
        with contextlib.ExitStack() as running:
            reading = Program(running, *at_source, _SETTINGS, SETTINGS_ANSWERS, self.options.timeout)
            reading.begin(
                user=self._login.user,
                node=self._login.address,
                address=self.address,
                port=self.ssh_port,
                authorized_keys=self.authorized_keys,
            )
            return self._first(reading, NOTHING)

    def _watch_login(self, is_in: bool) -> None:
        if self._admitting and not is_in:
            # Keeps it alive. If it has ended, the node is refused.
            self._admitting.answers(0)
        elif self._admitting:
            self._remove_key()

    def _remove_key(self) -> None:
        """Remove the node's key from the file again."""
        if self._admitting:
            self._admitting.end()
            self._admitting = None
