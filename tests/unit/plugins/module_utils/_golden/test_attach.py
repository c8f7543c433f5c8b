# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.attach import attach_golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden, golden_path

from tests.support.releases import NAME, manifest_of, release_of

BASE = {"weights": "0a1b"}


def write_golden(directory: pathlib.Path, version: int) -> Golden:
    answer = {"on": [[[-1.0, -2.0]]], "off": [[[-2.0, -1.0]]]}
    recorded = {"versions": {"peft": "0.21.2", "torch": "2.13.0"}}
    limits = dict(PERMITTED)
    questions = [{"tokens": [[1, 2]]}]
    golden = Golden(NAME, manifest_of(version).digest, "", BASE, recorded, questions, answer, {}, limits)
    path = golden_path(str(directory), NAME, release_of(version))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(path, golden.to_json())
    return golden


def test_attach_golden_adds_golden_base_and_versions(tmp_path: pathlib.Path) -> None:
    golden = write_golden(tmp_path, 1)
    manifest, state, problem = attach_golden(manifest_of(1), str(tmp_path), None)
    assert (state, problem) == ("recorded", None)
    assert (manifest.golden, manifest.base) == (golden.to_json(), BASE)
    # The versions that the adapter states itself win.
    assert manifest.versions == {"peft": "0.18.0", "torch": "2.13.0"}
    assert manifest.digest == manifest_of(1).digest


def test_attach_golden_prefers_identity_of_base_on_this_host(tmp_path: pathlib.Path) -> None:
    write_golden(tmp_path, 1)
    here = {"weights": "ffff"}
    assert attach_golden(manifest_of(1), str(tmp_path), here)[0].base == here


@pytest.mark.parametrize(
    ("versions", "state", "text"),
    [
        ([], "none", "has no golden."),
        ([2], "stale", f"has a stale golden: it belongs to release {release_of(2)}, not to {release_of(1)}."),
    ],
)
def test_attach_golden_without_own_golden_returns_problem(
    tmp_path: pathlib.Path, versions: list[int], state: str, text: str
) -> None:
    for version in versions:
        write_golden(tmp_path, version)
    manifest, found, problem = attach_golden(manifest_of(1), str(tmp_path), BASE)
    assert (manifest.golden, manifest.base, found) == (None, BASE, state)
    assert str(problem) == f"adapter {NAME}: {text} Record one on the training server with adapter_golden."


def test_attach_golden_of_damaged_golden_raises(tmp_path: pathlib.Path) -> None:
    write_golden(tmp_path, 1)
    pathlib.Path(golden_path(str(tmp_path), NAME, release_of(1))).write_text("{", encoding="utf-8")
    with pytest.raises(DeliveryError, match="cannot be read"):
        attach_golden(manifest_of(1), str(tmp_path), None)
