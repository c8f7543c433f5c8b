# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin util is PRIVATE to the collection: it may change or vanish in any release.

"""The words for values of a report, the same in all its forms for people."""

from __future__ import annotations

import collections.abc as c

from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import SHORT
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import UNCHANGED

from .._node_names import listed
from .run import Data
from .states import ACTIVE, AS_VERIFIED, DIFFERS, DONE, FAILED, MISSING, UNREACHABLE

GOOD = frozenset({*DONE, AS_VERIFIED, ACTIVE})
BAD = frozenset({DIFFERS, FAILED, UNREACHABLE, MISSING})
_CHANGES = frozenset(DONE) - {UNCHANGED}


def state_words(state: str, check_mode: bool = False) -> str:
    """Return the state of an adapter in words."""
    words = state.replace("_", " ")
    return f"would be {words}" if check_mode and state in _CHANGES else words


def origin(adapter: Data) -> str:
    """Return what the release of an adapter was made of, in words; nothing if it is as trained."""
    # A report of an earlier version has no such key.
    made_of = adapter.get("made_of")
    return f"folded from {str(made_of['digest'])[:SHORT]}" if made_of else ""


def device(adapter: Data) -> str:
    test = adapter["test"] or {}
    return " ".join(str(test[key]) for key in ("device", "device_name") if test.get(key))


def sentence(failure: Data) -> str:
    """Return a failure and its remedy as one text.

    The subject is left out when it is the host that failed, which callers print themselves.
    """
    subject = "" if failure["subject"] == failure["host"] else f"{failure['subject']}: "
    problem = " ".join(failure["problem"].split())
    end = "" if problem.endswith((".", "!", "?")) else "."
    return f"{subject}{problem}{end} {failure['remedy']}".rstrip()


def grouped(failures: c.Iterable[Data]) -> list[tuple[str, Data]]:
    """Return each failure once, however many nodes have it, with the host that failed in words.

    The words also name the nodes that needed another host. They are empty for the run itself.
    """
    nodes: dict[tuple[str | None, str], dict[str, None]] = {}
    found: dict[tuple[str | None, str], Data] = {}
    for failure in failures:
        node = failure["node"]
        key = (None if node in (None, failure["host"]) else failure["host"], sentence(failure))
        found.setdefault(key, failure)
        nodes.setdefault(key, {}).update({} if node is None else {node: None})
    return [(_place(host, nodes[host, words]), failure) for (host, words), failure in found.items()]


def _place(host: str | None, nodes: c.Iterable[str]) -> str:
    return f"{host} (needed by {listed(nodes)})" if host else listed(nodes)
