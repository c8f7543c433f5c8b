# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Why a file in an adapter's directory is excluded from the delivery."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import typing as t

from .._text import count, first, printable
from .files import CODE_SUFFIXES, CONFIG_FILE, PICKLE_FILE


@dataclasses.dataclass(frozen=True)
class Excluded:
    """A name in an adapter's directory that is not delivered.

    ``usual`` is false for what no tool is known to leave there: serving might need it.
    """

    path: str
    reason: str
    usual: bool = True

    def to_json(self) -> dict[str, str]:
        return {"path": printable(self.path), "reason": self.reason}


# A directory can have any number of names.
_MOST = 1000
_TRAINING = "state or log of the training"
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((PICKLE_FILE,), "the weights as a pickle; their safetensors file is delivered"),
    (("README*", "*.md", "LICENSE*", "NOTICE*", "USE_POLICY*", "COPYING*"), "documentation"),
    (("config.json", "generation_config.json"), "settings of the base, which the node has"),
    (
        (
            *("optimizer*", "scheduler*", "rng_state*", "training_args*", "trainer_state.json", "scaler.pt", "global_step*"),
            *("latest", "zero_to_fp32.py", "*_results.json", "trainer_log.jsonl", "*.log", "*loss*.png", "runs", "wandb"),
            *("logs", "events.out.tfevents*", "args.json", "additional_config.json", "hyperparameters.yaml"),
            *("llamaboard_config.yaml", "training_*.yaml", "debug.log", "completed", "checkpoint-*", "*.jsonl"),
        ),
        _TRAINING,
    ),
    (tuple(f"*{suffix}" for suffix in CODE_SUFFIXES), "code, or a pickle, which can carry code"),
    (
        ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "[0-9]_*"),
        "settings of sentence-transformers",
    ),
    ((".*",), "a hidden file or directory"),
)


def excluded(directory: str, name: str) -> Excluded:
    """Return why ``name`` in ``directory`` is not delivered."""
    path = os.path.join(directory, name)
    if os.path.isfile(os.path.join(path, CONFIG_FILE)):
        return Excluded(name, "another adapter: add a row with this subdirectory to deliver it")
    lower = name.lower()
    for patterns, reason in _REASONS:
        if any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(lower, pattern) for pattern in patterns):
            return Excluded(name, reason)
    if os.path.isdir(path):
        return Excluded(name, "a directory that neither PEFT nor transformers reads", usual=False)
    return Excluded(name, "neither PEFT nor transformers reads it", usual=False)


def listed(items: t.Sequence[Excluded]) -> list[dict[str, str]]:
    """Return what is not delivered as adapter_info returns it in ``excluded``, up to a limit."""
    more = len(items) - _MOST
    last = [] if more <= 0 else [{"path": "...", "reason": f"and {count(more, 'more name')}"}]
    return [item.to_json() for item in items[:_MOST]] + last


def unusual(name: str, items: t.Iterable[Excluded]) -> list[str]:
    """Return the warning about excluded items of adapter ``name`` that serving might need."""
    found = [printable(item.path) for item in items if not item.usual]
    if not found:
        return []
    return [f"adapter {name}: does not deliver {first(found)}. If serving needs them, list them in its extra_files."]
