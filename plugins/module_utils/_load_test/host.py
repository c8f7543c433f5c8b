# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""What adapters are loaded with on a host, so that a receipt of another environment does not stand here."""

from __future__ import annotations

import dataclasses
import typing as t

from .._advisories import version_problems, version_warnings
from .._errors import DeliveryError
from .._hashing import digest_of
from .interpreter import environment
from .serving_user import ServingUser


@dataclasses.dataclass(frozen=True)
class Host:
    """What the interpreter on this host is; nothing is known where it does not work."""

    digest: t.Optional[str] = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def look_at_host(python: str, device: str, user: t.Optional[ServingUser], warn: t.Callable[[str], None]) -> Host:
    """What the interpreter on this host is. Raises DeliveryError where nothing can be loaded with it."""
    found = environment(python, device, user)
    outdated = version_problems(python, found["versions"])
    if outdated:
        raise DeliveryError(*outdated)
    for warning in version_warnings(python, found["versions"]):
        warn(warning)
    return Host(digest_of(found), found["versions"])
