# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory with signed statements, as the action plugins read it."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_formats import MAX_SIGNATURE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.statement import MAX_BYTES
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signature_files import SignatureFiles, with_signed

from tests.support.releases import NAME, manifest_of, release_of

ARGUMENTS = {"manifests": [manifest_of(version).to_text() for version in (1, 2)], "store": "/store"}


@pytest.fixture
def files(tmp_path: pathlib.Path) -> SignatureFiles:
    found = SignatureFiles(str(tmp_path), NAME, release_of(1))
    pathlib.Path(found.directory).mkdir()
    pathlib.Path(found.text).write_text("statement", encoding="utf-8")
    for signer in ("b", "a", "json"):
        pathlib.Path(found.signature(signer)).write_text(f"signature {signer}", encoding="utf-8")
    return found


def test_with_signed_adds_statements_with_their_signatures(files: SignatureFiles, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME / f"{release_of(2)}.a.sig").write_text("of no statement", encoding="utf-8")
    arguments = {**ARGUMENTS, "signatures": str(tmp_path)}
    signatures = ["signature a", "signature b", "signature json"]
    expected = [{"adapter": NAME, "statement": "statement", "signatures": signatures}]
    assert with_signed(arguments) == {**arguments, "signed": expected, "snapshot": None}
    (tmp_path / "fleet.json").write_text("snapshot", encoding="utf-8")
    (tmp_path / "fleet.c.sig").write_text("signature c", encoding="utf-8")
    assert with_signed(arguments)["snapshot"] == {"statement": "snapshot", "signatures": ["signature c"]}
    assert files.read() == {"statement": "statement", "signatures": signatures}


@pytest.mark.parametrize("arguments", [ARGUMENTS, {**ARGUMENTS, "signatures": ""}, {**ARGUMENTS, "signatures": None}])
def test_with_signed_without_directory_adds_nothing(arguments: dict[str, object]) -> None:
    assert with_signed(arguments) == arguments


def test_with_signed_with_missing_directory_is_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DeliveryError, match="which is no directory on the controller"):
        with_signed({**ARGUMENTS, "signatures": str(tmp_path / "none")})


def test_with_signed_of_home_directory_is_read(
    files: SignatureFiles, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    [found] = with_signed({**ARGUMENTS, "signatures": "~"})["signed"]
    assert {"adapter": NAME, **(files.read() or {})} == found


def test_with_signed_reads_a_manifest_once_a_run(
    files: SignatureFiles, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {**ARGUMENTS, "signatures": str(tmp_path)}
    found = with_signed(arguments)

    def no_text(_text: str) -> Manifest:
        raise AssertionError

    monkeypatch.setattr(Manifest, "from_text", no_text)
    assert with_signed(arguments) == found


def test_with_signed_of_text_that_is_no_manifest_is_error_in_each_task(tmp_path: pathlib.Path) -> None:
    for _task in range(2):
        with pytest.raises(DeliveryError, match="manifest: "):
            with_signed({"manifests": ["{}"], "signatures": str(tmp_path)})


def test_read_passes_on_no_more_than_a_node_reads(files: SignatureFiles) -> None:
    pathlib.Path(files.text).write_bytes(b"x" * (1 << 20))
    pathlib.Path(files.signature("a")).write_bytes(b"x" * (1 << 20))
    found = files.read()
    assert found is not None
    assert len(found["statement"]) == MAX_BYTES + 1
    assert len(found["signatures"][0]) == MAX_SIGNATURE + 1


def test_read_of_directory_in_place_of_a_file_is_error(files: SignatureFiles) -> None:
    pathlib.Path(files.signature("a")).unlink()
    pathlib.Path(files.signature("a")).mkdir()
    with pytest.raises(DeliveryError, match=r"cannot be read: Is a directory\. Restore it from git\."):
        files.read()


def test_read_of_too_many_signatures_is_error(files: SignatureFiles) -> None:
    for number in range(14):
        pathlib.Path(files.signature(str(number))).touch()
    with pytest.raises(DeliveryError, match="has 17 signatures; at most 16 are read"):
        files.read()
