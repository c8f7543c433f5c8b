# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CTranslate2: takes whole models only. With the setting ``merged``, adapters are merged first."""

from __future__ import annotations

import os
import shutil
import typing as t

import ctranslate2
import ctranslate2.converters
import numpy
import torch


class Engine:
    version = ctranslate2.__version__

    def __init__(self, job: t.Any) -> None:
        self.job = job
        self.base = self.converted(job.base, "base")
        self.adapted: t.Any = None

    def converted(self, directory: str, name: str) -> t.Any:
        target = os.path.join(self.job.scratch, name)
        ctranslate2.converters.TransformersConverter(directory).convert(target, force=True)
        return ctranslate2.Generator(target, compute_type="float32")

    def load(self, name: str, directory: str) -> None:
        self.adapted = self.converted(self.merged(directory) if self.job.settings.get("merged") else directory, "adapted")

    def merged(self, directory: str) -> str:
        import peft
        import transformers

        base = transformers.AutoModelForCausalLM.from_pretrained(self.job.base, dtype=torch.float32)
        target = os.path.join(self.job.scratch, "merged")
        shutil.rmtree(target, ignore_errors=True)
        peft.PeftModel.from_pretrained(base, directory).merge_and_unload().save_pretrained(target)
        transformers.AutoTokenizer.from_pretrained(self.job.base).save_pretrained(target)
        return target

    def fresh(self) -> None:
        self.adapted = None

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        import transformers

        tokens = self.job.short
        names = transformers.AutoTokenizer.from_pretrained(self.job.base).convert_ids_to_tokens(tokens)
        logits = (self.adapted if name else self.base).forward_batch([names])
        found = torch.log_softmax(torch.from_numpy(numpy.array(logits))[0], -1)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]


open_engine = Engine
