# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The forms in which an adapter is delivered."""

from __future__ import annotations

# The files as the training has saved them.
AS_TRAINED = "as_trained"
# An equivalent adapter that no engine can misread: see ``_source/fold_plan.py``.
FOLDED = "folded"
# The same in the dtype of the file, even where that rounds values.
FOLDED_SAME_DTYPE = "folded_same_dtype"
FORMS = (AS_TRAINED, FOLDED, FOLDED_SAME_DTYPE)
