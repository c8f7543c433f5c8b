# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an interpreter is found to have."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import digest_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test import interpreter
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import (
    PACKAGES,
    environment,
    library_versions,
)

from tests.support.tiny_adapters import PEFT_PYTHON


def test_versions_come_without_an_import() -> None:
    versions = library_versions(PEFT_PYTHON)
    assert set(versions) == {"python", *PACKAGES}
    assert all(version[0].isdigit() for version in versions.values())


def test_the_environment_knows_the_gpus(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_NVIDIA", str(tmp_path))
    without = environment(PEFT_PYTHON, "cuda")
    assert (without["driver"], without["gpus"]) == ([], [])
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 78\n", encoding="utf-8")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX  570.86  Release\nGCC version: 13\n", encoding="utf-8")
    with_one = environment(PEFT_PYTHON, "cuda")
    assert with_one["gpus"] == ["Model: NVIDIA H200"]
    assert with_one["driver"] == ["NVRM version: NVIDIA UNIX 570.86 Release"]
    on_cpu = environment(PEFT_PYTHON, "cpu")
    assert "gpus" not in on_cpu
    assert len({digest_of(found) for found in (without, with_one, on_cpu)}) == 3
