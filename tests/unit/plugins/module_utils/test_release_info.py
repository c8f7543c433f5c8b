# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import read_json, write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import permitted
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import Golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._release_info import release_info, unexpected
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.permissions import Permissions, permissions_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import write_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.recovery import inode_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import ACTIVATE, Intent, read_state, write_state

from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, write_version
from tests.support.transactions import Method, Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def info(node: Node, level: str = "model", permissions: Permissions | None = None) -> dict[str, t.Any]:
    before = node.snapshot()
    found = release_info(str(node.models), str(node.store), [NAME], [NAME], level, permissions)
    assert node.snapshot() == before
    return found


def summary(node: Node, level: str = "model") -> list[str]:
    lines: list[str] = info(node, level)["summary"][NAME]
    return lines


def differences(node: Node, permissions: Permissions | None = None) -> list[str]:
    found = info(node, permissions=permissions)
    [adapter] = found["adapters"]
    lines: list[str] = adapter["differences"]
    assert found["differences"] == [f"{NAME}: {line}" for line in lines]
    return lines


@pytest.mark.parametrize("method", ["exchange", "symlink"])
def test_release_info_of_delivered_release_has_no_differences(node: Node, method: Method) -> None:
    node.deploy(1, method)
    found = info(node)
    [adapter] = found["adapters"]
    assert (adapter["name"], adapter["activation"], adapter["differences"]) == (NAME, method, [])
    assert (found["active"], found["differences"], found["others"]) == ([NAME], [], [])
    since, at = read_state(node.paths).history[-1].at, adapter["receipt"]["at"]
    assert summary(node) == [f"release {release_of(1)} active since {since}", f"level model on cpu verified {at}"]
    node.deploy(2, method)
    node.roll_back(method)
    assert summary(node)[2:] == [f"previous release {release_of(2)}"]


def test_release_info_of_folded_release_says_what_it_was_made_of(node: Node) -> None:
    node.deploy(1)
    path = node.paths.manifest(release_of(1))
    data = read_json(path)
    made_of = {"digest": "1" * 64, "form": "folded", "factors": [2.0], "rounded": 0, "difference": None}
    write_json(path, {**data, "made_of": made_of})
    assert summary(node)[0].startswith(f"release {release_of(1)}, folded from 111111111111 active since")
    [adapter] = info(node)["adapters"]
    assert adapter["made_of"] == made_of


def test_release_info_of_lower_level_than_required_is_difference(node: Node) -> None:
    node.deploy(1)
    assert summary(node, "golden")[2:] == ["lower    verified at level model, level golden is required"]


def test_release_info_without_active_release_says_missing(node: Node) -> None:
    found = info(node)
    assert (found["active"], found["adapters"][0]["release"]) == ([], None)
    assert differences(node) == ["missing  no active release on this node"]
    write_version(node.served, 1)
    assert differences(node) == [f"missing  no active release on this node; {node.served} was not deployed by this collection"]


def test_release_info_of_damaged_state_is_difference(node: Node) -> None:
    node.deploy(1)
    pathlib.Path(node.paths.state).write_text("{", encoding="utf-8")
    [line] = differences(node)
    assert line.startswith(f"changed  {node.paths.state}: cannot be read: ")


def test_release_info_of_changed_link_names_both_releases(node: Node) -> None:
    node.deploy(1, "symlink")
    node.deploy(2, "symlink")
    node.served.unlink()
    node.served.symlink_to(os.path.relpath(node.release(1), node.models))
    assert differences(node) == [f"changed  {node.served}  leads to release {release_of(1)} instead of {release_of(2)}"]
    node.served.unlink()
    node.served.symlink_to("elsewhere")
    [line] = differences(node)
    assert line.startswith(f"changed  {node.served}: is a link to elsewhere")


def test_release_info_with_permissions_finds_changed_byte_and_mode(node: Node) -> None:
    node.deploy(1)
    weights = node.served / WEIGHTS
    weights.write_bytes(weights.read_bytes()[::-1])
    (node.release(1) / WEIGHTS).chmod(0o600)
    permissions = permissions_of({"owner": None, "group": None, "file_mode": "0644", "directory_mode": "0755"})
    changed, mode = differences(node, permissions)
    assert changed.startswith(f"changed  {weights}  sha256 ")
    assert mode == f"mode     {node.release(1) / WEIGHTS}  0600 instead of 0644"


