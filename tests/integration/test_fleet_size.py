# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node adds to a run does not depend on the number of nodes: counted, not timed."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import typing as t

import pytest

from tests.support.fleet import CLEANER_3B, Fleet, row
from tests.support.playbooks import Run

pytestmark = pytest.mark.slow

SMALL, LARGE = 3, 20


@dataclasses.dataclass(frozen=True)
class NothingToDo:
    """A deploy with nothing to do. ``variables`` is how often variables were put together."""

    fleet: Fleet
    run: Run
    variables: int

    def results(self) -> dict[str, list[dict[str, t.Any]]]:
        """The results by node, without what Ansible adds for its display."""
        found: dict[str, list[dict[str, t.Any]]] = collections.defaultdict(list)
        for entry in self.run.results:
            if entry["host"] in self.fleet.members["jw2"]:
                found[entry["host"]].append({**entry, "result": {**entry["result"], "invocation": None}})
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: pathlib.Path) -> list[NothingToDo]:
    """On a small and on a large fleet of equal nodes with one adapter each."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), tiny)
    fleet.groups["jw2"]["agent_adapters"] = [row(CLEANER_3B, "3b", 16)]
    fleet.members["jw3"] = []
    fleet.deploy()
    found = []
    for number in (SMALL, LARGE):
        fleet.add_copies("jw2", "jw2-1", [f"jw2-{one}" for one in range(len(fleet.members["jw2"]) + 1, number + 1)])
        count = fleet.root / f"count-{number}"
        callbacks = "fleet_count,fleet_record,lorafleet.delivery.delivery_report"
        done = fleet.run("deploy", environment={"ANSIBLE_CALLBACKS_ENABLED": callbacks, "FLEET_COUNT": str(count)})
        assert (done.rc, done.changed()) == (0, []), done.output
        assert {fleet.reported(node, CLEANER_3B)["verified"] for node in fleet.members["jw2"]} == {True}
        found.append(NothingToDo(fleet, done, count.stat().st_size))
    return found


def test_deploy_nothing_to_do_has_three_tasks_on_each_node(runs: list[NothingToDo]) -> None:
    for number, nothing in zip((SMALL, LARGE), runs):
        assert len(nothing.results()) == number
        tasks = {tuple(entry["action"].rpartition(".")[2] for entry in results) for results in nothing.results().values()}
        # Only the last one runs a module on the node; the second one runs once on the training
        # server.
        assert tasks == {("adapter_selection_info", "adapter_info", "adapter_up_to_date_info")}


def test_deploy_variables_are_put_together_a_constant_number_of_times_a_node(runs: list[NothingToDo]) -> None:
    small, large = (nothing.variables for nothing in runs)
    a_node = (large - small) / (LARGE - SMALL)
    # If every node read the variables of all others, each would add more than the average of few.
    assert 0 < a_node <= small / SMALL


def test_deploy_results_of_a_node_are_small_and_have_no_manifest(runs: list[NothingToDo]) -> None:
    sizes = [{len(json.dumps(results)) // 1000 for results in nothing.results().values()} for nothing in runs]
    assert max(max(of_fleet) for of_fleet in sizes) < 10
    manifest = next(runs[-1].fleet.stored("jw2-1", CLEANER_3B).glob("manifests/*.json")).read_text(encoding="utf-8")
    [tensor, *_more] = json.loads(manifest)["tensors"]
    text = json.dumps(runs[-1].results())
    assert CLEANER_3B in text
    assert tensor["name"] not in text
