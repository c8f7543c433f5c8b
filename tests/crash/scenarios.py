# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenarios of the node's transaction: the state before, the run, and the expectations after it.

Version 2 is wanted. Version 1 is the one before, version 3 will be pruned, version 7 is a manual
copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import typing as t

from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

from tests.crash.signed import SignedReleases
from tests.crash.traced import Ended, attempt, traced
from tests.support import invariants
from tests.support.releases import WEIGHTS, content, release_of, stage, write_version
from tests.support.transactions import Method, Node

BY_HAND = b"made by hand"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """``prepare`` sets up the state before the run;

    ``active`` is the version that is active then.
    """

    name: str
    prepare: t.Callable[[Node, Method], None]
    active: t.Optional[int] = None
    rolls_back: bool = False
    # The file "unknown" must survive and, with by_hand, version 7 in the same directory.
    unknown: bool = False
    by_hand: bool = False
    # The serials of the signed versions, where signatures are required.
    serials: t.Mapping[int, int] = dataclasses.field(default_factory=dict)
    # The release in the store is damaged: itself (exchange), or through the served link (symlink).
    damaged: bool = False


def _first(node: Node, method: Method) -> None:
    stage(node.paths, 2)


def _take_over(node: Node, method: Method) -> None:
    write_version(node.served, 7)
    (node.served / "unknown").write_bytes(BY_HAND)
    stage(node.paths, 2)


def _take_over_of_the_same(node: Node, method: Method) -> None:
    write_version(node.served, 2)
    stage(node.paths, 2)
    shutil.rmtree(node.paths.staged(release_of(2)))


def _next_release(node: Node, method: Method) -> None:
    for version in (3, 1):
        node.deploy(version, method)
    stage(node.paths, 2)


def _roll_back(node: Node, method: Method) -> None:
    for version in (2, 1):
        node.deploy(version, method)


def _repair(node: Node, method: Method) -> None:
    node.deploy(2, method)
    (node.served / "unknown").write_bytes(BY_HAND)
    if method == "exchange":
        (node.release(2) / WEIGHTS).write_bytes(b"damage")
    stage(node.paths, 2)


def _other_method(node: Node, method: Method) -> None:
    """The adapter was activated with the other method before."""
    node.deploy(1, "symlink" if method == "exchange" else "exchange")
    stage(node.paths, 2)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first", _first),
        Scenario("take_over", _take_over, unknown=True, by_hand=True),
        Scenario("take_over_of_the_same", _take_over_of_the_same),
        Scenario("next_release", _next_release, active=1, serials={3: 1, 1: 2, 2: 3, 4: 4}),
        Scenario("roll_back", _roll_back, active=1, rolls_back=True, serials={2: 1, 1: 2, 4: 3}),
        Scenario("repair", _repair, active=2, unknown=True, damaged=True),
        Scenario("other_method", _other_method, active=1),
    )
}


