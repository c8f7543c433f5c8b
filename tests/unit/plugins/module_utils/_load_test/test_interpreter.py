# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of an interpreter and the digest of its environment."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._hashing import digest_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.interpreter import PACKAGES, facts, library_versions
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker import nvidia

from tests.support.tiny_adapters import PEFT_PYTHON


def test_library_versions_lists_python_and_packages() -> None:
    versions = library_versions(PEFT_PYTHON)
    assert set(versions) == {"python", *PACKAGES}
    assert all(version[0].isdigit() for version in versions.values())


def test_facts_contain_driver_and_gpus(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "PROC", str(tmp_path))
    versions = {"python": "3.12.3"}
    without = facts(versions, "cuda")
    assert (without["driver"], without["gpus"]) == ([], [])
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 78\n", encoding="utf-8")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX  570.86  Release\nGCC version: 13\n", encoding="utf-8")
    with_one = facts(versions, "cuda")
    assert with_one["gpus"] == ["Model: NVIDIA H200"]
    assert with_one["driver"] == ["NVRM version: NVIDIA UNIX 570.86 Release"]
    on_cpu = facts(versions, "cpu")
    assert "gpus" not in on_cpu
    assert len({digest_of(found) for found in (without, with_one, on_cpu)}) == 3
