# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adapters of every kind that engines read differently, made with PEFT, and PEFT's answers.

``made`` returns their directory, and makes it first if it does not exist. The work is done by the
PEFT interpreter, which runs this file as a program. The directory contains:

- ``adapters/KIND``: the adapter, and for some kinds ``KIND_folded`` (see ``folded``);
- ``answers/KIND.npy``: PEFT's log-probabilities of every token after each position of the prompt,
  in float32, shape (positions, vocabulary); missing if PEFT cannot load the adapter;
- ``answers/KIND.long.npy``: the same after the last position of the long prompt, for the adapters
  of the switching test;
- ``prompts.json``: the prompts;
- ``base``: the base, with a config.json that older readers understand, too: transformers 5 writes
  the rotary settings under ``rope_parameters`` alone.

The answers are those of the saved adapter, since saving can change an adapter: PEFT sorts the keys
of patterns, and the first key that matches a module wins.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "engines" / "kinds"

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION = ["q_proj", "v_proj"]

# The options of LoraConfig that make each kind. Without options: rank 16, alpha 32, all linear
# layers.
OPTIONS: dict[str, dict[str, t.Any]] = {
    "plain": {},
    "attention_only": {"target_modules": ATTENTION},
    "rank_64": {"r": 64, "lora_alpha": 128},
    # Right even in an engine that ignores lora_alpha: the adapters of the switching test.
    "factor_1": {"lora_alpha": 16},
    "factor_1_other": {"lora_alpha": 16},
    "rslora": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 8, "down_proj": 128}},
    "rank_pattern": {"rank_pattern": {"q_proj": 8, "down_proj": 4}},
    "patterns_of_one_ratio": {
        "rank_pattern": {"q_proj": 8, "down_proj": 4},
        "alpha_pattern": {"q_proj": 16, "down_proj": 8},
    },
    "layers_to_transform": {"layers_to_transform": [1]},
    "exclude_modules": {"exclude_modules": ["down_proj"]},
    "regular_expression": {"target_modules": r".*\.self_attn\.[qv]_proj"},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "bfloat16": {},
    "float16": {},
    "dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "bias_lora_only": {"bias": "lora_only"},
    "saved_head": {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
    "saved_embeddings": {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]},
    "embeddings": {"target_modules": [*ATTENTION, "embed_tokens"]},
    "head": {"target_modules": [*ATTENTION, "lm_head"]},
    "trainable_tokens": {"target_modules": ATTENTION},
    "alora": {},
    "replicated_layers": {},
}
FLOATS = {"bfloat16", "float16"}
# Damaged copies of other kinds. PEFT rejects them, or ignores tensors of theirs.
CHANGED = {
    "rank_of_config": "plain",
    "a_without_b": "plain",
    "keys_without_base_model": "factor_1",
    "keys_without_model": "factor_1",
    "keys_of_other_model": "factor_1",
}
SWITCHED = ["factor_1", "factor_1_other"]
BASE = "base"

SHORT, LONG = 40, 220
TEXT = """\
The ferry left the harbour at half past six, with eleven passengers, two bicycles and a crate of
young hens on board. A teacher read the news to her neighbour, who listened with closed eyes and
corrected the names of the towns. Behind the lighthouse the wind turned north, so the captain sent
everybody below deck and closed the hatch. Somebody began to sing; nobody knew the third verse. When
the coast came into sight again, the hens had laid four eggs, the bread was gone, and the teacher
had won a bicycle at cards. She gave it back on the quay, in front of the post office, where the
whole village waited for the mail, the hens, and a doctor who was said to be young. The doctor was
not on board. He had missed the ferry because of a letter that he wanted to post himself, and which
lay on top of the mail bag now, addressed to the teacher, with too few stamps. She paid the rest,
read it twice and laughed so loudly that the gulls flew up from the roof of the customs house. Then
she asked the captain when he would sail back, and whether he could wait for her to pack a trunk.
"""