class Stage:
    """A node prepared for one scenario and activation method, and the checks after a run on it."""

    def __init__(self, directory: pathlib.Path, scenario: Scenario, method: Method) -> None:
        self.scenario, self.method = scenario, method
        self.node = Node(directory)
        if scenario.serials:
            trust = directory.with_name("trust")
            trust.mkdir(exist_ok=True)
            self.node.accepting = SignedReleases(trust, scenario.serials).accepting
        scenario.prepare(self.node, method)
        # These must not change: another adapter, and a file of an administrator.
        write_version(self.node.models / "neighbour", 5)
        (self.node.store / "notes").write_bytes(BY_HAND)
        self.before = invariants.content_of(str(self.node.served))
        self.untouched = {str(directory): invariants.listing(str(directory))}
        self.template = directory.with_name("template")
        self.prelude: t.Callable[[], object] = lambda: None

    def save(self) -> None:
        """Save the current state for ``reset``."""
        shutil.copytree(self.node.base, self.template, symlinks=True)

    def reset(self) -> None:
        """Restore the saved state.

        The copy has other inodes, so ``prelude`` has to recreate a state with an unfinished step.
        """
        shutil.rmtree(self.node.base)
        shutil.copytree(self.template, self.node.base, symlinks=True)
        self.prelude()

    def disk(self) -> str:
        """Return a text that is equal for states of the disk in which another run does the same."""
        found = invariants.listing(str(self.node.base))
        places = (*self.node.models.glob("*"), *self.node.root.glob("*"), *self.node.root.glob("*/*"))
        where = {path.lstat().st_ino: str(path) for path in places}
        state = pathlib.Path(self.node.paths.state)
        recorded = json.loads(state.read_text()) if state.exists() else {}
        if recorded.get("intent"):
            recorded["intent"]["inode"] = where.get(recorded["intent"]["inode"], "gone")
        recorded["history"] = [entry["release"] for entry in recorded.get("history", [])]
        timed = ("state.json", "accepted.json", "/lock")
        found.update(dict.fromkeys((path for path in found if path.endswith(timed)), ""))
        accepted = pathlib.Path(self.node.paths.accepted)
        recorded["serial"] = json.loads(accepted.read_text())["serial"] if accepted.exists() else None
        return json.dumps([found, recorded], sort_keys=True)

    def run(self) -> bool:
        """The run into which faults are injected."""
        if self.scenario.rolls_back:
            self.node.roll_back(self.method)
        else:
            self.node.carry_out(2, self.method, keep=1)
        return self.node.changed

    def run_again(self) -> bool:
        """Run again after a fault.

        A finished rollback is not repeated, which would return to the other release.
        """
        if not self.scenario.rolls_back:
            return self.run()
        state = pathlib.Path(self.node.paths.state)
        if json.loads(state.read_text())["active"] != release_of(2):
            self.run()
        self.node.roll_back(self.method, release=release_of(2))
        return self.node.changed

    def violations(self, ended: Ended, fsync_failed: bool = False) -> list[str]:
        """Return the violations after a fault."""
        found = invariants.violations(self._expectations(ended, fsync_failed=fsync_failed))
        if ended.code == 2:
            found.append(f"no clean error: {ended.message}")
        return found

    def violations_after_another_run(self) -> list[str]:
        """Return the violations after two more runs, of which the second must change nothing."""
        ended = attempt(self.run_again)
        if ended.code != 0:
            return [f"I5 another run failed: {ended.message}"]
        last = attempt(self.run_again)
        again = {"code": last.code, "changed": last.changed, "message": last.message}
        return invariants.violations(self._expectations(ended, again=again))

    def violations_after_another_release(self) -> list[str]:
        """Return the violations after runs for another release, which must clean up too."""
        stage(self.node.paths, 4)
        try:
            # The second run may have to prune: a displaced directory can be a release that the
            # store lacked.
            for _again in range(3):
                self.node.carry_out(4, self.method, keep=1)
        except DeliveryError as exc:
            return [f"I5 a run for another release failed: {exc}"]
        again = {"code": 0, "changed": self.node.changed}
        expectations = self._expectations(Ended(0), again=again)
        expectations["adapters"][self.node.paths.name].update({"wanted": release_of(4), "active": None})
        return [f"with another release wanted: {what}" for what in invariants.violations(expectations)]

    def _expectations(self, ended: Ended, **more: t.Any) -> dict[str, t.Any]:
        survives = []
        if self.scenario.unknown:
            survives.append({"unknown": sha256(BY_HAND), **(content_sums(7) if self.scenario.by_hand else {})})
        active, serials = self.scenario.active, self.scenario.serials
        return {
            "models_dir": str(self.node.models),
            "store": str(self.node.store),
            "code": ended.code,
            "message": ended.message,
            "untouched": self.untouched,
            "adapters": {
                self.node.paths.name: {
                    "releases": {release_of(version): content_sums(version) for version in (1, 2, 3, 4)},
                    "wanted": release_of(2),
                    "active": None if active is None else release_of(active),
                    "before": self.before,
                    "survives": survives,
                    "method": self.method,
                    "damaged": [release_of(2)] if self.scenario.damaged else [],
                    "modes": {"file": "0644", "directory": "0755"},
                    "serial": None if active is None else serials.get(active),
                }
            },
            **more,
        }


def content_sums(version: int) -> invariants.Content:
    return {name: sha256(data) for name, data in content(version).items()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wrong_content(directory: pathlib.Path) -> t.Iterator[list[str]]:
    """Staged content of the right size that does not match the manifest must be refused."""
    for method in t.get_args(Method)[:2]:
        stage_of_method = directory / method
        stage_of_method.mkdir()
        stage = Stage(stage_of_method, SCENARIOS["next_release"], method)
        weights = pathlib.Path(stage.node.paths.staged(release_of(2)), WEIGHTS)
        data = weights.read_bytes()
        weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        ended = attempt(stage.run)
        yield [*stage.violations(ended), *(["I9 wrong content was not refused"] if ended.code != 1 else [])]


def second_run(directory: pathlib.Path) -> t.Iterator[list[str]]:
    """A second run while the first one is stopped must be refused and change nothing."""
    calls = "renameat2,?rename,?symlink,unlinkat"
    stage = Stage(directory, SCENARIOS["next_release"], "exchange")
    with traced(stage.run, "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=STOP") as first:
        while first.stopped():
            before = stage.disk()
            second = attempt(stage.run)
            found = [] if second.code == 1 and "another run" in second.message else [f"I7 a second run was not refused: {second}"]
            yield found + ([] if stage.disk() == before else ["I6 a second run changed something"])
            os.kill(first.process, signal.SIGCONT)
        ended = first.ended()
    yield stage.violations(ended)
