# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A case to test: the plain adapter with its base."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths


@pytest.fixture
def case(adapter: pathlib.Path, declare: t.Callable[..., Declaration], tiny: pathlib.Path, tmp_path: pathlib.Path) -> Case:
    """The plain adapter without a receipt. It has to reach level model on the base of this host."""
    declared = declare()
    manifest = describe(str(adapter), declared, {}, str(tmp_path / "cache")).manifest
    return Case(
        declared=declared,
        base={"path": str(tiny / "base"), "config": declared.base_config},
        paths=AdapterPaths(str(tmp_path / "models"), str(tmp_path / "store"), declared.name),
        manifest=manifest,
        required="model",
        minimum="model",
        golden=None,
        directory=str(adapter),
        base_digest="base",
        receipt=None,
    )


@pytest.fixture
def pickle_case(case: Case) -> Case:
    """The case with its weights file renamed to that of a pickle."""
    weights = pathlib.Path(str(case.directory), "adapter_model.safetensors")
    pickled = weights.with_name("adapter_model.bin")
    weights.rename(pickled)
    files = tuple(
        dataclasses.replace(entry, path=pickled.name) if entry.path == weights.name else entry for entry in case.manifest.files
    )
    manifest = dataclasses.replace(case.manifest, files=tuple(sorted(files, key=lambda entry: entry.path)))
    return dataclasses.replace(case, manifest=manifest)
