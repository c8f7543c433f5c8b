# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The words for a verdict in the form that modules return, for modules and for the report."""

from __future__ import annotations

import typing as t

from .rules.form import RIGHT

Returned = t.Mapping[str, t.Any]


def sentences(verdict: Returned) -> str:
    """Return what an engine makes of an adapter, and how far its answers were off."""
    if verdict["figure"] is None:
        return str(verdict["message"])
    return f"{verdict['message']} Log-probabilities were up to {verdict['figure']:g} away from PEFT's."


def line_of(verdict: Returned) -> str:
    """Return a verdict on one line, with a reason unless the engine is right."""
    head = " ".join(filter(None, ("engine", verdict["engine"], verdict["version"], verdict["state"])))
    return head if verdict["state"] == RIGHT else f"{head}: {sentences(verdict)}"
