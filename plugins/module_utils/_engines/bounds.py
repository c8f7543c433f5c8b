# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""How far the answers of an engine may be from PEFT's in float32 if its adapter is right."""

from __future__ import annotations

import typing as t

from .rules.form import Adapter
from .rules.table import rules_of
from .verdicts import Engine


class Bound(t.NamedTuple):
    """The largest difference of a log-probability that is not a fault, and where it comes from."""

    value: float
    reason: str


def bound(engine: Engine) -> Bound:
    """Return the bound of an engine with its settings: its dtype, its caches, its kernels.

    Raises DeliveryError for an engine that has no rules.
    """
    rules = rules_of(engine.name)
    one = next(one for one in rules.bounds if one.when is None or one.when.holds(Adapter(()), engine.settings))
    return Bound(one.value, one.reason)
