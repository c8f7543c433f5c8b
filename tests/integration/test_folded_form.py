# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folded adapters delivered by the playbooks."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from tests.support import tiny_adapters
from tests.support.fleet import CLEANER_3B, CLEANER_8B, CONFIG, DESCRIBER_3B, Fleet, contents, identity

PROMPTS = ["import os\n", "def walk(top, topdown=True):\n    ", 'raise TypeError("', {"user": "class PathLike:"}]


@pytest.fixture
def folded_fleet(fleet: Fleet) -> Fleet:
    """A fleet whose cleaner is delivered folded, its 3B adapter being one of rsLoRA."""
    fleet.base["path"] = str(fleet.tiny / "base")
    fleet.groups["training"].update(
        training_python=tiny_adapters.PEFT_PYTHON,
        training_device="cpu",
        training_golden_dir=str(fleet.root / "sbs29" / "goldens"),
    )
    fleet.groups["agents"]["agent_level"] = "golden"
    fleet.groups["jw2"].update(agent_prompts=PROMPTS, agent_form="folded")
    fleet.groups["jw3"]["agent_prompts"] = PROMPTS
    fleet.offer(CLEANER_3B, "rslora")
    fleet.groups["jw2"]["agent_adapters"][0]["peft_config"] = {"use_rslora": True}
    return fleet


def cache(fleet: Fleet) -> pathlib.Path:
    return fleet.root / "sbs29" / "cache" / "folded"


def config_of(directory: pathlib.Path) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    return found


def test_folded_adapters_reach_level_golden_of_their_originals(folded_fleet: Fleet) -> None:
    fleet = folded_fleet
    recorded = fleet.run("golden")
    assert recorded.rc == 0, recorded.output

    # In check mode nothing is kept, and the prediction is right.
    before = identity(fleet.root / "sbs29")
    checked = fleet.run("deploy", "--check", "--diff")
    assert checked.rc == 0, checked.output
    assert identity(fleet.root / "sbs29") == before
    predicted = checked.adapters("jw2-1", "adapter_release")[CLEANER_3B]

    done = fleet.deploy()
    described = done.of("jw2-1", "adapter_info")
    assert described["folded"] == [CLEANER_3B, CLEANER_8B]
    released = done.adapters("jw2-1", "adapter_release")[CLEANER_3B]
    assert released["release"] == predicted["release"]
    assert (released["made_of"]["form"], released["made_of"]["factors"]) == ("folded", [8.0])
    assert released["made_of"]["difference"] < 1e-4
    tested = done.adapters("jw2-1", "adapter_load_test")
    assert {adapter["level"] for adapter in tested.values()} == {"golden"}
    assert all(adapter["distances"]["on"] < 0.001 for adapter in tested.values())

    served = fleet.served("jw2-1", CLEANER_3B)
    config = config_of(served)
    assert (config["lora_alpha"], config["r"], config["use_rslora"]) == (16, 16, False)
    assert contents(served) == contents(cache(fleet) / CLEANER_3B / released["made_of"]["digest"][:12])
    # The row of the other agent has no form.
    assert config_of(fleet.served("jw3-1", DESCRIBER_3B))["lora_alpha"] == 32
    assert fleet.reported("jw3-1", DESCRIBER_3B)["made_of"] is None

    origin = f"folded from {released['made_of']['digest'][:12]}"
    assert fleet.reported("jw2-1", CLEANER_3B)["made_of"] == released["made_of"]
    assert f"{released['release']} ({origin})" in (fleet.reports / "MANIFEST.md").read_text(encoding="utf-8")
    assert origin in (fleet.reports / "report.html").read_text(encoding="utf-8")
    manifest = json.loads(next(fleet.stored("jw2-1", CLEANER_3B).glob("manifests/*.json")).read_text(encoding="utf-8"))
    assert manifest["made_of"] == released["made_of"]
    assert manifest["golden"]["digest"] == released["made_of"]["digest"]

    # Nothing is folded again.
    kept = identity(cache(fleet))
    again = fleet.deploy()
    assert again.changed() == []
    assert again.of("jw2-1", "adapter_info")["folded"] == []
    assert identity(cache(fleet)) == kept
    status = fleet.run("status")
    assert status.rc == 0, status.output
    assert f"release {released['release']}, {origin} active since" in status.output
    audited = fleet.run("audit")
    assert audited.rc == 0, audited.output

    # As trained again.
    fleet.groups["jw2"]["agent_form"] = "as_trained"
    fleet.deploy("--limit", "jw2")
    assert config_of(served) == config_of(fleet.source / CLEANER_3B)


def test_row_decides_over_agent_and_adapter_without_folded_form_is_refused(folded_fleet: Fleet) -> None:
    fleet = folded_fleet
    fleet.groups["agents"]["agent_level"] = "structure"
    fleet.offer(CLEANER_8B, "dora")
    row = fleet.groups["jw2"]["agent_adapters"][1]
    row.update(rank=16, peft_config={"use_dora": True})
    for playbook in (["deploy", "--check"], ["deploy"], ["preflight"]):
        refused = fleet.run(*playbook, "--limit", "jw2,sbs29")
        assert refused.rc != 0
        assert (
            f"adapter {CLEANER_8B}: cannot be folded: it has DoRA (use_dora). Deliver it as trained, or merge it"
            in refused.output
        )
    assert not fleet.home("jw2-1").joinpath(".lorafleet").exists()
    row["form"] = "as_trained"
    fleet.deploy("--limit", "jw2")
    assert config_of(fleet.served("jw2-1", CLEANER_8B))["use_dora"]
    assert not config_of(fleet.served("jw2-1", CLEANER_3B))["use_rslora"]


def test_engine_that_misreads_the_original_gets_the_folded_adapter(folded_fleet: Fleet) -> None:
    fleet = folded_fleet
    fleet.groups["agents"]["agent_level"] = "structure"
    fleet.groups["jw2"].update(agent_engine={"name": "openvino", "version": "2026.4.1.0"}, agent_form="as_trained")
    refused = fleet.run("deploy", "--limit", "jw2")
    assert refused.rc != 0
    assert "deliver the folded form (agent_form: folded)" in " ".join(refused.failures("jw2-1")[0].split())
    fleet.groups["jw2"]["agent_form"] = "folded"
    for arguments in (["--check"], []):
        fleet.deploy("--limit", "jw2", *arguments)
    for name in (CLEANER_3B, CLEANER_8B):
        assert [verdict["state"] for verdict in fleet.reported("jw2-1", name)["engines"]] == ["right"]


def test_original_as_target_of_its_folded_form_is_refused(folded_fleet: Fleet) -> None:
    """The directory on the training server is not the one that is transferred."""
    fleet = folded_fleet
    fleet.groups["agents"]["agent_level"] = "structure"
    fleet.hosts["jw2-1"]["agent_models_dir"] = str(fleet.source)
    fleet.hosts["jw2-1"]["agent_store"] = str(fleet.source.parent / ".lorafleet")
    before = contents(fleet.source)
    refused = fleet.run("deploy", "--limit", "jw2")
    assert f"is the same directory as {fleet.source / CLEANER_3B} of the source" in refused.output
    assert contents(fleet.source) == before
