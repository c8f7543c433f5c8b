# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mistral.rs: its Python package, with adapters loaded and unloaded at run time."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import typing as t

os.environ["MISTRALRS_CPU_KV_F32"] = "1"
import mistralrs

# Without it, the text would be put into the chat template of the base.
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class Engine:
    def __init__(self, job: t.Any) -> None:
        self.job, self.loaded = job, set[str]()
        self.version = importlib.metadata.version("mistralrs")
        which = mistralrs.Which.Lora(job.base, dtype=mistralrs.ModelDType.F32)
        template = pathlib.Path(job.scratch, "plain.jinja")
        template.write_text(PLAIN)
        self.runner = mistralrs.Runner(which=which, jinja_explicit=str(template))

    def load(self, name: str, directory: str) -> None:
        self.runner.load_lora_adapter(name, directory)
        self.loaded.add(name)

    def unload(self, name: str) -> None:
        self.runner.unload_lora_adapter(name)
        self.loaded.discard(name)

    def fresh(self) -> None:
        for name in list(self.loaded):
            self.unload(name)

    def top(self, name: str | None, text: str, length: int) -> list[tuple[int, int, float]]:
        request = mistralrs.ChatCompletionRequest(
            model="base",
            messages=[{"role": "user", "content": text}],
            max_tokens=1,
            temperature=0.0,
            logprobs=True,
            top_logprobs=10,
            adapter=name,
        )
        (found,) = self.runner.send_chat_completion_request(request).choices[0].logprobs.content
        return [(length - 1, entry.token, entry.logprob) for entry in found.top_logprobs]

    def prompt(self, name: str | None) -> list[tuple[int, int, float]]:
        return [answer for length, text in self.job.prompts["texts"].items() for answer in self.top(name, text, int(length))]

    def next_token(self, name: str | None) -> list[tuple[int, int, float]]:
        return self.top(name, self.job.prompts["long_text"], len(self.job.long))


open_engine = Engine
