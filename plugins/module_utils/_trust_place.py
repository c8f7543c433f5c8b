# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Where a node's trust is, and whether it has any. ``_signing/trust`` reads it.

Most nodes have none. They need not load what verifies signatures, which takes milliseconds.
"""

from __future__ import annotations

import os
import typing as t


class Place(t.NamedTuple):
    """The directory, and the user that it has to belong to.

    None is for the directory on the controller that it is copied from.
    """

    directory: str
    owner: int | None


PLACE = Place("/etc/lorafleet/trust", 0)


def is_set_up() -> bool:
    """Return whether this node has a trust, or something that may be one."""
    try:
        os.lstat(PLACE.directory)
    except FileNotFoundError:
        return False
    except OSError:
        # The code that reads it reports what is wrong.
        return True
    return True
