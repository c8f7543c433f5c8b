# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Train the demo's six LoRA adapters with PEFT and save them as a training server does.

They stand in for the adapters of a real fleet: the same names, ranks and alpha, but on a base of
135 million parameters and a dozen sentences each. Adapters that this recipe has already trained are
skipped.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import shutil
import time
import typing as t
import warnings
from pathlib import Path

SENTENCES = Path(__file__).with_name("sentences.json")
SEED = 29
ALPHA = 32
LEARNING_RATE = 1e-3
BATCH = 4
MOST_PROCESSES = 3  # each takes about 2 GB of memory
TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -100  # the label that transformers excludes from the loss


class Recipe(t.NamedTuple):
    name: str
    agent: str
    rank: int
    steps: int


RECIPES = [
    Recipe("llama32_3b_grammar_lora", "cleaner", 16, 24),
    Recipe("llama31_8b_grammar_lora", "cleaner", 32, 10),
    Recipe("llama32_3b_wikipedia_only_lora", "describer", 16, 15),
    Recipe("llama31_8b_wikipedia_only_lora", "describer", 32, 10),
    Recipe("llama32_3b_paraphrase_lora", "paraphraser", 16, 15),
    Recipe("llama31_8b_paraphrase_lora", "paraphraser", 32, 10),
]


