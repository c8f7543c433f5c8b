# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Goldens recorded on the training server and compared on the nodes, through the playbooks."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import numpy
import pytest
import safetensors.numpy

from tests.support import tiny_adapters
from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, WEIGHTS, Fleet, contents, identity

PROMPTS = {
    "jw2": ["import os\n", "def walk(top, topdown=True):\n    ", 'raise TypeError("', {"user": "class PathLike:"}],
    "jw3": ["import sys\n", "return os.path", {"system": "Python.", "user": "def getcwd():"}, "for name in names:"],
}


@pytest.fixture
def golden_fleet(fleet: Fleet) -> Fleet:
    """A fleet with base models that requires level golden."""
    fleet.base["path"] = str(fleet.tiny / "base")
    fleet.groups["training"].update(
        training_python=tiny_adapters.PEFT_PYTHON,
        training_device="cpu",
        training_golden_dir=str(fleet.root / "sbs29" / "goldens"),
    )
    fleet.groups["agents"]["agent_level"] = "golden"
    for group, prompts in PROMPTS.items():
        fleet.groups[group]["agent_prompts"] = prompts
    return fleet


def change_weights(directory: pathlib.Path, factor: float) -> None:
    tensors = safetensors.numpy.load_file(directory / WEIGHTS)
    for name in tensors:
        if "lora_B" in name:
            tensors[name] *= factor
    safetensors.numpy.save_file(tensors, directory / WEIGHTS, {"format": "pt"})


def test_golden_recorded_delivered_and_stale_after_retraining(golden_fleet: Fleet) -> None:
    fleet = golden_fleet
    goldens = fleet.root / "sbs29" / "goldens"

    # Without goldens nothing is transferred, and the message names the remedy.
    refused = fleet.run("deploy", "--limit", "jw3")
    assert refused.rc != 0
    (message,) = refused.failures("jw3-1")
    assert f"adapter {DESCRIBER_3B}: has no golden. Record one on the training server with adapter_golden." in message
    assert not fleet.home("jw3-1").joinpath(".lorafleet").exists()

    before = identity(fleet.source)
    checked = fleet.run("golden", "--check", "--diff")
    assert checked.rc == 0, checked.output
    assert checked.of("sbs29", "adapter_golden")["changed"]
    assert f"{CLEANER_3B} " in checked.output
    assert "a golden of 4 prompts" in checked.output
    assert not goldens.exists()
    recorded = fleet.run("golden")
    assert recorded.rc == 0, recorded.output
    found = recorded.adapters("sbs29", "adapter_golden")
    assert [adapter["action"] for adapter in found.values()] == ["recorded"] * 3
    # In float32 another kernel changes nothing in the first four digits.
    assert all(adapter["noise"]["eager"]["on"] < 0.001 for adapter in found.values())
    assert all(4 <= adapter["positions"] <= 64 for adapter in found.values())
    assert found[CLEANER_3B]["recorded"]["dtype"] == "float32"
    assert {"torch", "peft", "transformers"} <= set(found[CLEANER_3B]["recorded"]["versions"])
    # Goldens lie outside the adapter directories, so that digests do not change.
    assert identity(fleet.source) == before
    # Token IDs only: nodes do not get the text of the prompts.
    text = pathlib.Path(found[CLEANER_3B]["path"]).read_text(encoding="utf-8")
    assert "topdown" not in text

    again = fleet.run("golden")
    assert again.rc == 0, again.output
    assert again.changed() == []
    assert again.of("sbs29", "adapter_golden")["seconds"] == 0

    done = fleet.deploy()
    tested = {**done.adapters("jw2-1", "adapter_load_test"), **done.adapters("jw3-1", "adapter_load_test")}
    assert {adapter["level"] for adapter in tested.values()} == {"golden"}
    for adapter in tested.values():
        assert (adapter["limited_by"], adapter["notes"]) == (None, [])
        assert adapter["distances"]["on"] < 0.001
        assert adapter["distances"]["direction"] > 0.999
        assert any("recorded tokens it answers as on the training server" in check for check in adapter["checks"])
        assert any("The base matches that of the training" in check for check in adapter["checks"])
    receipt = json.loads(next(fleet.stored("jw2-1", CLEANER_3B).glob("receipts/*.json")).read_text(encoding="utf-8"))
    assert (receipt["level"], receipt["distances"]) == ("golden", tested[CLEANER_3B]["distances"])
    assert "| golden |" in (fleet.reports / "MANIFEST.md").read_text(encoding="utf-8")
    assert all(fleet.boxes().values())
    manifest = json.loads(next(fleet.stored("jw2-1", CLEANER_3B).glob("manifests/*.json")).read_text(encoding="utf-8"))
    assert manifest["golden"]["digest"] == manifest["digest"]
    assert manifest["base"]["tensors"] == 20

    quiet = fleet.deploy()
    assert quiet.changed() == []
    assert {adapter["receipt"]["level"] for adapter in quiet.adapters("jw2-1", "adapter_up_to_date_info").values()} == {"golden"}
    # The node has all that an audit needs; the report has the distances.
    audited = fleet.run("audit")
    assert audited.rc == 0, audited.output
    assert audited.adapters("jw2-1", "adapter_release_info")[CLEANER_3B]["receipt"]["distances"] == receipt["distances"]

    # After another training the golden belongs to an old release.
    served = contents(fleet.served("jw2-1", CLEANER_3B))
    change_weights(fleet.source / CLEANER_3B, 1.01)
    old = tested[CLEANER_3B]["release"]
    stale = fleet.run("deploy", "--limit", "jw2")
    assert f"adapter {CLEANER_3B}: has a stale golden: it belongs to release {old}, not to " in stale.failures("jw2-1")[0]
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == served
    # At a lower level a stale golden is only a warning.
    described = fleet.run("describe")
    assert described.rc == 0
    result = described.of("sbs29", "adapter_info")
    assert result["goldens"] == {CLEANER_3B: "stale", CLEANER_8B: "recorded", DESCRIBER_3B: "recorded"}
    assert "has a stale golden" in result["warnings"][0]
    renewed = fleet.run("golden", "--tags", "cleaner")
    assert renewed.rc == 0, renewed.output
    actions = {name: adapter["action"] for name, adapter in renewed.adapters("sbs29", "adapter_golden").items()}
    assert actions == {CLEANER_3B: "recorded", CLEANER_8B: "kept"}
    assert fleet.deploy("--limit", "jw2").adapters("jw2-1", "adapter_load_test")[CLEANER_3B]["level"] == "golden"
    assert contents(fleet.served("jw2-1", CLEANER_3B)) != served


