# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Estimates of memory and the choice of a GPU: plain functions of what the driver says."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.device import (
    GIB,
    adapter_need,
    driver_version,
    first_match,
    free_by_uuid,
    freest,
    model_need,
    shortage,
)

# As nvidia-smi --query-gpu=uuid,memory.free --format=csv,noheader,nounits prints it.
LISTING = """GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000001, 1024
GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000002, 81000
GPU-5e9a1f7c-0b0d-4b8e-9c1a-000000000003, [N/A]
"""
ONE, TWO, THREE = (f"5e9a1f7c-0b0d-4b8e-9c1a-00000000000{number}" for number in (1, 2, 3))


def test_what_the_driver_says_is_read() -> None:
    assert free_by_uuid(LISTING) == {ONE: GIB, TWO: 81000 << 20}
    assert free_by_uuid("") == free_by_uuid("NVIDIA-SMI has failed because it couldn't communicate with the driver") == {}


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        ([ONE, TWO, THREE], 1),
        # In whatever order torch sees them, and where it sees only some.
        ([TWO, ONE], 0),
        ([THREE, ONE], 1),
        ([ONE], 0),
        # Where the driver tells nothing the first one is taken.
        ([THREE, "unknown"], 0),
        (["", ""], 0),
    ],
)
def test_the_freest_gpu_is_chosen(visible: list[str], index: int) -> None:
    assert freest(visible, free_by_uuid(LISTING)) == index


def test_the_need_of_a_base_follows_its_dtypes() -> None:
    # The 8B base in bfloat16, with the adapter of rank 32 in float32.
    assert model_need(16 * GIB, "bfloat16", "bfloat16", GIB // 3) == 16 * GIB + 2 * (GIB // 3) + GIB
    assert model_need(16 * GIB, "bfloat16", "float32", 0) == 33 * GIB
    # Stored wider than it is loaded, it is that wide while it is read.
    assert model_need(16 * GIB, "float32", "bfloat16", 0) == 17 * GIB
    assert model_need(16 * GIB, "None", "float32", 0) == 17 * GIB
    # Level adapter takes less than a gigabyte for the greatest adapter of the first fleet.
    assert adapter_need(83886080) < 10**9


@pytest.mark.parametrize(
    ("need", "free", "limit", "reason"),
    [
        (2 * GIB, 3 * GIB, None, None),
        (2 * GIB, 2 * GIB, 2 * GIB, None),
        (2 * GIB, None, None, None),
        (3 * GIB, 2 * GIB, None, "the base does not fit: it needs 3.0 GiB of memory on cuda:0, 2.0 GiB are free."),
        (3 * GIB, 9 * GIB, 2 * GIB, "the base does not fit: it needs 3.0 GiB of memory on cuda:0, 2.0 GiB are permitted."),
        (3 * GIB, None, 2 * GIB, "the base does not fit: it needs 3.0 GiB of memory on cuda:0, 2.0 GiB are permitted."),
    ],
)
def test_what_does_not_fit_is_said(need: int, free: int | None, limit: int | None, reason: str | None) -> None:
    assert shortage("the base", need, free, limit, "cuda:0") == reason


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 30 2026",
        # The open kernel modules, which newer GPUs need.
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)",
    ],
)
def test_the_version_of_the_driver_is_found(tmp_path: pathlib.Path, line: str) -> None:
    path = tmp_path / "version"
    path.write_text(f"{line}\nGCC version:  gcc version 13.2.0\n", encoding="utf-8")
    assert driver_version(str(path)) == "570.86.15"


def test_where_there_is_no_file_nothing_is_found(tmp_path: pathlib.Path) -> None:
    assert driver_version(str(tmp_path / "none")) is None
    assert first_match(str(tmp_path / "none"), "(.*)") is None
