# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""How many tensors a file may have, and how long their names may be."""

from __future__ import annotations

# An adapter of all experts of Qwen3-235B-A22B has 72 192 tensors.
MAX_TENSORS = 100_000
# PEFT's names have about a hundred characters and ten dots.
MAX_NAME, MAX_DOTS = 512, 40

LONGEST = f"{MAX_NAME} characters and {MAX_DOTS} dots"


def is_long(name: str) -> bool:
    """Return whether no tensor of an adapter has such a long name.

    The time to compare names grows with the square of their length.
    """
    return len(name) > MAX_NAME or name.count(".") > MAX_DOTS
