# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OpenVINO GenAI: LLMPipeline on a base that optimum-intel has exported.

With the setting ``alpha: factor``, the factor is handed over. ``prefix_cache: false`` switches off
a cache that mixes the adapters.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import pathlib
import subprocess
import sys
import typing as t

import numpy
import openvino
import openvino_genai

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def factor(config: dict[str, t.Any]) -> float:
    rank: int = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank))


class Engine:
    def __init__(self, job: t.Any) -> None:
        self.job = job
        self.version = importlib.metadata.version("openvino-genai")
        self.exported = pathlib.Path(job.kept, "exported")
        if not self.exported.is_dir():
            self.export()
        self.fresh()

    def export(self) -> None:
        command = [pathlib.Path(sys.executable).with_name("optimum-cli"), "export", "openvino", "--model", self.job.base]
        command += ["--task", "text-generation-with-past", "--weight-format", "fp32", self.exported]
        subprocess.run(command, stdout=sys.stderr, check=True)

    def load(self, name: str, directory: str) -> None:
        adapter = openvino_genai.Adapter(os.path.join(directory, "adapter_model.safetensors"))
        alpha = [factor(self.job.config(directory))] if self.job.settings.get("alpha") == "factor" else []
        self.adapters[name] = openvino_genai.AdapterConfig(adapter, *alpha)
        if self.pipeline is None:
            self.pipeline, self.adapted = self.built(self.adapters[name]), True

    def built(self, *adapters: t.Any) -> t.Any:
        properties: dict[str, t.Any] = dict(FLOAT32)
        if self.job.settings.get("prefix_cache") is False:
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.enable_prefix_caching = False
            properties["scheduler_config"] = scheduler
        if adapters:
            properties["adapters"] = adapters[0]
        return openvino_genai.LLMPipeline(self.exported, "CPU", **properties)

    def fresh(self) -> None:
        self.adapters: dict[str, t.Any] = {}
        self.pipeline, self.adapted = None, False

    def unload(self, name: str) -> None:
        del self.adapters[name]

    def top(self, name: str | None, tokens: list[int]) -> tuple[int, int, float]:
        """Return the likeliest token after some tokens."""
        if self.pipeline is None:
            self.pipeline = self.built()
        # Without this argument, the adapter that the pipeline was built with applies.
        given = {"adapters": self.adapters[name] if name else openvino_genai.AdapterConfig()} if self.adapted else {}
        ids = openvino.Tensor(numpy.array([tokens], dtype=numpy.int64))
        found = self.pipeline.generate(ids, max_new_tokens=1, logprobs=1, do_sample=False, ignore_eos=True, **given)
        return len(tokens) - 1, found.tokens[0][0], found.scores[0]

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        return [self.top(name, self.job.short[:length]) for length in range(1, len(self.job.short) + 1)]

    def next_token(self, name: str | None) -> list[tuple[int, int, float]]:
        return [self.top(name, self.job.long)]


open_engine = Engine
