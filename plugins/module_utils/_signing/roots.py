# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Decides whether the roots have signed what a node is to trust, by the rule of TUF.

A version needs the signatures of the roots of the version that the node has, so that nobody else
changes them, and of its own roots, so that they exist and can sign the next one.

What is signed is the output of ``sha256sum``: a machine that has no network needs nothing but that
and ssh-keygen. The policy names the fleet and the version, so they are signed as well.
"""

from __future__ import annotations

import datetime
import hashlib
import typing as t

from .._errors import DeliveryError
from .allowed_signers import ROOT_NAMESPACE
from .refusal import ROOTS, Refusal
from .ssh_signatures import SshSignatures, Verified
from .trust import MOST_SIGNATURES, Trust

_REMEDY = "Sign it as docs/signing.md shows, with enough roots of both versions."


def signed_text(files: t.Mapping[str, bytes]) -> bytes:
    """Return what roots sign: the output of sha256sum for the files, ordered by name."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def check_roots(
    before: Trust | None,
    after: Trust,
    files: t.Mapping[str, bytes],
    signatures: t.Mapping[str, bytes],
    now: datetime.datetime,
) -> None:
    """Raise DeliveryError unless enough roots have signed the files of a new version.

    ``before`` is what the node trusts. ``signatures`` are by the name of their file.
    """
    if len(signatures) > MOST_SIGNATURES:
        problem = f"has {len(signatures)} signatures; at most {MOST_SIGNATURES} are read."
        raise DeliveryError(_refusal(after, problem, "Remove those of other versions."))
    text = signed_text(files)
    if before is not None:
        whose = f"the roots of version {before.policy.version}, which this node has"
        _check_signed(before, whose, after, text, signatures, now)
    _check_signed(after, "its own roots", after, text, signatures, now)


def _check_signed(
    by: Trust, whose: str, version: Trust, text: bytes, signatures: t.Mapping[str, bytes], now: datetime.datetime
) -> None:
    least = by.policy.root_threshold
    if least is None:
        return
    with SshSignatures(by.roots, by.revoked, now, ROOT_NAMESPACE) as ssh:
        outcomes = {name: ssh.verify(text, signature) for name, signature in sorted(signatures.items())}
    signers = sorted({one.signer for one in outcomes.values() if isinstance(one, Verified)})
    if len(signers) >= least:
        return
    names = ", ".join(sorted({root.name for root in by.roots}))
    reasons = [f" {name} {one.problem}" for name, one in outcomes.items() if isinstance(one, Refusal)]
    problem = f"is signed by {len(signers)} of {whose} ({names}); {least} have to sign it.{''.join(reasons)}"
    raise DeliveryError(_refusal(version, problem, _REMEDY))


def _refusal(version: Trust, problem: str, remedy: str) -> Refusal:
    return Refusal(f"version {version.policy.version} of the trust", problem, remedy, None, ROOTS)
