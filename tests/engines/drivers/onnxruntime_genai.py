# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ONNX Runtime GenAI: its model builder, which puts the adapter into the graph of the base."""

from __future__ import annotations

import os
import shutil
import typing as t

import numpy
import onnxruntime_genai
import torch
from onnxruntime_genai.models import builder


class Engine:
    version = onnxruntime_genai.__version__

    def __init__(self, job: t.Any) -> None:
        self.job = job
        self.models = {"base": self.built("base")}

    def built(self, name: str, *options: str) -> t.Any:
        target = os.path.join(self.job.scratch, name)
        # The same as python -m onnxruntime_genai.models.builder, whose start takes much longer.
        arguments = [None, self.job.base, target, "fp32", "cpu", os.path.join(self.job.scratch, "cache")]
        builder.create_model(*arguments, **builder.parse_extra_options(*arguments, list(options)))
        return onnxruntime_genai.Model(target)

    def load(self, name: str, directory: str) -> None:
        self.models[name] = self.built(name, f"adapter_path={directory}")

    def fresh(self) -> None:
        for name in set(self.models) - {"base"}:
            del self.models[name]
            shutil.rmtree(os.path.join(self.job.scratch, name))

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.short
        model = self.models[name or "base"]
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(tokens) + 1)
        generator = onnxruntime_genai.Generator(model, parameters)
        generator.append_tokens(numpy.array([tokens], dtype=numpy.int32))
        found = torch.log_softmax(torch.from_numpy(generator.get_output("logits"))[0].float(), -1)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]


open_engine = Engine