def test_release_info_without_permissions_compares_sizes_and_opens_no_file(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.deploy(1)
    weights = node.served / WEIGHTS
    weights.write_bytes(weights.read_bytes()[::-1])
    (node.release(1) / WEIGHTS).write_bytes(b"cut short")
    opened: list[t.Any] = []
    opens = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: (opened.append(path), opens(path, *rest, **more))[1])
    assert summary(node)[2:] == [f"changed  {node.release(1) / WEIGHTS}  9 bytes instead of 512"]
    of_release = (str(node.served), str(node.release(1)))
    assert not [path for path in opened if str(path).startswith(of_release)]


def test_release_info_of_interrupted_activation_lacks_time(node: Node) -> None:
    """The directories were exchanged, but the time was not recorded yet."""
    node.deploy(1)
    node.deploy(2)
    state = read_state(node.paths)
    inode = inode_of(str(node.served))
    assert inode is not None
    intent = Intent(ACTIVATE, release_of(2), inode, "exchange")
    write_state(node.paths, dataclasses.replace(state, active=release_of(1), previous=None, intent=intent))
    assert summary(node)[0] == f"release {release_of(2)} active"
    assert summary(node)[2:] == [f"previous release {release_of(1)}"]


def test_summary_of_golden_level_has_distance(node: Node) -> None:
    node.deploy(1)
    manifest = manifest_of(1)
    limits = permitted([])
    answer = {"on": [[[-1.0, -2.0]]], "off": [[[-2.0, -1.0]]]}
    golden = Golden(NAME, manifest.digest, "", {}, {}, [{"tokens": [[1, 2]]}], answer, {}, limits)
    receipt = {"level": "golden", "device": "cuda:0", "device_name": "NVIDIA H200", "versions": {}, "distances": {"on": 0.0123}}
    write_receipt(node.paths, manifest.release, receipt)
    assert summary(node, "golden")[2:] == ["golden distance 0.012"]
    write_json(node.paths.manifest(manifest.release), dataclasses.replace(manifest, golden=golden.to_json()).to_json())
    assert summary(node, "golden")[1].startswith("level golden on cuda:0 NVIDIA H200 verified ")
    assert summary(node, "golden")[2:] == [f"golden distance 0.012, permitted {limits['on']:.3f}"]


def test_unexpected_adapters_are_found_in_models_dir_and_store(node: Node) -> None:
    assert unexpected(str(node.models), str(node.store), [NAME]) == []
    node.deploy(1)
    write_version(node.models / "by_hand", 1)
    (node.models / "base").mkdir()
    node.models.joinpath("notes.txt").write_text("no adapter")
    assert unexpected(str(node.models), str(node.store), [NAME]) == ["by_hand"]
    assert unexpected(str(node.models), str(node.store), ["by_hand"]) == [NAME]
    shutil.rmtree(node.served)
    assert unexpected(str(node.models), str(node.store), []) == ["by_hand", NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["release", "receipts"])
def test_release_info_of_a_store_that_another_user_could_change_is_difference(node: Node, what: str) -> None:
    permissions = Permissions(0o644, 0o755, 4321, None)
    node.deploy(1, uid=4321)
    assert differences(node, permissions) == []
    directory = node.release(1) if what == "release" else node.root / "receipts"
    os.chown(directory, 4321, 4321)
    [line] = differences(node, permissions)
    assert ("owner 4321 instead of 0" if what == "release" else "belongs to user 4321 (mode 0755), who could change") in line


def test_release_info_names_a_thousand_of_any_number_of_other_adapters(node: Node) -> None:
    for number in range(1001):
        other = node.models / f"other{number}"
        other.mkdir()
        (other / "adapter_config.json").touch()
    found = release_info(str(node.models), str(node.store), [NAME], [NAME], "model", None)
    assert len(found["others"]) == 1000
