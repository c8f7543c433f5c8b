# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trains the adapters of ``make serving`` with the demo's trainer, but for fewer steps.

Runs in the PEFT environment: ``train.py BASE DIRECTORY``. Adapters that exist are kept.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

# One thread, as in the demo: on a busy machine several mostly wait for each other.
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo"))

import train_adapters

# By directory: rank and steps.
ADAPTERS = {"first": (16, 8), "second": (16, 16), "neighbour": (32, 8), "too_large": (128, 4)}


def main() -> None:
    base, target = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    lesson = json.loads(train_adapters.SENTENCES.read_text(encoding="utf-8"))["cleaner"]
    # The answers to the held-out sentences are not needed.
    lesson["held"] = []
    for name, (rank, steps) in ADAPTERS.items():
        if not (target / name).is_dir():
            partial = target / f".{name}.partial"
            train_adapters.trainer(base).train(train_adapters.Recipe(name, "cleaner", rank, steps), lesson, partial)
            partial.rename(target / name)


if __name__ == "__main__":
    main()
