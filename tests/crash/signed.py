# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signed releases, accepted and recorded as adapter_release does it on a node that requires them.

ssh-keygen verifies each signature before the run that strace sees: a fault in a child process would
be a refusal.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import typing as t
from unittest import mock

from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._argspec import SIGNATURES
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import read_allowed_signers
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures, Verified
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import Request
from ansible_collections.lorafleet.delivery.plugins.modules.adapter_release import _Acceptance

from tests.support.releases import manifest_of
from tests.support.signing import Keys, offered, signer_line, write_trust


class SignedReleases:
    """Versions that alice has signed with these serials, for a node that trusts her alone."""

    def __init__(self, directory: pathlib.Path, serials: t.Mapping[int, int]) -> None:
        keys = Keys(directory)
        line = signer_line("alice", keys.public("alice"))
        self._place = write_trust(directory, line)
        self._offers = [offered(keys, manifest_of(version), serial) for version, serial in serials.items()]
        self._outcomes: dict[tuple[bytes, ...], t.Union[Verified, Refusal]] = {}
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        with SshSignatures(read_allowed_signers(line, "line"), b"", now) as ssh:
            for offer in self._offers:
                signed = offer["statement"].encode(), offer["signatures"][0].encode()
                self._outcomes[signed] = ssh.verify(*signed)

    @contextlib.contextmanager
    def accepting(self, requests: t.Sequence[Request]) -> t.Iterator[_Acceptance]:
        digests = {request.manifest.digest for request in requests if request.manifest is not None}
        offers = [offer for offer in self._offers if any(digest in offer["statement"] for digest in digests)]
        with mock.patch.object(_trust_place, "PLACE", self._place), mock.patch.object(SshSignatures, "verify", self._verified):
            yield _Acceptance({**{name: option.get("default") for name, option in SIGNATURES.items()}, "signed": offers})

    def _verified(self, *signed: bytes) -> t.Union[Verified, Refusal]:
        """Return at once what ssh-keygen has said before."""
        return self._outcomes[signed]
