# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.
"""TLS between the two programs of a direct transfer: each knows the other's certificate."""

from __future__ import annotations

import os
import ssl

# What the certificate of the source is made out to, wherever the source is.
NAME = "source"


def context_of(is_source: bool, certificate: str, key: str, other: str) -> ssl.SSLContext:
    """Return a context that trusts the other end's certificate, and no other.

    All are PEM texts. The key is in no file that has a name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_source else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=other)
    held = os.memfd_create("identity")
    try:
        os.write(held, (certificate + key).encode())
        context.load_cert_chain(f"/proc/self/fd/{held}")
    finally:
        os.close(held)
    if is_source:
        # Nobody resumes a session.
        context.num_tickets = 0
    return context
