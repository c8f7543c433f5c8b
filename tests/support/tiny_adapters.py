# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the tiny base and the adapters that the tests deliver, all trained and saved by PEFT.

Without arguments, it prints their directory, and makes them first if they do not exist. They are
made by the interpreter in LORAFLEET_PEFT_PYTHON (default: .cache/venv/peft of this checkout) and
kept in .cache/tests, under the hash of this script and that variable. Nothing is downloaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "tests"
PEFT_PYTHON = os.environ.get("LORAFLEET_PEFT_PYTHON", str(CHECKOUT / ".cache" / "venv" / "peft" / "bin" / "python"))

# The name of the base in adapter_config.json, in the form of a name on the Hub.
BASE_NAME = "tiny/Llama-64"
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS: dict[str, dict[str, t.Any]] = {
    "adapter": {},
    "adapter_b": {"r": 32},
    # Trained from other seeds: adapters of other agents, or later versions of the same adapter.
    "adapter_2": {"seed": 2},
    "adapter_b_2": {"r": 32, "seed": 2},
    "adapter_3": {"seed": 3},
    "adapter_b_3": {"r": 32, "seed": 3},
    "qv": {"target_modules": ["q_proj", "v_proj"]},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "lm_head_saved": {"modules_to_save": ["lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "rank_pattern": {"rank_pattern": {"down_proj": 8, "layers.1.self_attn.q_proj": 4}},
    "bf16": {},
}


def cached() -> pathlib.Path:
    """Return the directory of the adapters. The first of several concurrent callers makes it."""
    maker = pathlib.Path(__file__).read_bytes() + os.environ.get("LORAFLEET_PEFT_PYTHON", "").encode()
    target = CACHE / hashlib.sha256(maker).hexdigest()[:12]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as scratch:
                made = pathlib.Path(scratch, target.name)
                environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
                command = [PEFT_PYTHON, __file__, str(made)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
                if done.returncode:
                    raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
                made.rename(target)
    return target


def learn(model: t.Any, batches: t.Iterable[t.Any], rate: float) -> None:
    """Train the trainable parameters of a model, one step for each batch of token ids."""
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for batch in batches:
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()


def make(into: pathlib.Path) -> None:
    """Train the tokenizer, the base and every variant (runs in the PEFT interpreter)."""
    import peft
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(1)
    text = pathlib.Path(os.__file__).read_text(encoding="utf-8")

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(
        [text],
        tokenizers.trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"

    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    # It must know its text, or adapters and damage would change meaningless answers.
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    learn(base, [tokens[torch.randint(len(tokens) - 32, (16, 1)) + torch.arange(32)] for _step in range(150)], 3e-3)
    base.save_pretrained(into / "base")
    # The mode of a downloaded base. safetensors saves with mode 0600.
    (into / "base" / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(into / "base")

    batches = tokens[: 10 * 4 * 32].reshape(10, 4, 32)
    for name, options in VARIANTS.items():
        options = dict(options)
        torch.manual_seed(options.pop("seed", 1))
        model = transformers.AutoModelForCausalLM.from_pretrained(into / "base", dtype=torch.float32)
        model.name_or_path = BASE_NAME
        model.config._name_or_path = BASE_NAME
        config = {"r": 16, "lora_alpha": 32, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **options}
        trained = peft.get_peft_model(model, peft.LoraConfig(**config))
        learn(trained, batches, 1e-2)
        if name == "bf16":
            trained.to(torch.bfloat16)
        # With embeddings as targets, PEFT would also save the embeddings of the base.
        trained.save_pretrained(into / name, save_embedding_layers=False)
        tokenizer.save_pretrained(into / name)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        make(pathlib.Path(sys.argv[1]))
    else:
        print(cached())
