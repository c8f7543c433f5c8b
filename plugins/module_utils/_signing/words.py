# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""By whom a release is signed, in words.

They are made of the value ``signed`` of a module's result: None where the node trusts no
signers, and without signers for an unsigned release.
"""

from __future__ import annotations

import typing as t


def signature_line(signed: dict[str, t.Any] | None) -> str:
    """Return by whom, with which serial and until when. Nothing where no signers are trusted."""
    if signed is None:
        return ""
    if not signed["signers"]:
        return "unsigned"
    return f"signed by {', '.join(signed['signers'])}, serial {signed['serial']}, until {signed['expires']}"
