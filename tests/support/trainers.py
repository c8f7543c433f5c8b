# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdicts on an adapter of level structure and of level model, as a user would get them.

The adapter is declared as its own configuration says, so no verdict is about a wrong declaration.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.config_keys import KEYS, Effect, is_plain
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import run_worker
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import Target

from tests.support import tiny_adapters

# Keys that a row of the inventory has options of its own for, and the one that every row has.
_DECLARED_OTHERWISE = frozenset({"r", "lora_alpha", "target_modules", "peft_type"})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``rejected`` has the problems and ``notes`` what is unusual about an accepted adapter."""

    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        if self.rejected:
            return "rejected"
        return "delivered with a note" if self.notes else "delivered"

    @property
    def text(self) -> str:
        return "\n".join([*self.rejected, *self.notes])


def declare(adapter: pathlib.Path, base_directory: pathlib.Path) -> Declaration:
    """Return the declaration of an adapter directory.

    The name of the base is ``tiny/`` and the beginning of its directory's.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    base_config = json.loads((base_directory / "config.json").read_text(encoding="utf-8"))
    name = f"tiny/{base_directory.name.replace('_with_tokenizer', '')}"
    return declaration_of(config if isinstance(config, dict) else {}, {"config": base_config, "aliases": [name]})


def declaration_of(config: dict[str, t.Any], base: dict[str, t.Any]) -> Declaration:
    """Return the declaration that an adapter's configuration gives.

    ``base`` has the options of the base, ``config`` and ``aliases``.
    """
    forms = {
        key: value
        for key, value in config.items()
        if key in KEYS and KEYS[key].effect is Effect.FORM and key not in _DECLARED_OTHERWISE and not is_plain(key, value)
    }
    row = {
        "name": "adapter",
        "base": "tiny/llama",
        "rank": config.get("r", 4),
        "alpha": config.get("lora_alpha", 8.0),
        "target_modules": None,
        "peft_config": forms,
        "extra_files": None,
        "allow_pickle": False,
    }
    return Declaration.from_row(row, base)


def structure_verdict(adapter: pathlib.Path, declared: Declaration, work: pathlib.Path) -> Verdict:
    """Return the verdict of level structure, which adapter_info gives on the training server."""
    try:
        described = describe(str(adapter), declared, {}, str(work / "cache.json"), write_cache=False)
    except DeliveryError as exc:
        return Verdict(rejected=tuple(str(problem) for problem in exc.problems))
    return Verdict(notes=tuple(described.notes))


def model_verdicts(adapters: t.Mapping[str, tuple[pathlib.Path, pathlib.Path]], work: pathlib.Path) -> dict[str, Verdict]:
    """Return the verdicts of level model by name, from the directories of adapters and bases."""
    targets = [
        Target(name, str(adapter), "adapter_model.safetensors", "model", None, str(base), False)
        for name, (adapter, base) in adapters.items()
    ]
    outcome = run_worker(tiny_adapters.PEFT_PYTHON, "cpu", targets, 300, str(work))
    assert outcome.problems == ()
    return {
        name: Verdict(tuple(f"{failure.problem} {failure.remedy}" for failure in report.failures), tuple(report.result.notes))
        for name, report in outcome.reports.items()
    }
