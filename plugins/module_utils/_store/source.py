# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Check that a delivery does not replace or fill the directories that it comes from."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._adapter.files import CONFIG_FILE
from .._errors import DeliveryError, Problem
from .._linux.directory_identity import DirectoryIdentity

_ANOTHER = "Set {option} to a directory on this node that is not part of it."
_IN_PLACE = (
    "Set models_dir to another directory on this node, and store to one beside it. To verify the adapters where they"
    " are instead, run the playbook describe, or audit if an earlier run has delivered them."
)


def identify_source(directory: str) -> dict[str, t.Any]:
    """Return an adapter directory of the source, for ``check_not_source`` on a node."""
    return DirectoryIdentity.of(directory, CONFIG_FILE).to_json()


def check_not_source(models_dir: str, store: str, sources: t.Mapping[str, t.Any]) -> None:
    """Raise DeliveryError if an adapter's source is its own target. Reads only.

    ``sources`` maps names of adapters to what ``identify_source`` returned on the source. For a
    directory that does not exist yet, the one that it would be created in is compared.
    """
    places = {"models_dir": _identify_existing(models_dir), "store": _identify_existing(store)}
    problems: list[Problem] = []
    # A folded adapter is not where its original is, and must not replace that either.
    directories = [(name, one) for name, data in sorted(sources.items()) for one in (data, _original(data)) if one]
    for name, data in directories:
        source = DirectoryIdentity.from_json(data)
        served = os.path.join(models_dir, name)
        with contextlib.suppress(OSError):
            found = DirectoryIdentity.of(served, CONFIG_FILE)
            if found.is_same(source):
                problem = f"is the same directory as {source.path} of the source, which a delivery would replace."
                problems.append(Problem(served, problem, _IN_PLACE, name))
                continue
            if source.is_inside(found):
                problem = f"contains {source.path} of the source, which a delivery would move away."
                problems.append(Problem(served, problem, _IN_PLACE, name))
                continue
        for option, place in places.items():
            if place and (place.is_same(source) or place.is_inside(source)):
                path = {"models_dir": models_dir, "store": store}[option]
                problem = f"is inside {source.path}, the adapter's directory at the source."
                problems.append(Problem(path, problem, _ANOTHER.format(option=option), name))
                break
    if problems:
        raise DeliveryError(*problems)


def _original(data: t.Any) -> t.Any:
    return data.get("original") if isinstance(data, dict) else None


def _identify_existing(path: str) -> DirectoryIdentity | None:
    """Identify a directory or, if it does not exist, the nearest one above it."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    try:
        return DirectoryIdentity.of(path, CONFIG_FILE)
    except OSError:
        return None
