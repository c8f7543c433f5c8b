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
        self.base = self.converted("convert_hf_to_gguf.py", job.base, "base")
        self.models = {"base": self.opened()}

    def converted(self, program: str, directory: str, name: str, *options: str) -> str:
        target = os.path.join(self.job.scratch, f"{name}.gguf")
        command = [sys.executable, self.converters / program, directory, "--outfile", target, "--outtype", "f32", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        sys.stderr.write(done.stdout)
        if done.returncode:
            raise RuntimeError(done.stdout.strip().rpartition("\n")[2])
        return target

    def opened(self, adapter: str | None = None) -> t.Any:
        # The default cache rounds to float16, and so does flash attention, which is off by default
        # here: that would hide differences below 1e-2.
        cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        model = llama_cpp.Llama(self.base, n_ctx=512, logits_all=True, verbose=True, **cache)
        if adapter is not None:
            # Not lora_path=: the package does not notice that the engine refuses the adapter.
            loaded = llama_cpp.llama_adapter_lora_init(model.model, adapter.encode())
            if not loaded:
                raise RuntimeError("llama_adapter_lora_init cannot load it")
            adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
            if llama_cpp.llama_set_adapters_lora(model.ctx, adapters, 1, scales):
                raise RuntimeError("llama_set_adapters_lora cannot use it")
        return model

    def load(self, name: str, directory: str) -> None:
        adapter = self.converted("convert_lora_to_gguf.py", directory, name, "--base", self.job.base)
        self.models[name] = self.opened(adapter)

    def fresh(self) -> None:
        for name in set(self.models) - {"base"}:
            self.models.pop(name).close()

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.short
        model = self.models[name or "base"]
        model.reset()
        model.eval(tokens)
        found = torch.log_softmax(torch.from_numpy(model.scores[: len(tokens)].copy()).float(), -1)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]


open_engine = Engine
