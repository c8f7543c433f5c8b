# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node on which one adapter is active and verified."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._levels import LEVELS
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.attempt import Attempt
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import find_cases
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import read_environment
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import make_store
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions, Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._up_to_date import check_up_to_date

from tests.support import tiny_adapters
from tests.support.load_test_node import OWN_USER
from tests.support.transactions import Node

NAME = "adapter"


class Served(Node):
    """A node on which the plain adapter is active, verified at level structure."""

    def __init__(self, base: pathlib.Path, tiny: pathlib.Path, declared: Declaration) -> None:
        super().__init__(base, NAME)
        self.tiny, self._declared = tiny, declared
        self.manifest = self.describe(NAME)
        self.params: dict[str, t.Any] = {
            "adapters": [
                {"name": NAME, "base": declared.base, "rank": 16, "alpha": 32}
                | {"target_modules": None, "peft_config": None, "extra_files": None, "allow_pickle": False}
            ],
            "bases": {declared.base: {"path": str(tiny / "base")}},
            "manifests": [self.manifest.to_text()],
            "models_dir": str(self.models),
            "store": str(self.store),
            "python": tiny_adapters.PEFT_PYTHON,
            "device": "cpu",
            "level": "structure",
            "minimum_level": None,
            "base_binding": "enforce",
            "user": OWN_USER,
            "activation": "auto",
            "keep": 3,
            "owner": None,
            "group": None,
            "file_mode": "0644",
            "directory_mode": "0755",
        }
        self.deliver(NAME, self.manifest)
        self.warnings: list[str] = []

    def describe(self, kind: str) -> Manifest:
        source = self.base / "source" / NAME
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(self.tiny / kind, source)
        return describe(str(source), self._declared, {}, str(self.base / "cache")).manifest

    def deliver(self, kind: str, manifest: Manifest) -> None:
        make_store(self.paths)
        staged = pathlib.Path(self.paths.staged(manifest.release))
        staged.mkdir()
        for entry in manifest.files:
            shutil.copy(self.tiny / kind / entry.path, staged / entry.path)
        self.verify("structure", manifest)
        self.carry_out_all([Request(self.paths, manifest=manifest)], level="structure")

    def verify(self, level: str, manifest: Manifest) -> None:
        """Write the receipt that a load test would write."""
        options = LoadTestOptions.from_params({**self.params, "manifests": [manifest.to_text()], "level": level})
        [case], _problems = find_cases(options)
        digest = None if level == "structure" else read_environment(options.python, "cpu", None, print).digest
        Attempt(case, LoadTestResult(level=level)).write_receipt(digest)

    def check(self, **params: t.Any) -> list[dict[str, t.Any]]:
        params = {**self.params, **params}
        activation = ActivationOptions(LEVELS[0], params["activation"], params["keep"], permissions_of(params))
        return check_up_to_date(LoadTestOptions.from_params(params), activation, self.warnings.append)
