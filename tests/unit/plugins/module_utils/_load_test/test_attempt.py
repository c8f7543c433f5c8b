# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing, reading and withdrawing receipts."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.attempt import Attempt, describe_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.worker.protocol import LoadTestResult
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import read_receipt


def test_write_receipt_is_read_back_and_withdrawn(case: Case) -> None:
    versions = {"torch": "2.13.0", "peft": "0.21.2"}
    result = LoadTestResult(level="model", device="cpu", device_name="a CPU", versions=versions, notes=["something to know"])
    assert describe_receipt(case.receipt) == "not tested"
    attempt = Attempt(case, result)
    attempt.write_receipt("here")
    case = dataclasses.replace(case, receipt=read_receipt(case.paths, case.manifest.release))
    assert case.receipt is not None
    assert describe_receipt(case.receipt) == "level model cpu a CPU peft 0.21.2 torch 2.13.0"
    assert LoadTestResult.from_receipt(case.receipt) == result
    assert case.has_valid_receipt("model", "here")
    attempt.withdraw_receipt()
    assert read_receipt(case.paths, case.manifest.release) is None


def test_write_receipt_keeps_the_keys_on_disk(case: Case) -> None:
    Attempt(case, LoadTestResult(level="model", limited_by="the reason")).write_receipt("here")
    written = json.loads(pathlib.Path(case.paths.receipt(case.manifest.release)).read_text(encoding="utf-8"))
    assert set(written) == {
        *("schema", "name", "release", "at", "level", "device", "device_name", "capability", "dtype", "versions", "checks"),
        *("load_seconds", "peak_memory_bytes", "effect", "distances", "permitted", "notes", "why_not_more", "isolation"),
        *("environment", "base", "golden"),
    }
    assert written["why_not_more"] == "the reason"
    assert (read_receipt(case.paths, case.manifest.release) or {})["limited_by"] == "the reason"


def test_receipt_in_unwritable_store_is_an_error(case: Case, tmp_path: pathlib.Path) -> None:
    (tmp_path / "store").write_text("no directory", encoding="utf-8")
    attempt = Attempt(case, LoadTestResult(level="model"))
    with pytest.raises(DeliveryError, match=r"passed, but its receipt cannot be written: .*Run with become"):
        attempt.write_receipt("here")
    # If it stayed, it would let the failed release pass the next time.
    with pytest.raises(DeliveryError, match=r"failed, but its earlier receipt cannot be removed: .*Run with become"):
        attempt.withdraw_receipt()
