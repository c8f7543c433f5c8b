# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trust of a node: nothing counts that another user could have written."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.allowed_signers import SNAPSHOT_NAMESPACE
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing.trust import Policy, read_trust
from ansible_collections.lorafleet.delivery.plugins.module_utils._trust_place import PLACE, Place

from tests.support.signing import FLEET, Keys, root_lines, signer_line, write_trust


@pytest.fixture
def place(keys: Keys, tmp_path: pathlib.Path) -> Place:
    return write_trust(tmp_path, signer_line("alice", keys.public("alice")), f"{keys.public('bob')}\n".encode())


def test_place_of_nodes_is_of_root() -> None:
    assert Place("/etc/lorafleet/trust", 0) == PLACE


def test_read_trust_returns_policy_signers_and_revoked_keys(keys: Keys, place: Place) -> None:
    trust = read_trust(place)
    assert trust is not None
    assert trust.policy == Policy(FLEET, required=True, threshold=1, version=1)
    assert [(signer.name, signer.key) for signer in trust.signers] == [("alice", keys.public("alice"))]
    assert trust.revoked == f"{keys.public('bob')}\n".encode()


def test_read_trust_without_revoked_keys_has_none(place: Place) -> None:
    pathlib.Path(place.directory, "revoked_keys").unlink()
    trust = read_trust(place)
    assert trust is not None
    assert trust.revoked == b""


def test_read_trust_by_relative_path_is_that_of_working_directory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.path.dirname(place.directory))
    assert read_trust(Place("trust", None)) == read_trust(place)


def test_read_trust_where_nothing_was_set_up_is_none(tmp_path: pathlib.Path) -> None:
    assert read_trust(Place(str(tmp_path / "lorafleet" / "trust"), 0)) is None


@pytest.mark.parametrize("name", ["policy.json", "allowed_signers"])
def test_read_trust_without_a_file_is_error(place: Place, name: str) -> None:
    pathlib.Path(place.directory, name).unlink()
    with pytest.raises(DeliveryError, match=f"{name}: cannot be read: No such file"):
        read_trust(place)


@pytest.mark.parametrize("name", [".", "..", "policy.json", "allowed_signers", "revoked_keys"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_read_trust_that_others_may_write_is_error(place: Place, name: str, mode: int) -> None:
    path = pathlib.Path(place.directory, name)
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(DeliveryError, match="can be changed by others than root"):
        read_trust(place)


def test_read_trust_of_another_user_is_error(place: Place) -> None:
    with pytest.raises(DeliveryError, match="can be changed by others than root: it belongs to user"):
        read_trust(place._replace(owner=place.owner + 1))


@pytest.mark.parametrize("name", ["policy.json", "allowed_signers", "revoked_keys"])
def test_read_trust_through_a_link_is_error(place: Place, name: str) -> None:
    path = pathlib.Path(place.directory, name)
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))
    with pytest.raises(DeliveryError, match=f"{name}: cannot be read"):
        read_trust(place)


def test_read_trust_of_linked_directory_is_error(place: Place, tmp_path: pathlib.Path) -> None:
    (tmp_path / "trust").symlink_to(place.directory)
    with pytest.raises(DeliveryError, match="must be a directory of root"):
        read_trust(place._replace(directory=str(tmp_path / "trust")))


def test_read_trust_with_too_long_file_is_error(place: Place) -> None:
    pathlib.Path(place.directory, "allowed_signers").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(DeliveryError, match="has more than 1048576 bytes"):
        read_trust(place)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"more": 1}, "differs in more"),
        ({"version": None}, "a value for version"),
        ({"version": 0}, "a value for version"),
        ({"required": 1}, "neither true nor false"),
        ({"required": "true"}, "neither true nor false"),
        ({"threshold": 0}, "a value for threshold"),
        ({"threshold": True}, "a value for threshold"),
        ({"threshold": 17}, "a value for threshold"),
        ({"threshold": 2}, "names 1 signers, but 2 have to sign"),
        ({"certificate_days": 0}, "a value for certificate_days"),
        ({"fleet": "a/b"}, "not a valid name"),
    ],
)
def test_read_trust_with_another_policy_is_error(
    keys: Keys, tmp_path: pathlib.Path, change: dict[str, t.Any], words: str
) -> None:
    place = write_trust(tmp_path, signer_line("alice", keys.public("alice")), **change)
    with pytest.raises(DeliveryError, match=words):
        read_trust(place)


