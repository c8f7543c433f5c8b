# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""How a load test can be isolated, in the words of its result.

By a user of its own, and by namespaces of its own.
"""

from __future__ import annotations

USER = "user"
NETWORK, IPC, PIDS = "network", "ipc", "pids"
ISOLATION = (USER, NETWORK, IPC, PIDS)