def other_base(fleet: Fleet) -> str:
    """Create another base of the same shape; return its path on the node."""
    target = fleet.root / "jw3-1" / "base"
    shutil.copytree(fleet.tiny / "base", target)
    path = target / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    random = numpy.random.default_rng(0)
    for name, values in tensors.items():
        tensors[name] = values + values.std() * random.standard_normal(values.shape, numpy.float32)
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    return str(target)


def test_golden_on_node_with_another_base_fails(golden_fleet: Fleet) -> None:
    fleet = golden_fleet
    recorded = fleet.run("golden", "--tags", "describer")
    assert recorded.rc == 0, recorded.output
    bases: dict[str, t.Any] = {tiny_adapters.BASE_NAME: {**fleet.base, "path": other_base(fleet)}}
    fleet.hosts["jw3-1"]["agent_bases"] = bases
    refused = fleet.run("deploy", "--limit", "jw3")
    tested = refused.of("jw3-1", "adapter_load_test")
    assert f"was trained on another base than the one at {bases[tiny_adapters.BASE_NAME]['path']}" in tested["msg"]
    assert "its weights differ (sample " in tested["msg"]
    # The error precedes loading.
    assert tested["seconds"] == 0
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()

    # With base_binding=report the golden still fails.
    fleet.groups["agents"]["agent_base_binding"] = "report"
    answered = fleet.run("deploy", "--limit", "jw3")
    tested = answered.of("jw3-1", "adapter_load_test")
    assert "is on a base whose answers differ from the training server's even without the adapter (distance " in tested["msg"]
    assert tested["adapters"][0]["level"] == "model"
    assert tested["adapters"][0]["distances"]["off"] > 0.08
    assert any("It was trained on another base" in note for note in tested["adapters"][0]["notes"])
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()


def test_golden_that_cannot_be_recorded_names_the_reason(golden_fleet: Fleet) -> None:
    fleet = golden_fleet
    # Without a chat template only plain-text prompts work.
    (fleet.source / CLEANER_3B / "chat_template.jinja").unlink()
    fleet.groups["jw3"].pop("agent_prompts")
    done = fleet.run("golden", "--tags", "3b")
    (message,) = done.failures("sbs29")
    assert f"adapter {DESCRIBER_3B}: has no prompts; 4 or more are needed. Add prompts of the kind" in message
    assert f"adapter {CLEANER_3B}: was not recorded on cpu: its tokenizer has no chat template." in message
    fleet.groups["training"]["training_memory_limit"] = "700M"
    fleet.groups["jw3"]["agent_prompts"] = PROMPTS["jw3"][:3]
    (message,) = fleet.run("golden", "--tags", "3b").failures("sbs29")
    assert f"adapter {DESCRIBER_3B}: has 3 prompts; 4 or more are needed. Add prompts of the kind" in message
    assert f"adapter {CLEANER_3B}: was not recorded on cpu: the base " in message
    assert "0.7 GiB are permitted. Free memory on cpu" in message
    del fleet.base["path"]
    fleet.groups["jw3"]["agent_prompts"] = [*PROMPTS["jw3"], {"user": 7}]
    (message,) = fleet.run("golden", "--tags", "3b").failures("sbs29")
    assert f"cannot be recorded: base {tiny_adapters.BASE_NAME} has no path on this host." in message
    assert f"adapter {DESCRIBER_3B}: has a prompt of an unknown form: {{'user': 7}}." in message
    assert not (fleet.root / "sbs29" / "goldens").exists()
