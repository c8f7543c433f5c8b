# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A training server and a node to which nothing was delivered, for preflights in this process."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils import _argspec
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Check, Checklist
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.node import check_node
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.source import check_source

from tests.support import tiny_adapters
from tests.support.load_test_node import OWN_USER

# The adapters, each with its tiny adapter and rank.
ADAPTERS = {"grammar_3b": ("adapter", 16), "grammar_8b": ("adapter_b", 32)}
BASE = tiny_adapters.BASE_NAME
NOBODY = 65534

TRANSFER = {name: option["default"] for name, option in _argspec.TRANSFER.items()}

Params = t.Dict[str, t.Any]


class Site:
    """The directories below ``root``, and the parameters of module preflight_info for them."""

    def __init__(self, root: pathlib.Path, tiny: pathlib.Path) -> None:
        self.root = root
        self.source, self.base = root / "source", tiny / "base"
        self.home = root / "node"
        self.models, self.store = self.home / "models", self.home / ".lorafleet"
        self.models.mkdir(parents=True)
        for name, (kind, _rank) in ADAPTERS.items():
            shutil.copytree(tiny / kind, self.source / name)
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.rows = [self.row(name, rank) for name, (_kind, rank) in ADAPTERS.items()]
        self.bases: Params = {BASE: {"path": str(self.base)}}

    @staticmethod
    def row(name: str, rank: int, **more: t.Any) -> Params:
        optional = dict.fromkeys(("target_modules", "peft_config", "extra_files"))
        return {"name": name, "base": BASE, "rank": rank, "alpha": 32.0, "allow_pickle": False, **optional, **more}

    def source_params(self, **changes: t.Any) -> Params:
        return {
            "part": "source",
            "adapters": self.rows,
            "bases": self.bases,
            "models_dir": str(self.source),
            "cache_dir": str(self.root / "cache"),
            "golden_dir": str(self.root / "goldens"),
            "link_dirs": [],
            "require_golden": False,
            "python": None,
            **TRANSFER,
            **changes,
        }

    def node_params(self, **changes: t.Any) -> Params:
        described = check_source(self.source_params(), str(self.scratch))
        return {
            "part": "node",
            "adapters": self.rows,
            "bases": self.bases,
            "models_dir": str(self.models),
            "store": str(self.store),
            "manifests": [manifest.to_text() for manifest in described.manifests],
            "source_directories": described.directories,
            "tokenizer_classes": described.tokenizer_classes,
            "source_checks": described.checklist.to_json(),
            "owner": None,
            "group": None,
            "file_mode": "0644",
            "directory_mode": "0755",
            "signed": [],
            "snapshot": None,
            "engines": None,
            "engine_policy": "enforce",
            "activation": "auto",
            "keep": 3,
            "python": tiny_adapters.PEFT_PYTHON,
            "device": "cpu",
            "memory_limit": None,
            "level": "structure",
            "minimum_level": None,
            "base_binding": "enforce",
            "user": OWN_USER if changes.get("level", "structure") != "structure" else None,
            **TRANSFER,
            **changes,
        }

    def check_source(self, **changes: t.Any) -> Found:
        return Found(check_source(self.source_params(**changes), str(self.scratch)).checklist)

    def check_node(self, probe: bool = True, **changes: t.Any) -> Found:
        return Found(check_node(self.node_params(**changes), str(self.scratch), probe).checklist)


class Found:
    """The checks of one preflight."""

    def __init__(self, checklist: Checklist) -> None:
        self.checks = checklist.checks

    def all(self, check: str) -> list[Check]:
        return [one for one in self.checks if one.check == check]

    def one(self, check: str) -> Check:
        """The only entry of a check."""
        (found,) = self.all(check)
        return found

    def states(self) -> dict[str, str]:
        return {one.check: one.state for one in self.checks}

    def failed(self) -> set[str]:
        return {one.check for one in self.checks if one.state == "failed"}


def as_user(uid: int, call: t.Callable[[], Found]) -> dict[str, str]:
    """Return the states of a preflight that another user makes."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(write, json.dumps(call().states()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    states: dict[str, str] = json.loads(answer)
    return states
