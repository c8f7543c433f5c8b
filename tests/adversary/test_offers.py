# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A training server that describes what it likes, in whole runs.

Each way is tested in tests/unit/plugins/module_utils/_adapter/test_offered.py and test_manifest.py.
"""

from __future__ import annotations

import pytest

from tests.support.fleet import CLEANER_3B, DESCRIBER_3B, Fleet, contents, travelling
from tests.support.hostile import rewrite_answers
from tests.support.troubleshooting import documented

# ``offer`` is the manifest of the describer's adapter, ``add`` puts a file into its directory.
LIE = """
    import os
    if module not in ("adapter_info", "preflight_info") or not result.get("manifests"):
        return result
    offers = [json.loads(text) for text in result["manifests"]]
    offer = offers[0]
    if offer["name"] != {name!r}:
        return result

    def add(path, content):
        data = content.encode()
        os.makedirs(os.path.dirname(os.path.join({directory!r}, path)), exist_ok=True)
        with open(os.path.join({directory!r}, path), "wb") as stream:
            stream.write(data)
        offer["files"].append({{"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}})

    {lie}
    offer["digest"] = release_digest(offer["files"])
    result["manifests"] = [json.dumps(one) for one in offers]
    return result
"""
LIES = {
    "code": ('add("evil.py", "harmless")', "has files that are not declared: evil.py."),
    "the base's configuration": ('add("config.json", "{}")', "has files that are not declared: config.json."),
    "a pickle beside the weights": ('add("adapter_model.bin", "x")', "exactly one weights file"),
    "many files": (
        '[add(f"additional_chat_templates/t{number}.jinja", "x") for number in range(200)]',
        "at most 128 are accepted.",
    ),
    "a giant file": ('offer["files"][1]["size"] = 10 ** 15', "has adapter_model.safetensors of 1000000.0 GB"),
    "another name": ('offer["name"] = "cron.d"', "adapter cron.d: has a manifest, but is not declared."),
    "a name above": ('offer["name"] = "../models"', "is not a valid name."),
    "another rank": ('offer["config"]["r"] = 64', "r in adapter_config.json: is 64; the inventory declares rank 16."),
    "another form": (
        'offer["made_of"] = {"digest": "0" * 64, "form": "folded", "factors": [1.0], "rounded": 0, "difference": 0.0}',
        "has the form folded; the inventory declares as_trained.",
    ),
    "two of one adapter": ("offers.append(offer)", "has two manifests."),
    "a key twice": ('offer["versions"] = {}; return {**result, "manifests": [\'{"name": "a", "name": "b"}\']}', "twice"),
}


def lie(fleet: Fleet, what: str) -> str:
    """Let the training server lie about the describer's adapter; returns what is said about it."""
    text, problem = LIES[what]
    code = LIE.format(name=DESCRIBER_3B, directory=str(fleet.source / DESCRIBER_3B), lie=text)
    rewrite_answers(fleet, "sbs29", code)
    return problem


@pytest.mark.parametrize("what", LIES)
def test_offer_that_the_inventory_does_not_permit_reaches_no_node(fleet: Fleet, what: str) -> None:
    problem = lie(fleet, what)
    done = fleet.run("deploy", "--limit", "jw3-1")
    assert done.rc == 2, done.output
    [message] = done.failures("jw3-1")
    assert message.startswith("sbs29: described adapters that it should have refused.")
    assert problem in message
    if what == "code":
        assert documented("offer that the inventory does not permit").fullmatch(message), message
    assert not fleet.served("jw3-1", DESCRIBER_3B).exists()
    assert not (fleet.home("jw3-1") / ".lorafleet").exists()
    assert fleet.reported("jw3-1", DESCRIBER_3B)["state"] == "failed"


def test_offer_that_the_inventory_does_not_permit_stops_only_nodes_that_serve_it(fleet: Fleet) -> None:
    lie(fleet, "code")
    done = fleet.run("deploy")
    assert done.failures("jw2-1") == []
    assert contents(fleet.served("jw2-1", CLEANER_3B)) == travelling(fleet.source / CLEANER_3B)


def test_preflight_names_a_training_server_that_offers_what_the_inventory_does_not_permit(fleet: Fleet) -> None:
    lie(fleet, "code")
    done = fleet.run("preflight", "--limit", "jw3-1")
    assert done.rc == 2, done.output
    assert "sbs29: answer: described adapters that it should have refused." in done.output
    assert "has files that are not declared: evil.py." in done.output
