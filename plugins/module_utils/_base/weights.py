# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The weights files of a base. Part of the load test's program, too."""

from __future__ import annotations

import json
import os

# Characters of an index. Those of the largest bases have a few million.
_MOST_INDEX = 1 << 26


def base_weights(path: str) -> list[str]:
    """Return the paths of the safetensors files that transformers would load."""
    index = os.path.join(path, "model.safetensors.index.json")
    single = os.path.join(path, "model.safetensors")
    if os.path.isfile(single):
        return [single]
    if not os.path.isfile(index):
        return []
    with open(index, encoding="utf-8") as stream:
        index_data = json.loads(stream.read(_MOST_INDEX))
    return sorted({os.path.join(path, name) for name in index_data["weight_map"].values()})
