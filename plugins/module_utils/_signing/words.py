# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""By whom a release is signed, in words.

They are made of the value ``signed`` of a module's result: None where the node trusts no
signers, and without signers for an unsigned release.
"""

from __future__ import annotations

import datetime
import typing as t

# In its last days, people are reminded of a statement, and sign.yml renews it.
RENEW_DAYS = 14


def signature_line(signed: dict[str, t.Any] | None) -> str:
    """Return by whom, with which serial and until when. Nothing where no signers are trusted."""
    if signed is None:
        return ""
    if not signed["signers"]:
        return "unsigned"
    return f"signed by {', '.join(signed['signers'])}, serial {signed['serial']}, until {signed['expires']}"


def expiry_note(signed: dict[str, t.Any] | None, now: datetime.datetime) -> str:
    """Return that a statement is about to expire, with the remedy. Nothing before its last days."""
    if signed is None or signed["expires"] is None:
        return ""
    expires = datetime.datetime.fromisoformat(signed["expires"])
    if expires - now > datetime.timedelta(days=RENEW_DAYS):
        return ""
    when = f"{'expired' if expires < now else 'expires'} on {expires.date().isoformat()}"
    return f"its statement {when}; after that, no node begins to serve this release. Renew it with playbooks/sign.yml."
