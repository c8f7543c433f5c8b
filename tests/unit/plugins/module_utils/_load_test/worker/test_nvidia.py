# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the NVIDIA driver and nvidia-smi report."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker import nvidia
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.nvidia import (
    driver_lines,
    driver_version,
    freest,
    parse_free_memory,
)

# As nvidia-smi --query-gpu=uuid,memory.free --format=csv,noheader,nounits prints it.
LISTING = """GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000001, 1024
GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000002, 81000
GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000003, [N/A]
"""
ONE, TWO, THREE = (f"5e9a1f7c-0b0d-4b8e-9c1a-00000000000{number}" for number in (1, 2, 3))


def test_parse_free_memory_reads_the_listing() -> None:
    assert parse_free_memory(LISTING) == {ONE: 1 << 30, TWO: 81000 << 20}
    assert (
        parse_free_memory("") == parse_free_memory("NVIDIA-SMI has failed because it couldn't communicate with the driver") == {}
    )


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        ([ONE, TWO, THREE], 1),
        # In any order, and with only some of them visible.
        ([TWO, ONE], 0),
        ([THREE, ONE], 1),
        ([ONE], 0),
        # Without figures from the driver, the first one is chosen.
        ([THREE, "unknown"], 0),
        (["", ""], 0),
    ],
)
def test_freest_chooses_most_free_memory(visible: list[str], index: int) -> None:
    assert freest(visible, parse_free_memory(LISTING)) == index


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 30 2026",
        # The open kernel modules, which newer GPUs need.
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)",
    ],
)
def test_driver_version_finds_the_version(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(nvidia, "PROC", str(tmp_path))
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 13.2.0\n", encoding="utf-8")
    assert driver_version() == "570.86.15"


def test_driver_version_without_driver_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "PROC", str(tmp_path / "none"))
    assert (driver_lines(), driver_version()) == ([], None)
