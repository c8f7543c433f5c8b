# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Recognizes what other tools save, so that a message can name the tool and the remedy.

PEFT saves an adapter as adapter_config.json and adapter_model.safetensors (or .bin).
"""

from __future__ import annotations

import fnmatch
import os
import re
import typing as t

from .files import CONFIG_FILE

# How many directories are looked into for adapters below an adapter's directory.
_LOOK_INTO = 200


class Format(t.NamedTuple):
    """What a tool saves.

    ``files`` are patterns of the names that only it uses. ``what`` and ``remedy`` are parts of a
    message about such a file.
    """

    files: tuple[str, ...]
    what: str
    remedy: str


_SAVE = "Save the adapter with save_pretrained"
_CONVERT = (
    "Convert it: transpose each NAME.{a} and NAME.{b}, and call them base_model.model.NAME.lora_A.weight and .lora_B.weight."
)
ADAPTERHUB = Format(
    ("adapter.safetensors", "pytorch_adapter.bin", "head_config.json", "model_head.safetensors", "pytorch_model_head.bin"),
    "an adapter of AdapterHub's library adapters, whose configuration and tensor names PEFT does not read",
    "Train the adapter with PEFT, or convert it: NAME.loras.ADAPTER.lora_A is PEFT's base_model.model.NAME.lora_A.weight.",
)
MLX = Format(
    ("adapters.safetensors", "*_adapters.safetensors", "adapters.npz"),
    "an adapter of mlx-lm, whose names differ from PEFT's and whose tensors are transposed",
    f"{_CONVERT.format(a='lora_a', b='lora_b')} In adapter_config.json, lora_alpha is scale times rank.",
)
# The first one that matches counts, so the most specific ones come first.
_FORMATS = (
    ADAPTERHUB,
    MLX,
    Format(
        ("lora_config.json", "peft_model*.safetensors", "lora_model_state.pdparams", "lora_mp*_model_state.pdparams"),
        "an adapter of PaddleFormers or PaddleNLP, whose names differ from PEFT's and whose tensors are transposed",
        _CONVERT.format(a="lora_A", b="lora_B"),
    ),
    Format(
        ("*.lora.h5",),
        "an adapter of Keras, which numbers the layers of the model instead of naming them",
        "Train the adapter with PEFT: the file has neither lora_alpha nor the names of the layers.",
    ),
    Format(
        ("*.pth.lora", "lit_model.pth*"),
        "a checkpoint of litgpt, which stacks the tensors of several modules",
        "Train the adapter with PEFT: litgpt can only merge this one into its base.",
    ),
    Format(
        ("lora_train_meta.json", "model_world_size_*_rank_*.pt"),
        "a checkpoint of verl, in parts",
        "Merge it with verl.model_merger and deliver the directory lora_adapter that it writes.",
    ),
    Format(
        (
            *("*.distcp", "adapter_metadata.json", "mp_rank_*", "tp_rank_*", "*.nemo", "megatron_lora*"),
            *("latest_checkpointed_iteration.txt", "iter_0*", "model_weights"),
        ),
        "a distributed checkpoint, as NeMo and Megatron save one",
        "Export the adapter in PEFT's format with the tool that trained it.",
    ),
    Format(
        (
            *("zero_to_fp32.py", "*zero_pp_rank_*", "*_model_states.pt", "*_optim_states.pt", "global_step*"),
            *("pytorch_model_fsdp*", "optimizer_[0-9]*"),
        ),
        "a checkpoint of DeepSpeed ZeRO or FSDP, which has the weights in parts",
        f"{_SAVE} after the training has gathered its weights (for ZeRO-3, stage3_gather_16bit_weights_on_model_save).",
    ),
    Format(
        ("adapter_[0-9]*.pt", "recipe_state*.pt", "hf_model_*.pt", "meta_model_*.pt", "torchtune_config.yaml"),
        "a checkpoint in torchtune's own format",
        "Train with torchtune's FullModelHFCheckpointer, which also writes adapter_config.json and adapter_model.safetensors.",
    ),
    Format(
        ("pytorch_lora_weights.*",),
        "an adapter of diffusers, which is for an image model",
        "Check the name in the inventory.",
    ),
    Format(
        ("model.lora_config.npy", "model.lora_weights.npy"),
        "an adapter that was converted for TensorRT-LLM",
        "Deliver the adapter that it was converted from.",
    ),
    Format(
        ("*.gguf", "ggml-adapter-model.bin"),
        "a file of llama.cpp",
        "Deliver the adapter that it was converted from.",
    ),
    Format(
        ("adapter_model-*-of-*", "adapter_model.*.index.json"),
        "a shard of weights, which PEFT does not read",
        "Join the shards: read each with safetensors.torch.load_file and save all tensors as adapter_model.safetensors.",
    ),
    Format(
        ("adapter_model.safetensors.*", "*.incomplete", "*.part", "*.aria2", "*.crdownload"),
        "an unfinished download",
        "Complete it, or copy the adapter again.",
    ),
    Format(
        ("adapter_model.pt", "adapter_model.pth", "adapter.bin", "adapter.pt", "*.ckpt", "adapter_model.pkl"),
        "a pickle under a name that PEFT does not read",
        f"{_SAVE}, which writes adapter_model.safetensors.",
    ),
    Format(
        (
            *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin"),
            *("pytorch_model.bin.index.json", "consolidated*"),
        ),
        "part of a whole model, into which the adapter was merged or with which it was saved",
        f"{_SAVE} of the PeftModel, before it is merged.",
    ),
    Format(
        ("optimizer*", "scheduler.pt", "rng_state*.pth", "trainer_state.json", "training_args.bin"),
        "the state of a training whose adapter is not here",
        f"{_SAVE}, or deliver a checkpoint that has it.",
    ),
    Format(("*.tar", "*.tar.*", "*.tgz", "*.zip", "*.7z", "*.zst"), "an archive", "Unpack it in this directory."),
)


def format_of(present: t.Iterable[str]) -> tuple[str, Format] | None:
    """Return the format that the names in a directory show, after a name that shows it."""
    names = sorted(present)
    for found in _FORMATS:
        for pattern in found.files:
            for name in fnmatch.filter(names, pattern):
                return name, found
    return None


def format_of_config(config: dict[str, t.Any]) -> Format | None:
    """Return the format of an adapter_config.json that PEFT did not write, if it is known."""
    if "peft_type" in config:
        return None
    if str(config.get("version")).startswith("adapter") or {"config", "model_class"} <= config.keys():
        return ADAPTERHUB
    if "lora_parameters" in config or "fine_tune_type" in config:
        return MLX
    return None


def adapters_below(directory: str) -> list[str]:
    """Return the directories with an adapter_config.json, up to two levels below ``directory``.

    They are relative paths, checkpoints in the order of their numbers. Links are not followed.
    """
    found: list[str] = []
    pending = [""]
    for _number in range(_LOOK_INTO):
        if not pending:
            break
        above = pending.pop(0)
        try:
            entries = [entry.name for entry in os.scandir(os.path.join(directory, above)) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for path in (os.path.join(above, name) for name in sorted(entries)):
            if os.path.isfile(os.path.join(directory, path, CONFIG_FILE)):
                found.append(path)
            elif not above:
                pending.append(path)
    return sorted(found, key=lambda path: [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", path)])
