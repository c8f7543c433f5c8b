# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Proposes statements about described releases, and signs them on the controller."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
import subprocess
import tempfile

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest_diff import manifest_diff
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import canonical
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.refusal import Refusal
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import (
    MAX_SIGNATURE,
    FormatError,
    PublicKey,
    read_public_key,
    read_signature,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import (
    SshSignatures,
    Verified,
    ssh_keygen,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import (
    Statement,
    manifest_sha256,
    statement_of,
    time_text,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import Trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._text import count, escaped, human_bytes

from .openssf import bundle_of
from .signature_files import SignatureFiles, statements_in

# The first statement about a release.
SIGNED = "signed"
# An earlier release is to be served again: a higher serial for it.
AGAIN = "signed_again"
# The manifest has changed, or the statement is about to expire: a new statement.
RENEWED = "renewed"
# One more signature of a statement that others have signed.
ADDED = "added"
UNCHANGED = "unchanged"
ACTIONS = (SIGNED, AGAIN, RENEWED, ADDED, UNCHANGED)

# A token waits for a touch.
_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What is to be signed about a release. ``before`` is the newest statement so far."""

    manifest: Manifest
    statement: Statement
    files: SignatureFiles
    action: str
    before: Statement | None

    def summary(self) -> list[str]:
        """Describe it in a few lines for the person who signs."""
        statement, manifest = self.statement, self.manifest
        size = f"{count(statement.files, 'file')}, {human_bytes(statement.size)}, {count(statement.tensors, 'tensor')}"
        lines = [
            f"adapter {statement.adapter}, release {statement.release}: {self.action.replace('_', ' ')}",
            f"  serial {statement.serial}, until {time_text(statement.expires)}, fleet {statement.fleet}",
            f"  {size}, digest {statement.digest}",
        ]
        if self.action in (SIGNED, AGAIN, RENEWED) and self.before is not None:
            lines.append(f"  after release {self.before.release}, serial {self.before.serial}")
            lines += [f"  {line}" for line in _changes(self.files.manifest_of(self.before), manifest)]
        return [escaped(line, kept="") for line in lines]


def propose(
    manifest: Manifest,
    directory: str,
    trust: Trust,
    now: datetime.datetime,
    days: int,
    renew_days: int,
    key: str,
    openssf_key: str = "",
) -> Proposal:
    """Return what is to be signed about a release by a key.

    A new statement is valid for ``days``. One with less than ``renew_days`` left is renewed, and
    with ``openssf_key`` also one without an OpenSSF bundle. A certificate adds nothing to what
    enough others have signed: a CI job has another one each time. Raises DeliveryError for files in
    the directory that are no statements.
    """
    fleet = trust.policy.fleet
    files = SignatureFiles(directory, manifest.name, manifest.release)
    known = statements_in(files.directory)
    highest = max(known, key=lambda statement: statement.serial, default=None)
    own = next((statement for statement in known if statement.digest == manifest.digest), None)
    lacks_bundle = bool(openssf_key) and own is not None and own.openssf is None
    action = SIGNED if own is None else RENEWED if own is highest else AGAIN
    if own is not None and own is highest and not lacks_bundle and _is_current(own, manifest, fleet, now, renew_days):
        action = _action_on_current(own, files, trust, now, _public_key(key))
        if action != RENEWED:
            return Proposal(manifest, own, files, action, highest)
    serial = 1 if highest is None else highest.serial + 1
    statement = statement_of(manifest, fleet, serial, now, now + datetime.timedelta(days=days))
    return Proposal(manifest, statement, files, action, highest)


def sign(proposal: Proposal, key: str, trust: Trust, now: datetime.datetime, openssf_key: str = "") -> str:
    """Sign what is proposed, write the files, and return the signer.

    With ``openssf_key``, a new statement has the sha256 of an OpenSSF bundle by that key.
    Raises DeliveryError if ssh-keygen does not sign, or if the nodes would not accept the
    signature. Then nothing is written.
    """
    statement, files = proposal.statement, proposal.files
    bundle = bundle_of(proposal.manifest, openssf_key) if openssf_key and proposal.action != ADDED else None
    if bundle is not None:
        statement = dataclasses.replace(statement, openssf=hashlib.sha256(bundle).hexdigest())
    text = statement.to_bytes()
    signature = ssh_sign(text, key)
    with SshSignatures(trust.signers, trust.revoked, now) as ssh:
        outcome = ssh.verify(text, signature)
    if isinstance(outcome, Refusal):
        raise DeliveryError(dataclasses.replace(outcome, subject=f"the signature by {key}"))
    os.makedirs(files.directory, exist_ok=True)
    if proposal.action != ADDED:
        # They are of another text. They go first: at no time, old ones are beside a new text.
        for old in (*files.signatures(), files.openssf):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old)
        if bundle is not None:
            write_at_once(files.openssf, bundle)
        write_at_once(files.manifest, canonical(proposal.manifest.to_json()))
        write_at_once(files.text, text)
    else:
        _drop_expired(files, proposal.statement, trust, now)
    write_at_once(files.signature(read_signature(signature).key.short), signature)
    return outcome.signer


def is_signed(files: SignatureFiles, statement: Statement, trust: Trust, now: datetime.datetime) -> bool:
    """Return whether enough signers have signed a statement about this fleet."""
    signed = files.read()
    if signed is None or statement.fleet != trust.policy.fleet:
        return False
    with _ssh_signatures(statement, trust, now) as ssh:
        outcomes = [ssh.verify(statement.to_bytes(), one.encode("utf-8", "replace")) for one in signed["signatures"]]
    return len({one.signer for one in outcomes if isinstance(one, Verified)}) >= trust.policy.threshold


def ssh_sign(text: bytes, key: str, namespace: str = NAMESPACE) -> bytes:
    """Return the signature of a text by a key. Raises DeliveryError.

    ``key`` is the file of a private key, or of the public key or certificate of one that ssh-agent
    has.
    """
    command = [ssh_keygen(), "-Y", "sign", "-f", os.path.expanduser(key), "-n", namespace]
    remedy = "Name the file of a key, or the .pub file of a key that ssh-agent has (ssh-add -L)."
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DeliveryError.of(key, f"did not sign within {_SECONDS} seconds.", "Touch the token in time.") from None
    if done.returncode:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:] or f"exit status {done.returncode}"
        raise DeliveryError.of(key, f"did not sign: {why.rstrip('.')}.", remedy)
    return done.stdout


def _action_on_current(own: Statement, files: SignatureFiles, trust: Trust, now: datetime.datetime, key: PublicKey | None) -> str:
    """Return what a key does about a statement that needs no other. None is an unknown key."""
    if key is None or not key.is_certificate:
        return UNCHANGED if key is not None and os.path.exists(files.signature(key.short)) else ADDED
    if is_signed(files, own, trust, now):
        return UNCHANGED
    # Nodes would count the signature until the certificate ends, and not for certificate_days.
    outlived = trust.policy.certificate_days is not None and trust.policy.certified_since(own.issued, now) == now
    return RENEWED if outlived and own.issued < now else ADDED


def _drop_expired(files: SignatureFiles, statement: Statement, trust: Trust, now: datetime.datetime) -> None:
    """Delete the signatures by certificates that do not count any more.

    There would be one more each day.
    """
    with _ssh_signatures(statement, trust, now) as ssh:
        for path in files.signatures():
            with open(path, "rb") as stream:
                signature = stream.read(MAX_SIGNATURE)
            with contextlib.suppress(FormatError):
                if read_signature(signature).key.is_certificate and isinstance(
                    ssh.verify(statement.to_bytes(), signature), Refusal
                ):
                    os.unlink(path)


def _ssh_signatures(statement: Statement, trust: Trust, now: datetime.datetime) -> SshSignatures:
    since = trust.policy.certified_since(statement.issued, now)
    return SshSignatures(trust.signers, trust.revoked, now, certified_since=since)


def _is_current(own: Statement, manifest: Manifest, fleet: str, now: datetime.datetime, renew_days: int) -> bool:
    lasts = own.expires - now > datetime.timedelta(days=renew_days)
    return lasts and own.fleet == fleet and own.manifest == manifest_sha256(manifest)


def _changes(before: Manifest | None, after: Manifest) -> list[str]:
    """Return what has changed since the release before, one line each."""
    if before is None:
        return ["its manifest is not among the signatures: what has changed is unknown"]
    found = manifest_diff(before, after)
    return [
        f"{key}: {found['before'].get(key, '-')} -> {value}"
        for key, value in found["after"].items()
        if found["before"].get(key) != value
    ]


def _public_key(key: str) -> PublicKey | None:
    """Return the public key in the .pub file of a key, None if it cannot be read."""
    path = os.path.expanduser(key if key.endswith(".pub") else f"{key}.pub")
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        return read_public_key(*stream.read(MAX_SIGNATURE).split()[:2])
    return None


def write_at_once(path: str, data: bytes) -> None:
    """Replace a file at once."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    with open(descriptor, "wb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(data)
    os.replace(temporary, path)
