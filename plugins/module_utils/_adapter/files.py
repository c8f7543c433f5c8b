# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""The names of the files that an adapter consists of. Part of the load test's program, too."""

from __future__ import annotations

CONFIG_FILE = "adapter_config.json"
SAFETENSORS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
# Which of these exist depends on the model and on the version of transformers that wrote them:
# version 5 writes chat_template.jinja and no special_tokens_map.json.
TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)

# Suffixes of code, and of pickles, which can carry code. Optimizer states and training arguments
# are pickles.
CODE_SUFFIXES = (".py", ".pyc", ".so", ".sh", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
