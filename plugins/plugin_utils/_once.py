# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Values that one worker process of a run computes and all others use."""

from __future__ import annotations

import collections.abc as c
import fcntl
import hashlib
import json
import os
import typing as t

from ansible import constants as C


def once_a_run(subject: str, key: t.Any, compute: c.Callable[[], t.Any]) -> t.Any:
    """Return the value of the first caller with this subject and key; the others wait for it.

    The value is JSON. So is the key, but for dates, which YAML reads. The value is None if
    ``compute`` returned None or failed for the first caller. Then it is None for all others too, so
    that they wait only once.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    # The directory is private to the run and shared by its workers.
    with open(os.path.join(C.DEFAULT_LOCAL_TMP, f"{subject}.{digest}"), "a+", encoding="utf-8") as file:
        # The lock ends with the process, however it ends.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        recorded = file.read()
        if recorded:
            return json.loads(recorded)
        # Stays if the call fails or this process is killed.
        file.write("null")
        file.flush()
        value = compute()
        if value is not None:
            file.truncate(0)
            file.write(json.dumps(value))
    return value
