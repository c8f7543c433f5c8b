# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a fleet whose engines are known delivers, holds back and says."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t

import pytest

from tests.support.environments import install
from tests.support.fleet import CLEANER_3B, CLEANER_8B, DESCRIBER_3B, Fleet, contents, identity, travelling
from tests.support.tiny_adapters import PEFT_PYTHON
from tests.support.troubleshooting import documented

OPENVINO = {"name": "openvino", "version": "2026.4.1.0"}


def verdicts(adapter: dict[str, t.Any]) -> list[tuple[str, str | None, str, bool]]:
    return [tuple(verdict[key] for key in ("engine", "version", "state", "held_back")) for verdict in adapter["engines"]]


@pytest.fixture
def rslora(fleet: Fleet) -> Fleet:
    """The fleet, whose describer serves a plain adapter and has an rsLoRA adapter to deliver."""
    fleet.deploy("--limit", "jw3")
    fleet.offer(DESCRIBER_3B, "rslora")
    fleet.groups["jw3"]["agent_adapters"][0]["peft_config"] = {"use_rslora": True}
    return fleet


def test_deploy_for_engine_that_answers_wrongly_holds_the_adapter_back(rslora: Fleet) -> None:
    node = rslora.home("jw3-1")
    before = identity(node)
    rslora.groups["jw3"]["agent_engine"] = OPENVINO
    for arguments in (("--check",), (), ("-e", '{"agent_load_test_force": true}')):
        done = rslora.run("deploy", "--limit", "jw3", *arguments)
        assert done.rc == 2, done.output
        # Before the source was reached, and before anything was written.
        synced = done.of("jw3-1", "adapter_sync")
        assert "wire_bytes" not in synced and "commands" not in synced
        assert identity(node) == before
        [message] = done.failures("jw3-1")
        assert documented("engine that misreads an adapter").fullmatch(message), message
        # Without the terminal's line breaks.
        assert f"jw3-1: {message}" in done.output
    reported = rslora.reported("jw3-1", DESCRIBER_3B)
    assert (reported["state"], verdicts(reported)) == ("failed", [("openvino_genai", "2026.4.1.0", "wrong", True)])
    assert not any(rslora.boxes().values())
    # Everything but the engine is ready.
    checked = rslora.run("preflight", "--limit", "jw3")
    assert checked.rc == 2
    checks = [one for entry in checked.results for one in entry["result"].get("checks", ())]
    assert [one["check"] for one in checks if one["state"] == "failed"] == ["engine openvino_genai"]

    rslora.groups["jw3"]["agent_engine_policy"] = "report"
    done = rslora.deploy("--limit", "jw3")
    assert contents(rslora.served("jw3-1", DESCRIBER_3B)) == travelling(rslora.source / DESCRIBER_3B)
    [warning] = done.of("jw3-1", "adapter_sync")["warnings"]
    assert warning.startswith(f"adapter {DESCRIBER_3B}, engine openvino_genai: OpenVINO GenAI 2026.4.1.0 does not read ")
    assert f"note: jw3-1: adapter {DESCRIBER_3B}: engine openvino_genai 2026.4.1.0 wrong: " in done.output
    reported = rslora.reported("jw3-1", DESCRIBER_3B)
    assert (reported["state"], verdicts(reported)) == ("activated", [("openvino_genai", "2026.4.1.0", "wrong", False)])
    assert 'lorafleet_adapter_engine_verdict{agent="describer",node="jw3-1"' in (rslora.reports / "lorafleet.prom").read_text(
        encoding="utf-8"
    )


def test_engine_that_is_declared_after_the_delivery_fails_the_next_deploy(rslora: Fleet) -> None:
    done = rslora.deploy("--limit", "jw3")
    [adapter] = done.of("jw3-1", "adapter_sync")["adapters"]
    [note] = adapter["engine_notes"]
    assert f"note: jw3-1: adapter {DESCRIBER_3B}: {note}" in done.output
    before = identity(rslora.home("jw3-1"))
    rslora.groups["jw3"]["agent_engine"] = OPENVINO
    done = rslora.run("deploy", "--limit", "jw3")
    assert done.rc == 2, done.output
    assert documented("engine that misreads an adapter").fullmatch(*done.failures("jw3-1"))
    assert identity(rslora.home("jw3-1")) == before

    line = "engine openvino_genai 2026.4.1.0 wrong: OpenVINO GenAI 2026.4.1.0 does not read "
    status = rslora.run("status", "--limit", "jw3")
    assert status.rc == 0
    assert [one for one in status.of("jw3-1", "adapter_release_info")["summary"][DESCRIBER_3B] if one.startswith(line)]
    audit = rslora.run("audit", "--limit", "jw3")
    assert audit.rc == 0, audit.output
    assert [one for one in audit.of("jw3-1", "adapter_release_info")["warnings"] if "engine openvino_genai" in one]
    assert verdicts(rslora.reported("jw3-1", DESCRIBER_3B)) == [("openvino_genai", "2026.4.1.0", "wrong", True)]
    # Its factor is the number to hand over.
    rslora.groups["jw3"]["agent_engine"] = {**OPENVINO, "alpha": 8}
    assert rslora.deploy("--limit", "jw3").changed() == []
    assert verdicts(rslora.reported("jw3-1", DESCRIBER_3B)) == [("openvino_genai", "2026.4.1.0", "right", False)]

    # The release before it has another factor.
    served = identity(rslora.home("jw3-1") / "models")
    back = rslora.run("rollback", "--limit", "jw3")
    assert back.rc == 2, back.output
    [message] = back.failures("jw3-1")
    assert documented("rollback to a release that the engine misreads").fullmatch(message), message
    assert identity(rslora.home("jw3-1") / "models") == served
    back = rslora.run("rollback", "--limit", "jw3", "-e", "agent_engine_policy=report")
    assert back.rc == 0, back.output
    reported = rslora.reported("jw3-1", DESCRIBER_3B)
    assert (reported["state"], verdicts(reported)) == ("rolled_back", [("openvino_genai", "2026.4.1.0", "wrong", False)])


