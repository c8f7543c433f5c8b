# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths

from tests.support.releases import manifest_of


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> AdapterPaths:
    return AdapterPaths(str(tmp_path / "models"), str(tmp_path / "store"), "name")


def test_paths_of_adapter() -> None:
    paths = AdapterPaths("/home/models", "/home/.lorafleet", "name")
    assert paths.served == "/home/models/name"
    assert paths.release("0123456789ab") == "/home/.lorafleet/name/releases/0123456789ab"
    assert paths.staged("0123456789ab") == "/home/.lorafleet/name/staging/0123456789ab"
    assert paths.manifest("0123456789ab") == "/home/.lorafleet/name/manifests/0123456789ab.json"
    assert paths.receipt("0123456789ab") == "/home/.lorafleet/name/receipts/0123456789ab.json"
    assert paths.state == "/home/.lorafleet/name/state.json"
    assert paths.lock == "/home/.lorafleet/name/lock"


@pytest.mark.parametrize("name", ["", ".", "..", "../models", "/etc", "a/b", ".hidden", "-rf"])
def test_paths_of_hostile_name_is_error(name: str) -> None:
    with pytest.raises(DeliveryError, match="is not a valid name"):
        AdapterPaths("/home/models", "/home/.lorafleet", name)


def test_release_names_ignore_other_entries(paths: AdapterPaths) -> None:
    assert paths.release_names() == []
    for name in ("bbbbbbbbbbbb", "aaaaaaaaaaaa", "incoming-aaaaaaaaaaaa", "lost+found", ".cccccccccccc", "AAAAAAAAAAAA"):
        os.makedirs(paths.release(name))
    assert paths.release_names() == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]


def test_read_manifest_returns_stored_manifest(paths: AdapterPaths) -> None:
    manifest = manifest_of(1, "name")
    os.makedirs(paths.manifests)
    assert paths.read_manifest(manifest.release) is None
    write_json(paths.manifest(manifest.release), manifest.to_json())
    assert paths.read_manifest(manifest.release) == manifest


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b"null\0", b"{}", b'{"schema": 1}'])
def test_read_manifest_damaged_is_error_with_remedy(paths: AdapterPaths, damage: bytes) -> None:
    os.makedirs(paths.manifests)
    pathlib.Path(paths.manifest("0123456789ab")).write_bytes(damage)
    with pytest.raises(DeliveryError) as caught:
        paths.read_manifest("0123456789ab")
    assert caught.value.problems[0].remedy


def test_read_manifest_with_wrong_digest_is_error(paths: AdapterPaths) -> None:
    manifest = manifest_of(1, "name")
    os.makedirs(paths.manifests)
    write_json(paths.manifest(manifest.release), {**manifest.to_json(), "digest": manifest_of(2).digest})
    with pytest.raises(DeliveryError, match="was changed after it was made"):
        paths.read_manifest(manifest.release)