def made(base: pathlib.Path, python: str) -> pathlib.Path:
    """Return the directory of the kinds on this base. The first of concurrent callers makes it."""
    maker = pathlib.Path(__file__).read_bytes() + (base / "config.json").read_bytes() + (python + str(base)).encode()
    target = CACHE / f"{base.name}-{hashlib.sha256(maker).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as scratch:
                into = pathlib.Path(scratch, target.name)
                environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
                command = [python, __file__, str(base), str(into)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
                # Not above: the PEFT interpreter runs this file without the collection.
                from tests.engines import folded

                folded.make(into / "adapters")
                into.rename(target)
    return target


class Maker:
    """Makes the adapters and answers (in the PEFT interpreter)."""

    def __init__(self, base: pathlib.Path, into: pathlib.Path) -> None:
        import transformers

        self.base, self.into = base, into
        self.adapters, self.answers = into / "adapters", into / "answers"
        self.adapters.mkdir(parents=True)
        self.answers.mkdir()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        tokens = self.tokenizer(TEXT)["input_ids"]
        self.short, self.long = tokens[:SHORT], tokens[:LONG]

    def loaded_base(self) -> t.Any:
        import torch
        import transformers

        return transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    def make(self) -> None:
        self.link_base()
        self.write_prompts()
        self.write_answers(BASE, self.loaded_base())
        for kind in OPTIONS:
            self.train(kind)
        for kind in CHANGED:
            self.change(kind)
        for directory in sorted(self.adapters.iterdir()):
            self.ask_peft(directory)

    def link_base(self) -> None:
        (self.into / "base").mkdir()
        for path in self.base.iterdir():
            (self.into / "base" / path.name).symlink_to(path)
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        config["rope_theta"] = config["rope_parameters"]["rope_theta"]
        (self.into / "base" / "config.json").unlink()
        (self.into / "base" / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    def write_prompts(self) -> None:
        # For engines that take text: beginnings of the prompt that become the same tokens again.
        texts = {length: self.tokenizer.decode(self.short[:length]) for length in range(8, SHORT + 1)}
        faithful = {n: text for n, text in texts.items() if self.tokenizer(text)["input_ids"] == self.short[:n]}
        prompts = {
            "short": self.short,
            "long": self.long,
            "texts": dict(list(faithful.items())[:: max(1, len(faithful) // 4)]),
            "long_text": self.tokenizer.decode(self.long),
        }
        (self.into / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")

    def options(self, kind: str) -> dict[str, t.Any]:
        layers = json.loads((self.base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        special: dict[str, dict[str, t.Any]] = {
            "trainable_tokens": {"trainable_token_indices": sorted(set(self.short[4:12]))},
            "alora": {"alora_invocation_tokens": self.short[20:22]},
            "replicated_layers": {"layer_replication": [[0, layers], [layers - 1, layers]]},
        }
        default = {"r": 16, "lora_alpha": 32, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM"}
        return {**default, **OPTIONS[kind], **special.get(kind, {})}

    def train(self, kind: str) -> None:
        """Save an adapter with random values of the size that training gives them."""
        import peft
        import torch

        torch.manual_seed(sorted(OPTIONS).index(kind))
        model = peft.get_peft_model(self.loaded_base(), peft.LoraConfig(**self.options(kind)))
        # The answers move by about as much on both bases.
        size = 0.64 / model.config.hidden_size**0.65
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_A" not in name and "lora_embedding_B" not in name:
                    parameter.add_(torch.randn_like(parameter) * size)
        if kind in FLOATS:
            model.to(getattr(torch, kind))
        # With embeddings as targets, PEFT would also save the embeddings of the base.
        model.save_pretrained(self.adapters / kind, save_embedding_layers=False)

    def change(self, kind: str) -> None:
        import safetensors.torch

        directory = self.adapters / kind
        shutil.copytree(self.adapters / CHANGED[kind], directory)
        weights, config_file = directory / "adapter_model.safetensors", directory / "adapter_config.json"
        tensors, config = safetensors.torch.load_file(weights), json.loads(config_file.read_text(encoding="utf-8"))
        if kind == "rank_of_config":
            config["r"] = 32
        elif kind == "a_without_b":
            tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("q_proj.lora_B.weight")}
        else:
            prefix = {
                "keys_without_base_model": "model.",
                "keys_without_model": "base_model.model.",
                "keys_of_other_model": "base_model.model.language_model.",
            }[kind]
            tensors = {name.replace("base_model.model.model.", prefix): tensor for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")

    def ask_peft(self, directory: pathlib.Path) -> None:
        import peft

        try:
            model = peft.PeftModel.from_pretrained(self.loaded_base(), directory)
        except RuntimeError as exc:  # shapes that do not fit
            print(f"{directory.name}: {str(exc)[:200]}")
            return
        self.write_answers(directory.name, model.eval())

    def write_answers(self, kind: str, model: t.Any) -> None:
        import numpy
        import torch

        prompts = {"": self.short} if kind not in [BASE, *SWITCHED] else {"": self.short, ".long": self.long}
        for suffix, tokens in prompts.items():
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
            answers = torch.log_softmax(logits if not suffix else logits[-1:], -1).numpy()
            numpy.save(self.answers / f"{kind}{suffix}.npy", answers)


if __name__ == "__main__":
    Maker(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])).make()