def test_deploy_for_two_engines_fails_for_the_one_that_answers_wrongly(rslora: Fleet) -> None:
    rslora.groups["jw3"]["agent_engine"] = [{"name": "vllm", "version": "0.32.0"}, "llama.cpp"]
    done = rslora.run("deploy", "--limit", "jw3")
    assert done.rc == 2, done.output
    [problem] = done.of("jw3-1", "adapter_sync")["problems"]
    assert (problem["adapter"], problem["subject"]) == (DESCRIBER_3B, f"adapter {DESCRIBER_3B}, engine llama_cpp")
    assert verdicts(rslora.reported("jw3-1", DESCRIBER_3B)) == [
        ("vllm", "0.32.0", "right", False),
        ("llama_cpp", None, "wrong", True),
    ]


def test_folded_form_of_an_adapter_that_two_engines_misread_is_delivered(rslora: Fleet) -> None:
    rslora.groups["jw3"].update(agent_engine=[OPENVINO, "llama.cpp"], agent_form="folded")
    rslora.groups["training"]["training_python"] = PEFT_PYTHON
    rslora.deploy("--limit", "jw3")
    states = [state for _engine, _version, state, _held_back in verdicts(rslora.reported("jw3-1", DESCRIBER_3B))]
    assert states == ["right", "right"]


def test_deploy_after_upgrade_of_an_engine_judges_its_new_version(rslora: Fleet) -> None:
    venv = rslora.root / "openvino"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [site] = venv.glob("lib/python3*/site-packages")
    python = str(venv / "bin" / "python")
    # The inventory is out of date. The installed version counts.
    rslora.groups["jw3"]["agent_engine"] = {**OPENVINO, "python": python}
    install(site, "openvino-genai", "2030.1.0.0")
    done = rslora.deploy("--limit", "jw3")
    assert verdicts(rslora.reported("jw3-1", DESCRIBER_3B)) == [("openvino_genai", "2030.1.0.0", "unknown", False)]
    assert "warnings" not in done.of("jw3-1", "adapter_sync")
    assert f"note: jw3-1: adapter {DESCRIBER_3B}: engine openvino_genai 2030.1.0.0 unknown: " in done.output
    assert rslora.deploy("--limit", "jw3").changed() == []

    [record] = site.glob("openvino_genai-*.dist-info")
    record.rename(site / "openvino_genai-2026.4.1.0.dist-info")
    done = rslora.run("deploy", "--limit", "jw3")
    assert done.rc == 2, done.output
    assert verdicts(rslora.reported("jw3-1", DESCRIBER_3B)) == [("openvino_genai", "2026.4.1.0", "wrong", True)]


def test_deploy_holds_back_all_adapters_of_a_node_but_not_of_others(fleet: Fleet) -> None:
    fleet.offer(CLEANER_3B, "rslora")
    fleet.groups["jw2"]["agent_adapters"][0]["peft_config"] = {"use_rslora": True}
    fleet.groups["agents"]["agent_engine"] = ["llama.cpp"]
    done = fleet.run("deploy")
    assert done.rc == 2, done.output
    states = {name: fleet.reported(node, name)["state"] for name, node in ((CLEANER_3B, "jw2-1"), (CLEANER_8B, "jw2-1"))}
    assert states == {CLEANER_3B: "failed", CLEANER_8B: "skipped"}
    assert fleet.reported("jw3-1", DESCRIBER_3B)["state"] == "activated"
    assert contents(fleet.home("jw2-1") / "models") == {}


def test_role_with_unknown_engine_is_refused_by_the_node(fleet: Fleet) -> None:
    """A playbook without our own check of the inventory."""
    fleet.groups["jw3"]["agent_engine"] = "opnvino"
    play = {"hosts": "jw3", "gather_facts": False, "roles": ["lorafleet.delivery.agent"]}
    (fleet.root / "own.yml").write_text(json.dumps([play]), encoding="utf-8")
    done = fleet.run(str(fleet.root / "own"))
    assert done.rc == 2, done.output
    assert done.failures("jw3-1") == [
        "engines: names engine opnvino, which has no rules. Use the name of a known engine: openvino_genai."
    ]
    assert contents(fleet.home("jw3-1") / "models") == {}
