# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight of signed releases, with a real ssh-keygen."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.checklist import Check, Checklist
from ansible_collections.lorafleet.delivery.plugins.module_utils._preflight.signatures import check_signatures
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import ssh_signatures

from tests.support.releases import manifest_of
from tests.support.signing import Keys, offered, signer_line, write_trust

GRAMMAR, PARAPHRASE = manifest_of(1, "grammar"), manifest_of(2, "paraphrase")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def trust(keys: Keys, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., pathlib.Path]:
    """Lets the node trust alice, and returns the directory with that trust."""

    def write(**policy: t.Any) -> pathlib.Path:
        place = write_trust(tmp_path / "etc", signer_line("alice", keys.public("alice")), **policy)
        monkeypatch.setattr(_trust_place, "PLACE", place)
        return pathlib.Path(place.directory)

    return write


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The only directory in which OpenSSH is looked for. It is empty."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setattr(ssh_signatures, "_DIRECTORIES", str(directory))
    return directory


def checks(
    tmp_path: pathlib.Path, *signed: dict[str, t.Any], manifests: t.Sequence[Manifest] = (GRAMMAR, PARAPHRASE)
) -> list[Check]:
    checklist = Checklist()
    places = {"models_dir": str(tmp_path / "models"), "store": str(tmp_path / "store")}
    params = {"signed": list(signed), "snapshot": None, **places}
    check_signatures(checklist, params, {one.name: one for one in manifests})
    assert {one.check for one in checklist.checks} <= {"signatures"}
    return checklist.checks


def test_check_signatures_where_nothing_is_set_up_adds_nothing(
    tmp_path: pathlib.Path, programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trust_place, "PLACE", _trust_place.Place(str(tmp_path / "nowhere"), 0))
    assert checks(tmp_path) == []


@pytest.mark.parametrize(
    ("required", "names", "found"),
    [
        (True, ["grammar", "paraphrase"], "required on this node; signed releases: 2 of 2"),
        (False, ["grammar"], "not required on this node; signed releases: 1 of 2"),
    ],
)
def test_check_signatures_that_are_accepted_passes(
    keys: Keys, trust: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path, required: bool, names: list[str], found: str
) -> None:
    trust(required=required)
    signed = [offered(keys, one, 1) for one in (GRAMMAR, PARAPHRASE) if one.name in names]
    [check] = checks(tmp_path, *signed)
    assert (check.state, check.found, check.remedy) == ("ok", found, "")


def test_check_signatures_names_each_release_that_is_refused(
    keys: Keys, trust: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    trust()
    first, second = checks(tmp_path, offered(keys, GRAMMAR, 1, "mallory"))
    assert first.found.startswith("adapter grammar, signature: is by the key SHA256:")
    assert "bring it to the nodes with playbooks/trust.yml" in first.remedy
    assert {first.state, second.state} == {"failed"}
    assert (
        second.found == f"adapter paraphrase, release {PARAPHRASE.release}: is not signed; this node serves signed releases only."
    )
    assert second.remedy == "Sign it with playbooks/sign.yml."
    assert str(second.problem()) == f"signatures: {second.found} {second.remedy}"


def test_check_signatures_on_a_node_without_trust_fails(
    keys: Keys, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trust_place, "PLACE", _trust_place.Place(str(tmp_path / "nowhere"), 0))
    [check] = checks(tmp_path, offered(keys, GRAMMAR, 1))
    assert (check.state, check.found) == ("failed", f"this node: has no {tmp_path}/nowhere, so it trusts no signature.")
    assert check.remedy == "Run playbooks/trust.yml, or deliver to it without signatures."


def test_check_signatures_with_damaged_trust_fails(trust: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path) -> None:
    policy = trust() / "policy.json"
    policy.unlink()
    [check] = checks(tmp_path)
    assert check.state == "failed"
    assert str(policy) in check.found


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("", "ssh-keygen: is not installed on this host."),
        ("OpenSSH_8.0p1", "ssh-keygen: is of OpenSSH 8.0 on this host; signatures need 8.7 or newer."),
    ],
)
def test_check_signatures_without_suitable_openssh_still_names_what_is_unsigned(
    keys: Keys,
    trust: t.Callable[..., pathlib.Path],
    programs: pathlib.Path,
    tmp_path: pathlib.Path,
    version: str,
    found: str,
) -> None:
    trust()
    if version:
        for program in ("ssh", "ssh-keygen"):
            (programs / program).write_text(f"#!/bin/sh\necho '{version}' >&2\n", encoding="utf-8")
            (programs / program).chmod(0o755)
    openssh, unsigned = checks(tmp_path, offered(keys, GRAMMAR, 1))
    assert (openssh.state, openssh.found) == ("failed", found)
    assert openssh.remedy
    assert unsigned.found.startswith("adapter paraphrase, release")


def test_check_signatures_without_described_adapter_is_unknown(
    trust: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    trust()
    [check] = checks(tmp_path, manifests=())
    assert (check.state, check.found) == ("unknown", "not checked without a described adapter")
