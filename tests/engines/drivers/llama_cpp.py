# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""llama.cpp: llama-cpp-python, after the converters to GGUF of its source distribution."""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import sys
import typing as t

import llama_cpp
import torch


class Engine:
    version = llama_cpp.__version__

    def __init__(self, job: t.Any) -> None:
        self.job = job
        (self.converters,) = pathlib.Path(sys.prefix, "source").glob("*/vendor/llama.cpp")
        base = self.converted("convert_hf_to_gguf.py", job.base, "base")
        # The default cache rounds to float16, and so does flash attention, which is off by default
        # here: that would hide differences below 1e-2.
        cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        self.model = llama_cpp.Llama(base, n_ctx=512, logits_all=True, verbose=True, **cache)
        self.adapters: dict[str, t.Any] = {}

    def converted(self, program: str, directory: str, name: str, *options: str) -> str:
        target = os.path.join(self.job.scratch, f"{name}.gguf")
        command = [sys.executable, self.converters / program, directory, "--outfile", target, "--outtype", "f32", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        sys.stderr.write(done.stdout)
        if done.returncode:
            raise RuntimeError(done.stdout.strip().rpartition("\n")[2])
        return target

    def load(self, name: str, directory: str) -> None:
        adapter = self.converted("convert_lora_to_gguf.py", directory, name, "--base", self.job.base)
        # Llama has an option for one adapter only, and does not notice if the engine refuses it.
        loaded = llama_cpp.llama_adapter_lora_init(self.model.model, adapter.encode())
        if not loaded:
            raise RuntimeError("llama_adapter_lora_init cannot load it")
        self.adapters[name] = loaded

    def unload(self, name: str) -> None:
        self.choose(None)
        llama_cpp.llama_adapter_lora_free(self.adapters.pop(name))

    def fresh(self) -> None:
        for name in list(self.adapters):
            self.unload(name)
        self.model.reset()

    def choose(self, name: str | None) -> None:
        """Let the model use an adapter, or none."""
        chosen = [self.adapters[name]] if name else []
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * len(chosen))(*chosen)
        if llama_cpp.llama_set_adapters_lora(self.model.ctx, adapters, len(chosen), (ctypes.c_float * 1)(1.0)):
            raise RuntimeError("llama_set_adapters_lora cannot use it")

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.short
        self.choose(name)
        self.model.reset()
        self.model.eval(tokens)
        found = torch.log_softmax(torch.from_numpy(self.model.scores[: len(tokens)].copy()).float(), -1)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]

    def next_token(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.long
        self.choose(name)
        # What create_completion calls. It keeps the cache of the last prompt.
        next(self.model.generate(tokens, temp=0))
        top = torch.log_softmax(torch.from_numpy(self.model.scores[len(tokens) - 1].copy()).float(), -1).topk(5)
        return [(len(tokens) - 1, token, value) for token, value in zip(top.indices.tolist(), top.values.tolist())]


open_engine = Engine
