# Copyright (c) 2026, The lorafleet.delivery authors
# BSD-2-Clause (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause

# This module util is PRIVATE to the collection: it may change or vanish in any release.

"""Options that several modules share, documented in doc_fragments/_options.py."""

from __future__ import annotations

import typing as t

from ._activation import AUTO, EXCHANGE, SYMLINK
from ._forms import AS_TRAINED, FORMS
from ._levels import LEVELS
from ._ways import CHOICES, RELAY

DECLARED: dict[str, t.Any] = {
    "adapters": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "variant": {"type": "str"},
            "default": {"type": "bool", "default": False},
            "base": {"type": "str", "required": True},
            "rank": {"type": "int", "required": True},
            "alpha": {"type": "float", "required": True},
            "target_modules": {"type": "list", "elements": "str"},
            "peft_config": {"type": "dict"},
            "extra_files": {"type": "list", "elements": "str"},
            "subdirectory": {"type": "str"},
            "allow_pickle": {"type": "bool", "default": False},
            "form": {"type": "str", "choices": list(FORMS), "default": AS_TRAINED},
            "dataset": {"type": "str"},
            "quality": {"type": "str"},
        },
    },
}

BASES: dict[str, t.Any] = {
    "bases": {"type": "dict", "default": {}},
}

SOURCE: dict[str, t.Any] = {
    "models_dir": {"type": "path", "required": True},
    "cache_dir": {"type": "path", "default": "~/.cache/lorafleet"},
    "golden_dir": {"type": "path", "default": "~/.local/share/lorafleet/goldens"},
    "link_dirs": {"type": "list", "elements": "path", "default": []},
}

NODE: dict[str, t.Any] = {
    "models_dir": {"type": "path", "required": True},
    "store": {"type": "path", "required": True},
}

TARGET: dict[str, t.Any] = {
    "source_directories": {"type": "dict", "default": {}},
}

TRANSFER: dict[str, t.Any] = {
    "transfer": {"type": "str", "choices": list(CHOICES), "default": RELAY},
    "transfer_command": {"type": "list", "elements": "str", "default": []},
    "transfer_direct_ports": {"type": "str", "default": ""},
    "transfer_direct_ssh": {"type": "bool", "default": False},
    "transfer_direct_authorized_keys": {"type": "str", "default": "~/.ssh/authorized_keys", "no_log": False},
    "transfer_direct_address": {"type": "str", "default": ""},
    "transfer_swarm_ports": {"type": "str", "default": ""},
    "transfer_swarm_address": {"type": "str", "default": ""},
    "transfer_swarm_python": {"type": "str", "default": ""},
    "transfer_swarm_source_python": {"type": "str", "default": ""},
    "transfer_swarm_plaintext": {"type": "bool", "default": False},
    "transfer_timeout": {"type": "int", "default": 60},
    "transfer_tries": {"type": "int", "default": 3},
    "transfer_streams": {"type": "int", "default": 10},
    "transfer_bwlimit": {"type": "str", "default": ""},
    "transfer_minimum_rate": {"type": "int", "default": 1000},
    "transfer_compress": {"type": "bool", "default": False},
}

DEVICE: dict[str, t.Any] = {
    "device": {"type": "str", "default": "cuda"},
}

LOADING: dict[str, t.Any] = {
    "memory_limit": {"type": "bytes"},
}

PERMISSIONS: dict[str, t.Any] = {
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "file_mode": {"type": "str", "default": "0644"},
    "directory_mode": {"type": "str", "default": "0755"},
}

TESTED: dict[str, t.Any] = {
    "python": {"type": "path", "required": True},
    "level": {"type": "str", "choices": [*LEVELS, "available"], "default": "available"},
    "minimum_level": {"type": "str", "choices": list(LEVELS)},
    "base_binding": {"type": "str", "choices": ["enforce", "report"], "default": "enforce"},
    "user": {"type": "str"},
}

ENGINES: dict[str, t.Any] = {
    "engines": {"type": "raw"},
    "engine_policy": {"type": "str", "choices": ["enforce", "report"], "default": "enforce"},
}

ACTIVATION: dict[str, t.Any] = {
    "activation": {"type": "str", "choices": [AUTO, EXCHANGE, SYMLINK], "default": AUTO},
    "keep": {"type": "int", "default": 3},
}

SIGNATURES: dict[str, t.Any] = {
    "signatures": {"type": "str", "default": ""},
    "signed": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "adapter": {"type": "str", "required": True},
            "statement": {"type": "str", "required": True},
            "signatures": {"type": "list", "elements": "str", "required": True},
        },
    },
    "snapshot": {
        "type": "dict",
        "options": {
            "statement": {"type": "str", "required": True},
            "signatures": {"type": "list", "elements": "str", "required": True},
        },
    },
}
