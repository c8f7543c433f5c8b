# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Estimates of memory, and reading files of /proc."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.device import (
    GIB,
    adapter_need,
    first_match,
    model_need,
    shortage,
)


def test_model_need_follows_the_dtypes() -> None:
    # The 8B base in bfloat16, with an adapter of rank 32 in float32.
    assert model_need(16 * GIB, "bfloat16", "bfloat16", GIB // 3) == 16 * GIB + 2 * (GIB // 3) + GIB
    assert model_need(16 * GIB, "bfloat16", "float32", 0) == 33 * GIB
    # A base in a wider dtype needs that much while it is read.
    assert model_need(16 * GIB, "float32", "bfloat16", 0) == 17 * GIB
    assert model_need(16 * GIB, "None", "float32", 0) == 17 * GIB
    # Level adapter needs less than 1 GB for the largest adapter of the first fleet.
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
def test_shortage_names_need_and_free_or_permitted_memory(
    need: int, free: int | None, limit: int | None, reason: str | None
) -> None:
    assert shortage("the base", need, free, limit, "cuda:0") == reason


def test_first_match_without_file_is_none(tmp_path: pathlib.Path) -> None:
    assert first_match(str(tmp_path / "none"), "(.*)") is None
