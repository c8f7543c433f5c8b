# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""transformers: ``load_adapter`` of a model, which reads adapters without PeftModel."""

from __future__ import annotations

import typing as t

import torch
import transformers


class Engine:
    version = transformers.__version__

    def __init__(self, job: t.Any) -> None:
        self.job = job
        self.fresh()

    def fresh(self) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(self.job.base, dtype=torch.float32).eval()

    def load(self, name: str, directory: str) -> None:
        self.model.load_adapter(directory, adapter_name=name)

    def unload(self, name: str) -> None:
        self.model.delete_adapter(name)

    def logits(self, tokens: list[int]) -> t.Any:
        with torch.no_grad():
            return torch.log_softmax(self.model(input_ids=torch.tensor([tokens])).logits[0].float(), -1)

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        # The last adapter that was loaded is active.
        tokens = self.job.short
        found = self.logits(tokens)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]

    def next_token(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.long
        if name:
            self.model.set_adapter(name)
        top = self.logits(tokens)[-1].topk(5)
        return [(len(tokens) - 1, token, value) for token, value in zip(top.indices.tolist(), top.values.tolist())]


open_engine = Engine
