# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mlx-lm on the CPU: ``load_adapters``, which reads an adapter_config.json of another schema."""

from __future__ import annotations

import importlib.metadata
import typing as t

import mlx.core
import mlx_lm.utils


class Engine:
    def __init__(self, job: t.Any) -> None:
        self.job = job
        self.version = importlib.metadata.version("mlx-lm")
        mlx.core.set_default_device(mlx.core.cpu)
        self.fresh()

    def base(self) -> t.Any:
        model, _tokenizer = mlx_lm.utils.load(self.job.base)
        model.set_dtype(mlx.core.float32)
        return model

    def load(self, name: str, directory: str) -> None:
        self.model = mlx_lm.utils.load_adapters(self.base(), directory)

    def fresh(self) -> None:
        self.model = self.base()

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        tokens = self.job.short
        logits = self.model(mlx.core.array([tokens]))[0].astype(mlx.core.float32)
        found = logits - mlx.core.logsumexp(logits, axis=-1, keepdims=True)
        return [(i, token, found[i, token].item()) for i, token in enumerate(tokens[1:])]


open_engine = Engine
