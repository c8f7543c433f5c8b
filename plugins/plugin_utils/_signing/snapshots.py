# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Makes the snapshot of the fleet from the directory of signatures, and signs it."""

from __future__ import annotations

import dataclasses
import datetime
import os

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import SNAPSHOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.snapshot import Snapshot, read_snapshot
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import read_signature
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import Trust

from .signature_files import SignatureFiles, snapshot_files, statements_in
from .signing import is_signed, ssh_sign, write_at_once


def snapshot_of(directory: str, trust: Trust, now: datetime.datetime) -> Snapshot:
    """Return the snapshot that names, for each adapter, the newest statement that nodes accept.

    An adapter without one is left out. Raises DeliveryError for files that are no statements.
    """
    adapters = {}
    for name in sorted(os.listdir(directory)):
        for statement in sorted(statements_in(os.path.join(directory, name)), key=lambda one: -one.serial):
            if statement.adapter == name and is_signed(SignatureFiles(directory, name, statement.release), statement, trust, now):
                adapters[name] = (statement.serial, statement.digest)
                break
    # What cannot be read must not be signed.
    return read_snapshot(Snapshot(trust.policy.fleet, now, adapters).to_bytes())


def sign_snapshot(snapshot: Snapshot, directory: str, key: str, trust: Trust) -> str:
    """Sign a snapshot, write it, and return the signer.

    Raises DeliveryError if the nodes would not accept the signature. Then nothing is written.
    """
    text, files = snapshot.to_bytes(), snapshot_files(directory)
    signature = ssh_sign(text, key, SNAPSHOT_NAMESPACE)
    with SshSignatures(trust.snapshot_signers, trust.revoked, snapshot.issued, SNAPSHOT_NAMESPACE) as ssh:
        outcome = ssh.verify(text, signature)
    if isinstance(outcome, Refusal):
        raise DeliveryError(dataclasses.replace(outcome, subject=f"the signature by {key}"))
    # They are of another text. They go first: at no time, old ones are beside a new text.
    for old in files.signatures():
        os.unlink(old)
    write_at_once(files.text, text)
    write_at_once(files.signature(read_signature(signature).key.short), signature)
    return outcome.signer
