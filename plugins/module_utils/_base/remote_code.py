# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Keys of a base's config.json that load code. Part of the load test's program, too."""

from __future__ import annotations

import typing as t


def code_keys(value: t.Any) -> set[str]:
    """Return the keys, at any depth, for which some version of transformers loads code.

    For some of them, transformers 4.56 to 5.2 loads code from the Hub even with
    ``trust_remote_code=False`` (CVE-2026-4372).
    """
    if isinstance(value, dict):
        here = {str(key) for key in value if key == "auto_map" or "_internal" in str(key)}
        return here.union(*map(code_keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(code_keys, value))
    return set()
