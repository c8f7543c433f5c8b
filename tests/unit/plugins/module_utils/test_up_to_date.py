# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each reason why a node is not up to date, on a node that serves the described release."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import Request
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.receipt import read_receipt
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.recovery import pending_path
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import ACTIVATE, Intent, read_state, write_state

from tests.support.served import Served

WEIGHTS = "adapter_model.safetensors"
Declare = t.Callable[..., Declaration]
Change = t.Callable[[Served], object]


@pytest.fixture
def node(tmp_path: pathlib.Path, tiny: pathlib.Path, declare: Declare) -> Served:
    return Served(tmp_path, tiny, declare())


def test_check_up_to_date_node_returns_active_releases(node: Served) -> None:
    before = node.snapshot()
    [found] = node.check()
    [released] = node.carry_out_all([Request(node.paths, manifest=node.manifest)], level="structure", check_mode=True)
    assert released["action"] == "unchanged"
    keys = {"name", "release", "digest", "size", "files", "made_of", "previous", "history", "activation", "path", "receipt"}
    assert found == {**{key: released[key] for key in keys}, "required_level": "structure", "engines": []}
    assert found["receipt"]["level"] == "structure"
    assert node.snapshot() == before
    assert node.warnings == []


def test_check_compares_receipt_level_and_environment(node: Served) -> None:
    with pytest.raises(DeliveryError, match="adapter adapter: no valid receipt for level adapter on this node"):
        node.check(level="adapter")
    node.verify("adapter", node.manifest)
    [found] = node.check(level="adapter")
    assert (found["required_level"], found["receipt"]["level"]) == ("adapter", "adapter")
    # Level structure is contained in it and needs no interpreter.
    assert node.check(python="/nowhere/python")[0]["required_level"] == "structure"
    with pytest.raises(DeliveryError, match="/nowhere/python: "):
        node.check(level="adapter", python="/nowhere/python")
    receipt = read_receipt(node.paths, node.manifest.release)
    write_json(node.paths.receipt(node.manifest.release), {**(receipt or {}), "environment": "another"})
    with pytest.raises(DeliveryError, match="no valid receipt for level adapter on this node"):
        node.check(level="adapter")


def test_check_warns_of_vulnerable_package_only_if_up_to_date(node: Served, tmp_path: pathlib.Path) -> None:
    python = tmp_path / "old-python"
    versions = {"python": "3.11.2", "torch": "2.5.1", "safetensors": "0.5.0", "transformers": "5.3.0", "peft": "0.20.0"}
    python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n", encoding="utf-8")
    python.chmod(0o755)
    node.params["python"] = str(python)
    with pytest.raises(DeliveryError, match="no valid receipt for level adapter"):
        node.check(level="adapter")
    assert node.warnings == []
    node.verify("adapter", node.manifest)
    node.check(level="adapter")
    [warning] = node.warnings
    assert warning.startswith(f"{python} has torch 2.5.1. CVE-2025-32434: ")


def flip_a_bit(directory: str) -> None:
    path = pathlib.Path(directory, WEIGHTS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def interrupt(node: Served) -> None:
    state = read_state(node.paths)
    inode = os.lstat(node.served).st_ino
    write_state(node.paths, type(state)(**{**vars(state), "intent": Intent(ACTIVATE, node.manifest.release, inode, "exchange")}))


DRIFT: dict[str, tuple[Change, str]] = {
    "served file": (
        lambda node: flip_a_bit(str(node.served)),
        "differs from the desired state: changed .*models/adapter/adapter_model",
    ),
    "stored file": (
        lambda node: flip_a_bit(node.paths.release(node.manifest.release)),
        "differs from the desired state: changed .*store",
    ),
    "extra file": (lambda node: (node.served / "notes.txt").touch(), "differs from the desired state: extra "),
    "mode": (lambda node: (node.served / WEIGHTS).chmod(0o600), "differs from the desired state: mode "),
    "not served": (lambda node: shutil.rmtree(node.served), "differs from the desired state: missing "),
    "manifest": (lambda node: os.unlink(node.paths.manifest(node.manifest.release)), "differs from the desired state"),
    "receipt": (lambda node: os.unlink(node.paths.receipt(node.manifest.release)), "no valid receipt for level structure"),
    "receipt without versions": (
        lambda node: write_json(
            node.paths.receipt(node.manifest.release),
            {**(read_receipt(node.paths, node.manifest.release) or {}), "versions": None},
        ),
        "no valid receipt for level structure",
    ),
    "interrupted activation": (interrupt, "an earlier run left unfinished work"),
    "interrupted copy": (
        lambda node: os.mkdir(pending_path(node.paths, node.manifest.release)),
        "an earlier run left unfinished work",
    ),
    "trash": (lambda node: (node.root / "trash-1").mkdir(), "an earlier run left unfinished work"),
    "unfinished state": (lambda node: (node.root / "state.json.new").touch(), "an earlier run left unfinished work"),
    "unfinished manifest": (
        lambda node: pathlib.Path(f"{node.paths.manifest(node.manifest.release)}.new").touch(),
        "an earlier run left unfinished work",
    ),
    "state without method": (
        lambda node: write_state(node.paths, dataclasses.replace(read_state(node.paths), method=None)),
        "differs from the desired state",
    ),
    "state": (lambda node: pathlib.Path(node.paths.state).write_text("{"), "state.json: cannot be read"),
    "store": (lambda node: shutil.rmtree(node.store), "no valid receipt for level structure"),
}


@pytest.mark.parametrize(("change", "words"), DRIFT.values(), ids=DRIFT)
def test_check_changed_node_gives_the_reason(node: Served, change: Change, words: str) -> None:
    change(node)
    before = node.snapshot()
    with pytest.raises(DeliveryError, match=words):
        node.check()
    assert node.snapshot() == before


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"activation": "symlink"}, "differs from the desired state: changed .*a directory instead of a link"),
        ({"file_mode": "0640"}, "differs from the desired state: mode "),
        ({"keep": 0}, "keep: is 0"),
        ({"device": "tpu"}, "device is tpu"),
        ({"models_dir": "/nowhere"}, "/nowhere: is not a directory"),
        ({"user": "no-such-user"}, "no-such-user"),
    ],
)
def test_check_changed_options_gives_the_reason(node: Served, params: dict[str, t.Any], words: str) -> None:
    with pytest.raises(DeliveryError, match=words):
        node.check(**params)


def test_check_changed_declaration_gives_the_reason(node: Served) -> None:
    node.params["adapters"][0]["rank"] = 8
    with pytest.raises(DeliveryError, match="rank"):
        node.check()


def test_check_other_release_or_retention_is_not_up_to_date(node: Served) -> None:
    second = node.describe("adapter_2")
    with pytest.raises(DeliveryError, match="no valid receipt for level adapter"):
        # A release without a receipt starts no interpreter.
        node.check(manifests=[second.to_text()], level="adapter", python="/nowhere/python")
    node.deliver("adapter_2", second)
    third = node.describe("adapter_3")
    node.deliver("adapter_3", third)
    manifests = [third.to_text()]
    assert node.check(manifests=manifests)[0]["release"] == third.release
    with pytest.raises(DeliveryError, match="differs from the desired state"):
        node.check(manifests=manifests, keep=1)
