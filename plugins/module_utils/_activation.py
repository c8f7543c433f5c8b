# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The activation methods: how ``MODELS_DIR/NAME`` becomes, or points to, a release."""

from __future__ import annotations

# NAME is a directory: a copy of the release, exchanged with the one before in one step.
EXCHANGE = "exchange"
# NAME is a symbolic link to the release.
SYMLINK = "symlink"
# The method in use, otherwise EXCHANGE where the file system supports it.
AUTO = "auto"
