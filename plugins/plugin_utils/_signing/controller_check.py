# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""Refuses on the controller what every node would refuse, before a node is asked.

The controller has the files that ``trust.yml`` brings to the nodes. It makes a refusal cheap, and
no delivery safer: the nodes decide again, with the trust and the serials that they have.
"""

from __future__ import annotations

import collections.abc as c
import datetime
import functools
import os
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError, Problem
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.acceptance import Signed, check_everywhere
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import Trust, read_trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import Place

from .._once import once_a_run
from .signature_files import with_signed


def trust_in(directory: str) -> Trust:
    """Return what the nodes trust. Raises DeliveryError if the controller has no such directory."""
    place = os.path.expanduser(directory)
    trust = read_trust(Place(place, None))
    if trust is None:
        raise DeliveryError.of("trust", f"is {place}, which does not exist.", "Make it as docs/signing.md shows.")
    return trust


def check_signed(arguments: c.Mapping[str, t.Any]) -> None:
    """Raise DeliveryError for manifests that every node with the option ``trust`` would refuse.

    ``arguments`` are those of a module, with the texts of its manifests. Each manifest is checked
    once a run, whatever the number of nodes that get it.
    """
    directory = str(arguments.get("trust") or "")
    if not directory:
        return
    trust = trust_in(directory)
    given = with_signed(arguments)
    signed = {one["adapter"]: Signed(one["statement"], tuple(one["signatures"])) for one in given.get("signed", ())}
    key = [directory, arguments.get("signatures")]
    problems: list[Problem] = []
    for text in given["manifests"]:
        # None if the check was aborted elsewhere. The nodes decide then.
        found = once_a_run("signed", [*key, text], functools.partial(_problems, text, signed, trust, directory))
        problems += [Problem(**entry) for entry in found or ()]
    if problems:
        raise DeliveryError(*problems)


def _problems(text: str, signed: c.Mapping[str, Signed], trust: Trust, directory: str) -> list[dict[str, t.Any]]:
    """Return why a release is refused, as a node says it, with who has refused it."""
    manifest = Manifest.from_text(text)
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
    try:
        check_everywhere(manifest, signed.get(manifest.name), trust, now)
    except DeliveryError as exc:
        return [
            {
                "subject": f"{problem.subject}, compared with {directory} on the controller",
                "problem": problem.problem,
                "remedy": problem.remedy,
                "adapter": problem.adapter or manifest.name,
            }
            for problem in exc.problems
        ]
    return []
