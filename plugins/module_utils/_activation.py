# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The activation methods: how NAME in the models directory comes to hold or to lead to a release."""

from __future__ import annotations

# The ways in which NAME leads to a release.
EXCHANGE = "exchange"

SYMLINK = "symlink"

# Whichever of them the file system can do.
AUTO = "auto"
