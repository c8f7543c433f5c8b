# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Goldens of releases that a fake engine answers exactly, or does not."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import permitted
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden

from . import model

PROMPTS = ([3, 14, 15, 92, 65, 35, 89, 79], [27, 18, 28, 182, 84, 59, 4, 52, 353], [16, 180, 33, 98, 87])
LENGTH = 8
CANDIDATES = 6
DECIMALS = 4


def golden_of(
    manifest: Manifest,
    directory: str | pathlib.Path,
    base: str | pathlib.Path,
    vocabulary: int = model.VOCABULARY,
    identity: dict[str, t.Any] | None = None,
) -> Golden:
    """Return the golden of the release in ``manifest``, with the answers of that in ``directory``.

    An engine that serves that directory answers it exactly. With the directory of another release,
    it is a golden that the engine does not answer.
    """
    engine = model.Model(base, vocabulary)
    weights = model.weights_in(directory)
    questions: list[dict[str, t.Any]] = []
    answer: dict[str, list[t.Any]] = {"on": [], "off": []}
    for prompt in PROMPTS:
        start = len(prompt)
        ids = [*prompt, *engine.continued(prompt, LENGTH, weights)]
        rows = {"on": engine.along(ids, start, weights), "off": engine.along(ids, start, model.NONE)}
        tokens = [
            sorted({token, *model.top(on, CANDIDATES), *model.top(off, CANDIDATES)})
            for token, on, off in zip(ids[start:], rows["on"], rows["off"])
        ]
        questions.append({"ids": ids, "start": start, "tokens": tokens})
        for key, found in rows.items():
            answer[key].append([[round(row[token], DECIMALS) for token in wanted] for row, wanted in zip(found, tokens)])
    return Golden(
        name=manifest.name,
        digest=manifest.trained_digest,
        prompts="0" * 64,
        base=identity or {},
        recorded={
            "at": "2026-11-29T00:00:00Z",
            "device": "cpu",
            "device_name": "fake engine",
            "dtype": "float32",
            "attention": "eager",
            "versions": {},
        },
        questions=questions,
        answer=answer,
        noise={},
        permitted=permitted([]),
    )
