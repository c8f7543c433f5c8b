# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that are made of a directory of signatures, with real keys."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import SNAPSHOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.snapshot import read_snapshot
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.ssh_signatures import SshSignatures, Verified
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import Trust, read_trust
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.signature_files import SignatureFiles, snapshot_files
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._signing.snapshots import sign_snapshot, snapshot_of

from tests.support.releases import NAME, manifest_of
from tests.support.signing import DAY, FLEET, NOW, Keys, signer_line, statement_about, write_trust

OTHER = "other_lora"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> str:
    (tmp_path / "signatures").mkdir()
    return str(tmp_path / "signatures")


def trust_of(base: pathlib.Path, keys: Keys, threshold: int = 1) -> Trust:
    lines = "".join(signer_line(name, keys.public(name)) for name in ("alice", "bob"))
    daily = signer_line("daily", keys.public("daily"), namespace=SNAPSHOT_NAMESPACE)
    found = read_trust(write_trust(base, lines, snapshot_signers=daily, threshold=threshold, snapshot_hours=30))
    assert found is not None
    return found


def write(directory: str, keys: Keys, version: int, serial: int, *signers: str, name: str = NAME, fleet: str = FLEET) -> None:
    statement = statement_about(manifest_of(version, name), serial, fleet=fleet)
    files = SignatureFiles(directory, name, manifest_of(version, name).release)
    os.makedirs(files.directory, exist_ok=True)
    pathlib.Path(files.text).write_bytes(statement.to_bytes())
    for signer in signers:
        pathlib.Path(files.signature(signer)).write_bytes(keys.sign(statement.to_bytes(), signer))


def test_snapshot_names_the_newest_statements_that_count(keys: Keys, directory: str, tmp_path: pathlib.Path) -> None:
    write(directory, keys, 1, 1, "alice", "bob")
    write(directory, keys, 2, 2, "alice", "bob")
    write(directory, keys, 3, 3, "alice")
    write(directory, keys, 4, 4, "alice", "mallory")
    write(directory, keys, 1, 5, "alice", "bob", name=OTHER)
    write(directory, keys, 2, 6, "alice", "bob", name=OTHER, fleet="production")
    trust = trust_of(tmp_path, keys, threshold=2)
    assert snapshot_of(directory, trust, NOW).adapters == {
        NAME: (2, manifest_of(2).digest),
        OTHER: (5, manifest_of(1, OTHER).digest),
    }
    assert snapshot_of(directory, trust_of(tmp_path, keys), NOW).adapters[NAME] == (4, manifest_of(4).digest)


def test_sign_snapshot_replaces_the_one_before(keys: Keys, directory: str, tmp_path: pathlib.Path) -> None:
    trust, files = trust_of(tmp_path, keys), snapshot_files(directory)
    write(directory, keys, 1, 1, "alice")
    for now in (NOW, NOW + DAY):
        snapshot = snapshot_of(directory, trust, now)
        assert sign_snapshot(snapshot, directory, keys.private("daily"), trust) == "daily"
        written = files.read()
        assert written is not None
        assert read_snapshot(written["statement"].encode()) == snapshot
        [signature] = written["signatures"]
        with SshSignatures(trust.snapshot_signers, b"", now, SNAPSHOT_NAMESPACE) as ssh:
            assert isinstance(ssh.verify(snapshot.to_bytes(), signature.encode()), Verified)


def test_sign_snapshot_by_another_key_writes_nothing(keys: Keys, directory: str, tmp_path: pathlib.Path) -> None:
    trust = trust_of(tmp_path, keys)
    with pytest.raises(DeliveryError, match="which this node does not know"):
        sign_snapshot(snapshot_of(directory, trust, NOW), directory, keys.private("alice"), trust)
    assert os.listdir(directory) == []
