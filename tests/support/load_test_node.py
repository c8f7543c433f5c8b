# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node on which module adapter_load_test tests two adapters."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths, make_store
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import read_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import State, write_state

from tests.support.tiny_adapters import PEFT_PYTHON

# Names of the adapters on the node, each with its tiny adapter and rank.
ADAPTERS = {"grammar.3b_lora": ("adapter", 16), "grammar.8b_lora": ("adapter_b", 32)}
BASE = "tiny/Llama-64"

# No throw-away user of a load test could enter the directories of tests, which pytest makes.
OWN_USER = pwd.getpwuid(os.geteuid()).pw_name

Options = t.Dict[str, t.Any]


class LoadTestNode:
    """A models directory and a store, and the options of adapter_load_test for them."""

    def __init__(self, tmp_path: pathlib.Path, tiny: pathlib.Path) -> None:
        self.tmp_path = tmp_path
        self.models, self.store = tmp_path / "models", tmp_path / "store"
        self.models.mkdir()
        self.base = tiny / "base"
        self.rows = [{"name": name, "base": BASE, "rank": rank, "alpha": 32} for name, (_kind, rank) in ADAPTERS.items()]
        self.manifests = [self.describe(tiny / kind, row) for row, (kind, _rank) in zip(self.rows, ADAPTERS.values())]
        self.directories = {name: tiny / kind for name, (kind, _rank) in ADAPTERS.items()}

    def describe(self, source: pathlib.Path, row: Options) -> Manifest:
        """Return the manifest of an adapter directory."""
        complete = {"target_modules": None, "peft_config": None, "extra_files": None, "allow_pickle": False, **row}
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        declared = Declaration.from_row(complete, {"config": config})
        return describe(str(source), declared, {}, str(self.tmp_path / "cache" / row["name"])).manifest

    def paths(self, name: str) -> AdapterPaths:
        return AdapterPaths(str(self.models), str(self.store), name)

    def stage(self) -> None:
        """Stage all releases as adapter_sync does."""
        for manifest in self.manifests:
            paths = self.paths(manifest.name)
            make_store(paths)
            staged = pathlib.Path(paths.staged(manifest.release))
            staged.mkdir()
            for entry in manifest.files:
                shutil.copy(self.directories[manifest.name] / entry.path, staged / entry.path)

    def activate(self) -> None:
        """Make all staged releases active."""
        for manifest in self.manifests:
            paths = self.paths(manifest.name)
            os.rename(paths.staged(manifest.release), paths.release(manifest.release))
            write_json(paths.manifest(manifest.release), manifest.to_json())
            write_state(paths, State().activated(manifest.release, "exchange"))

    def options(self, **changes: t.Any) -> Options:
        """Return the module's options for both adapters."""
        return {
            "adapters": self.rows,
            "bases": {BASE: {"path": str(self.base)}},
            "models_dir": str(self.models),
            "store": str(self.store),
            "python": PEFT_PYTHON,
            "device": "cpu",
            "user": OWN_USER,
            "manifests": [manifest.to_text() for manifest in self.manifests],
            **changes,
        }

    def receipts(self) -> list[Options | None]:
        return [read_receipt(self.paths(manifest.name), manifest.release) for manifest in self.manifests]


def of_all(result: Options, key: str) -> list[t.Any]:
    """Return one value of each adapter of a result."""
    return [adapter[key] for adapter in result["adapters"]]
