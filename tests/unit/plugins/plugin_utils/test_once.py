# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from ansible import constants as C
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._once import once_a_run


@pytest.fixture(autouse=True)
def _run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))


def never() -> None:
    raise AssertionError("is computed again")


def test_once_a_run_value_is_computed_for_first_caller_only() -> None:
    assert once_a_run("fleet", {"a": [1]}, lambda: {"nodes": ["ü"]}) == {"nodes": ["ü"]}
    assert once_a_run("fleet", {"a": [1]}, never) == {"nodes": ["ü"]}


def test_once_a_run_other_subject_or_key_is_computed_again() -> None:
    once_a_run("fleet", 1, lambda: "one")
    assert once_a_run("fleet", 2, lambda: "two") == "two"
    assert once_a_run("agents", 1, lambda: "three") == "three"


def test_once_a_run_failure_is_not_repeated_for_others() -> None:
    with pytest.raises(ZeroDivisionError):
        once_a_run("fleet", 1, lambda: 1 // 0)
    assert once_a_run("fleet", 1, never) is None
    assert once_a_run("fleet", 2, lambda: None) is once_a_run("fleet", 2, never) is None