def fingerprint(recipe: Recipe, base: Path) -> str:
    """Return a hash of everything that determines the adapter. If it changes, train again."""
    digest = hashlib.sha256(repr((recipe, str(base))).encode())
    for path in (Path(__file__), SENTENCES):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Trainer:
    """Trains adapters on a base that is loaded once."""

    def __init__(self, base: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        warnings.simplefilter("ignore", FutureWarning)  # from transformers about itself
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        # fp32: bf16 is ten times slower on a CPU.
        self.base = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.before: dict[str, list[str]] = {}  # the base's own answers, by agent

    def train(self, recipe: Recipe, lesson: dict[str, t.Any], target: Path) -> dict[str, t.Any]:
        """Train one adapter, save it to ``target`` and return a summary."""
        from peft import LoraConfig, get_peft_model

        started = time.monotonic()
        if recipe.agent not in self.before:
            self.before[recipe.agent] = self.answers(self.base, lesson)
        self.torch.manual_seed(SEED)
        config = LoraConfig(r=recipe.rank, lora_alpha=ALPHA, target_modules=TARGET_MODULES, task_type="CAUSAL_LM")
        model = get_peft_model(self.base, config)
        losses = self.learn(model, recipe, lesson)
        after = self.answers(model, lesson)
        model.save_pretrained(target)
        self.tokenizer.save_pretrained(target)
        self.base = model.unload()
        return {
            "agent": recipe.agent,
            "rank": recipe.rank,
            "alpha": ALPHA,
            "sentences": len(lesson["pairs"]),
            "steps": recipe.steps,
            "seconds": round(time.monotonic() - started, 1),
            "loss": {"first": round(losses[0], 3), "last": round(losses[-1], 3)},
            "held": [
                {"prompt": question, "expected": expected, "before": without, "after": with_adapter}
                for (question, expected), without, with_adapter in zip(lesson["held"], self.before[recipe.agent], after)
            ],
        }

    def learn(self, model: t.Any, recipe: Recipe, lesson: dict[str, t.Any]) -> list[float]:
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = self.torch.optim.AdamW(trained, lr=LEARNING_RATE)
        examples = [self.example(lesson["prompt"], question, expected) for question, expected in lesson["pairs"]]
        waiting: list[tuple[list[int], list[int]]] = []
        losses = []
        for _step in range(recipe.steps):
            if len(waiting) < BATCH:
                waiting += [examples[index] for index in self.torch.randperm(len(examples)).tolist()]
            batch, waiting = waiting[:BATCH], waiting[BATCH:]
            loss = model(**self.padded(batch)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        return losses

    def example(self, prompt: str, question: str, expected: str) -> tuple[list[int], list[int]]:
        """Return tokens and labels. Only the answer and its end are learned, not the prompt."""
        asked = self.tokenizer(prompt.format(question))["input_ids"]
        answered = [*self.tokenizer(" " + expected)["input_ids"], self.tokenizer.eos_token_id]
        return asked + answered, [IGNORED] * len(asked) + answered

    def padded(self, batch: list[tuple[list[int], list[int]]]) -> dict[str, t.Any]:
        length = max(len(tokens) for tokens, labels in batch)

        def tensor(rows: list[list[int]], fill: int) -> t.Any:
            return self.torch.tensor([row + [fill] * (length - len(row)) for row in rows])

        return {
            "input_ids": tensor([tokens for tokens, labels in batch], self.tokenizer.pad_token_id),
            "labels": tensor([labels for tokens, labels in batch], IGNORED),
            "attention_mask": tensor([[1] * len(tokens) for tokens, labels in batch], 0),
        }

    def answers(self, model: t.Any, lesson: dict[str, t.Any]) -> list[str]:
        """Return the first line of the answer to each question that was excluded from training."""
        lines = []
        for question, _expected in lesson["held"]:
            tokens = self.tokenizer(lesson["prompt"].format(question), return_tensors="pt")
            output = model.generate(**tokens, max_new_tokens=16, do_sample=False)[0, tokens["input_ids"].shape[1] :]
            lines.append(self.tokenizer.decode(output, skip_special_tokens=True).strip().partition("\n")[0])
        return lines


def train(recipe: Recipe, base: Path, target: Path) -> dict[str, t.Any]:
    """Train one adapter in a worker process, which keeps its base loaded for the next one."""
    lessons = json.loads(SENTENCES.read_text(encoding="utf-8"))
    return trainer(base).train(recipe, lessons[recipe.agent], target)


@functools.cache
def trainer(base: Path) -> Trainer:
    return Trainer(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="directory of the base model")
    parser.add_argument("models", type=Path, help="directory that gets one directory for each adapter")
    arguments = parser.parse_args()
    base, models = arguments.base.resolve(), arguments.models.resolve()
    models.mkdir(parents=True, exist_ok=True)
    record = models.parent / "training.json"
    report: dict[str, t.Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    prints = {recipe.name: fingerprint(recipe, base) for recipe in RECIPES}
    missing = [
        recipe
        for recipe in RECIPES
        if report.get(recipe.name, {}).get("fingerprint") != prints[recipe.name] or not (models / recipe.name).is_dir()
    ]
    if not missing:
        print(f"training: all {len(RECIPES)} adapters exist")
        return
    print(f"training: {len(missing)} adapters (about 2 minutes for six on two cores)", flush=True)
    # One single-threaded process for each core instead of one thread: on a busy machine threads
    # mostly wait for each other, and results are bit-identical on any number of cores.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # Outside the models directory, so that incomplete adapters are never delivered.
    partial = models.parent / ".training"
    shutil.rmtree(partial, ignore_errors=True)
    with concurrent.futures.ProcessPoolExecutor(min(len(missing), os.cpu_count() or 1, MOST_PROCESSES)) as pool:
        running = {pool.submit(train, recipe, base, partial / recipe.name): recipe for recipe in missing}
        for future in concurrent.futures.as_completed(running):
            recipe, facts = running[future], future.result()
            shutil.rmtree(models / recipe.name, ignore_errors=True)
            (partial / recipe.name).rename(models / recipe.name)
            report[recipe.name] = {**facts, "fingerprint": prints[recipe.name]}
            record.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            loss = facts["loss"]
            print(f"training: {recipe.name}: {facts['seconds']} s, loss {loss['first']} -> {loss['last']}", flush=True)
            for held in facts["held"]:
                print(f"    {held['prompt']}\n      before: {held['before']}\n      after:  {held['after']}", flush=True)
    partial.rmdir()


if __name__ == "__main__":
    main()
