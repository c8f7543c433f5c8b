# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The levels of the load test, compared with the minimum: one hash, the imports, plain PEFT."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / ".collections"), str(CHECKOUT)]

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.lora_config import read_lora_config  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.structure import structure_problems  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._base.architecture import base_modules  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._formats.tensor_scan import scan  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import sha256_of  # noqa: E402
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.launch import Target, run_worker  # noqa: E402

from tests.benchmarks import true_size  # noqa: E402
from tests.benchmarks.side_by_side import Action, measure  # noqa: E402
from tests.support.tiny_adapters import PEFT_PYTHON  # noqa: E402

WEIGHTS = "adapter_model.safetensors"
IMPORTS = """
import sys, torch, safetensors, transformers, peft
from transformers import AutoModelForCausalLM
import transformers.models.llama.modeling_llama
for path in sys.argv[1:]:
    with safetensors.safe_open(path, "pt") as opened:
        for name in opened.keys():
            opened.get_tensor(name).sum()
"""
PLAIN = """
import sys, torch, transformers, peft
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True)
model = peft.PeftModel.from_pretrained(base, sys.argv[2]).eval()
with torch.no_grad():
    assert model(input_ids=torch.arange(16)[None]).logits.isfinite().all()
"""
MAKE = """
import json, sys, torch, transformers, peft
torch.manual_seed(0)
config = transformers.AutoConfig.for_model(**json.loads(sys.argv[1]))
base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
base.save_pretrained(sys.argv[2])
lora = peft.LoraConfig(r=16, init_lora_weights=False, target_modules=sys.argv[4:], task_type="CAUSAL_LM")
peft.get_peft_model(base.float(), lora).save_pretrained(sys.argv[3])
"""
# The size of SmolLM2-135M.
MEDIUM = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
ENVIRONMENT = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def python(code: str, *arguments: str) -> None:
    command = [PEFT_PYTHON, "-I", "-c", code, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def structure(adapter: pathlib.Path, size: true_size.Size) -> None:
    found = scan(str(adapter / WEIGHTS), tensor_digests=False)
    config = read_lora_config(str(adapter / "adapter_config.json"))
    assert base_modules(size.config, "base")
    assert structure_problems("a", found.tensors, config, size.config) == []


def load(targets: list[Target], scratch: str) -> None:
    outcome = run_worker(PEFT_PYTHON, "cpu", targets, 600, scratch)
    assert all(outcome.reports[target.name]["passed"] for target in targets), outcome


def main() -> None:
    memory = pathlib.Path("/dev/shm")  # noqa: S108
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as scratch:
        work = pathlib.Path(scratch)
        adapters: dict[str, tuple[pathlib.Path, true_size.Size]] = {}
        for seed in range(3):
            for label, size in true_size.SIZES.items():
                adapters[f"{label}-{seed}"] = (work / f"{label}-{seed}", size)
                true_size.make(work / f"{label}-{seed}", size, seed)
        big, size = adapters["8b-0"]
        measure(
            f"Level structure: one adapter of rank 32 for an 8B base, {(big / WEIGHTS).stat().st_size / 1e6:.0f} MB",
            {
                "hashlib.sha256 alone": Action(lambda: sha256_of(str(big / WEIGHTS))),
                "level structure: digest, header, names, shapes, NaN, zeros": Action(lambda: structure(big, size)),
                "manifest: the same, and a digest of each tensor": Action(lambda: scan(str(big / WEIGHTS))),
            },
            rounds=7,
        )
        weights = [str(path / WEIGHTS) for path, _size in adapters.values()]
        measure(
            "Level adapter: six adapters, three for a 3B and three for an 8B base, 1.3 GB",
            {
                "the imports, and every tensor read": Action(lambda: python(IMPORTS, *weights)),
                "level adapter": Action(lambda: load([_target(name, *one) for name, one in adapters.items()], scratch)),
            },
            rounds=3,
        )
        base, adapter = work / "base", work / "medium"
        python(MAKE, json.dumps(MEDIUM), str(base), str(adapter), *true_size.TARGETS)
        target = Target("a", str(adapter), WEIGHTS, "model", None, str(base), False)
        measure(
            "Level model: one adapter of rank 16 on a Llama of 135 million parameters",
            {
                "PeftModel.from_pretrained and one forward pass": Action(lambda: python(PLAIN, str(base), str(adapter))),
                "level model": Action(lambda: load([target], scratch)),
            },
            rounds=5,
        )


def _target(name: str, path: pathlib.Path, size: true_size.Size) -> Target:
    return Target(name, str(path), WEIGHTS, "adapter", size.config, None, False)


if __name__ == "__main__":
    main()
