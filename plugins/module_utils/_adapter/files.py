# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The names of the files that an adapter consists of. Part of the load test's program, too."""

from __future__ import annotations

import re

CONFIG_FILE = "adapter_config.json"
SAFETENSORS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
# The directory of a tokenizer's further templates, each with the name of the template.
CHAT_TEMPLATE_DIR = "additional_chat_templates"
# All files that the tokenizers and processors of transformers 4 and 5 read, whichever of them a
# model has. Version 5 writes chat_template.jinja and no special_tokens_map.json.
TOKENIZER_FILES = frozenset(
    (
        *(TOKENIZER_CONFIG, TOKENIZER_FILE, "special_tokens_map.json", "added_tokens.json"),
        "chat_template.json",
        *("vocab.json", "merges.txt", "vocab.txt", "vocab.bpe", "vocab.tsv", "encoder.json", "dict.txt", "bpe.codes"),
        *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model", "spm_char.model"),
        *("source.spm", "target.spm", "tiktoken.model", "qwen.tiktoken", "byte_maps.json", "emoji.json", "normalizer.json"),
        *("vocab-src.json", "vocab-tgt.json", "target_vocab.json", "entity_vocab.json"),
        *("word_shape.json", "word_pronunciation.json"),
        *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
        "audio_tokenizer_config.json",
    )
)
# tokenizer.4.40.json is for one version of transformers. Mistral's files are tokenizer.model.v3,
# tekken.json and tekken_240911.json.
_TOKENIZER_PATTERN = re.compile(r"tokenizer\.[\d.]+\.json|tokenizer\.model\.v\d+(m\d+)?|[\w.-]*tekken[\w.-]*\.json", re.ASCII)


def is_chat_template(name: str) -> bool:
    directory, _slash, file = name.rpartition("/")
    return name == CHAT_TEMPLATE or (directory == CHAT_TEMPLATE_DIR and file.endswith(".jinja"))


def is_tokenizer_file(name: str) -> bool:
    """Return whether a tokenizer or processor of transformers reads a file of this path."""
    return is_chat_template(name) or name in TOKENIZER_FILES or _TOKENIZER_PATTERN.fullmatch(name) is not None


def is_always_delivered(name: str) -> bool:
    """Return whether a file of this name is delivered without being listed in extra_files."""
    return name in (CONFIG_FILE, SAFETENSORS_FILE, PICKLE_FILE) or is_tokenizer_file(name)


# Suffixes of code, and of pickles, which can carry code. Optimizer states and training arguments
# are pickles.
CODE_SUFFIXES = (".py", ".pyc", ".so", ".sh", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def is_code(name: str) -> bool:
    """Return whether a file of this name is code or can carry code."""
    return name.lower().endswith(CODE_SUFFIXES)
