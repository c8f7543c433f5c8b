# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Compare a folded adapter with the one that it was made of. Part of the load test's worker."""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import CheckFailed
from .model_level import LoadedBase, model_level
from .protocol import Comparison, Original, Target
from .weights import read_tensors


def compare(target: Target, original: Original, logits: t.Any, base: LoadedBase) -> Comparison:
    """Load the original onto the same base and compare its logits with those of the folded adapter.

    Raises CheckFailed, Shortage.
    """
    other = dataclasses.replace(target, directory=original.directory, weights_file=original.weights_file, original=None)
    without = base.logits.float()
    try:
        model, _seconds, _effect, _checks = model_level(other, read_tensors(other), base)
        wanted = base.forward(model).float()
        if not base.remove_adapter(model):
            raise CheckFailed("the base has changed after the original was removed from it.", "The adapter changes its base.")
    except CheckFailed as exc:
        raise CheckFailed(f"its original {original.directory}: {exc.problem}", exc.remedy) from exc
    return Comparison(
        difference=float((logits.float() - wanted).abs().max()),
        largest=float(wanted.abs().max()),
        change=float((wanted - without).abs().max()),
    )