@pytest.mark.parametrize("text", ["", "[]", '{"required": true}', '{"required": true, "required": false}', "{"])
def test_read_trust_with_malformed_policy_is_error(place: Place, text: str) -> None:
    pathlib.Path(place.directory, "policy.json").write_text(text, encoding="utf-8")
    with pytest.raises(DeliveryError, match=r"policy\.json: "):
        read_trust(place)


def test_read_trust_counts_signers_not_keys(keys: Keys, tmp_path: pathlib.Path) -> None:
    lines = signer_line("alice", keys.public("alice")) + signer_line("alice", keys.public("second"))
    with pytest.raises(DeliveryError, match="names 1 signers, but 2"):
        read_trust(write_trust(tmp_path, lines, threshold=2))


def test_read_trust_returns_roots_and_their_threshold(keys: Keys, tmp_path: pathlib.Path) -> None:
    roots = root_lines(keys, "rita", "rosa")
    trust = read_trust(write_trust(tmp_path, signer_line("alice", keys.public("alice")), roots=roots, root_threshold=2))
    assert trust is not None
    assert ([root.name for root in trust.roots], trust.policy.root_threshold) == (["rita", "rosa"], 2)


@pytest.mark.parametrize(
    ("people", "policy", "words"),
    [
        (["rita"], {}, "lacks the key root_threshold"),
        (None, {"root_threshold": 1}, "lacks the file roots"),
        (None, {"snapshot_hours": 30}, "lacks the file snapshot_signers"),
        (["rita"], {"root_threshold": None}, "a value for root_threshold"),
        (["rita"], {"root_threshold": 0}, "a value for root_threshold"),
        (["rita"], {"root_threshold": 2}, "roots: names 1 roots, but 2 have to sign each version"),
    ],
)
def test_read_trust_with_other_roots_is_error(
    keys: Keys, tmp_path: pathlib.Path, people: t.Optional[list[str]], policy: dict[str, t.Any], words: str
) -> None:
    roots = None if people is None else root_lines(keys, *people)
    with pytest.raises(DeliveryError, match=words):
        read_trust(write_trust(tmp_path, signer_line("alice", keys.public("alice")), roots=roots, **policy))


def test_read_trust_with_snapshots_of_unsigned_releases_is_error(keys: Keys, tmp_path: pathlib.Path) -> None:
    line = signer_line("alice", keys.public("alice"))
    daily = signer_line("daily", keys.public("daily"), namespace=SNAPSHOT_NAMESPACE)
    with pytest.raises(DeliveryError, match="unsigned releases are accepted"):
        read_trust(write_trust(tmp_path, line, snapshot_signers=daily, required=False, snapshot_hours=30))
    with pytest.raises(DeliveryError, match="lacks the key snapshot_hours"):
        read_trust(write_trust(tmp_path, line, snapshot_signers=daily))
    with pytest.raises(DeliveryError, match="snapshot_signers: names 0 signers, but 1 have to sign each snapshot"):
        read_trust(write_trust(tmp_path, line, snapshot_signers="", snapshot_hours=30))


def test_read_trust_with_signers_as_roots_is_error(keys: Keys, tmp_path: pathlib.Path) -> None:
    line = signer_line("alice", keys.public("alice"))
    with pytest.raises(DeliveryError, match='roots: line 1 lacks the option namespaces="trust@lorafleet'):
        read_trust(write_trust(tmp_path, line, roots=line, root_threshold=1))
