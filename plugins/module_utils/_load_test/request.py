# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""One adapter to load, as the load test's program (C(_load_worker)) is told of it."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class Target:
    """One adapter to load: C(base_path) is the directory of its base with weights, C(base_config) does without.

    C(questions) are what level golden asks, C(recording) what a golden is to be recorded of; see C(_golden_level).
    """

    name: str
    directory: str
    weights_file: str
    level: str
    base_config: t.Optional[dict[str, t.Any]]
    base_path: t.Optional[str]
    allow_pickle: bool
    questions: t.Optional[list[dict[str, t.Any]]] = None
    recording: t.Optional[dict[str, t.Any]] = None
