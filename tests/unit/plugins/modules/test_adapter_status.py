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
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import PERMITTED, Golden
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import write_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.recovery import inode_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import ACTIVATE, Intent, read_state, write_state
from ansible_collections.lorafleet.delivery.plugins.modules.adapter_status import in_words, look_at, not_expected

from tests.support.releases import NAME, WEIGHTS, manifest_of, release_of, write_version
from tests.support.transactions import Node, Way


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def said(node: Node, level: str = "model") -> list[str]:
    before = node.snapshot()
    lines = in_words(look_at(node.paths, level))
    assert node.snapshot() == before
    return lines


@pytest.mark.parametrize("way", ["exchange", "symlink"])
def test_a_release_that_is_as_it_was_delivered(node: Node, way: Way) -> None:
    node.deploy(1, way)
    found = look_at(node.paths, "model")
    assert (found.activation, found.wrong) == (way, ())
    since, at = read_state(node.paths).history[-1].at, (found.receipt or {})["at"]
    lines = [f"release {release_of(1)} active since {since}", f"level model on cpu verified {at}"]
    assert said(node) == lines
    node.deploy(2, way)
    node.roll_back(way)
    assert said(node)[2:] == [f"previous release {release_of(2)}"]
    assert said(node, "golden")[3:] == ["lower    level model was verified, the inventory requires golden"]


def test_what_was_never_delivered(node: Node) -> None:
    [line] = look_at(node.paths, "model").wrong
    assert line == "missing  no release of it is active on this node"
    write_version(node.live, 1)
    [line] = look_at(node.paths, "model").wrong
    assert line == f"missing  no release of it is active on this node, {node.live} was not delivered"


def test_a_link_that_somebody_turned(node: Node) -> None:
    node.deploy(1, "symlink")
    node.deploy(2, "symlink")
    node.live.unlink()
    node.live.symlink_to(os.path.relpath(node.release(1), node.models))
    assert said(node)[3:] == [f"changed  {node.live}  leads to release {release_of(1)} instead of {release_of(2)}"]
    node.live.unlink()
    node.live.symlink_to("elsewhere")
    assert said(node)[3].startswith(f"changed  {NAME}: {node.live}: is a link to elsewhere")


def test_sizes_are_compared_and_no_file_is_opened(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.deploy(1)
    weights = node.live / WEIGHTS
    weights.write_bytes(weights.read_bytes()[::-1])
    (node.release(1) / WEIGHTS).write_bytes(b"cut short")
    opened: list[t.Any] = []
    opens = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: (opened.append(path), opens(path, *rest, **more))[1])
    assert said(node)[2:] == [f"changed  {node.release(1) / WEIGHTS}  9 bytes instead of 512"]
    assert opened == []


def test_a_step_that_a_crash_left(node: Node) -> None:
    """The exchange had happened: the new release is what people open, and nobody has written down since when."""
    node.deploy(1)
    node.deploy(2)
    state = read_state(node.paths)
    inode = inode_of(str(node.live))
    assert inode is not None
    intent = Intent(ACTIVATE, release_of(2), inode, "exchange")
    write_state(node.paths, dataclasses.replace(state, active=release_of(1), previous=None, intent=intent))
    assert said(node)[0] == f"release {release_of(2)} active"
    assert said(node)[2:] == [f"previous release {release_of(1)}"]


def test_the_distance_from_the_golden(node: Node) -> None:
    node.deploy(1)
    manifest = manifest_of(1)
    limits = {**dict.fromkeys(PERMITTED, 1.0), "on": 0.1}
    answer = {"on": [[[-1.0, -2.0]]], "off": [[[-2.0, -1.0]]]}
    golden = Golden(NAME, manifest.digest, "", {}, {}, [{"tokens": [[1, 2]]}], answer, {}, limits)
    receipt = {"level": "golden", "device": "cuda:0", "device_name": "NVIDIA H200", "versions": {}, "distances": {"on": 0.0123}}
    write_receipt(node.paths, manifest.release, receipt)
    assert said(node, "golden")[2:] == ["golden distance 0.012"]
    write_json(node.paths.manifest(manifest.release), dataclasses.replace(manifest, golden=golden.to_json()).to_json())
    assert said(node, "golden")[1].startswith("level golden on cuda:0 NVIDIA H200 verified ")
    assert said(node, "golden")[2:] == ["golden distance 0.012, permitted 0.100"]


def test_what_the_inventory_does_not_name(node: Node) -> None:
    assert not_expected(str(node.models), str(node.store), [NAME]) == []
    node.deploy(1)
    write_version(node.models / "by_hand", 1)
    (node.models / "base").mkdir()
    node.models.joinpath("notes.txt").write_text("no adapter")
    assert not_expected(str(node.models), str(node.store), [NAME]) == ["by_hand"]
    assert not_expected(str(node.models), str(node.store), ["by_hand"]) == [NAME]
    shutil.rmtree(node.live)
    assert not_expected(str(node.models), str(node.store), []) == ["by_hand", NAME]
