# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The oracle finds each broken invariant, and nothing in a consistent node."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from tests.support import invariants
from tests.support.releases import WEIGHTS, content, manifest_of, release_of, write_version
from tests.support.transactions import Method, Node

METHODS: tuple[Method, ...] = ("exchange", "symlink")


def sums(version: int) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in content(version).items()}


class Case:
    """A node where version 2 followed version 1 and a manual copy of version 7."""

    def __init__(self, base: pathlib.Path, method: Method) -> None:
        self.node = Node(base)
        write_version(self.node.served, 7)
        for version in (1, 2):
            self.node.deploy(version, method)
        (base / "models" / "neighbour").write_text("neighbour")
        self.adapter: dict[str, t.Any] = {
            "releases": {release_of(version): sums(version) for version in (1, 2, 3)},
            "wanted": release_of(2),
            "active": release_of(1),
            "before": sums(1),
            "survives": [sums(7)],
            "method": method,
            "modes": {"file": "0644", "directory": "0755"},
        }
        self.expectations: dict[str, t.Any] = {
            "models_dir": str(self.node.models),
            "store": str(self.node.store),
            "code": 0,
            "again": {"code": 0, "changed": False},
            "untouched": {str(base): invariants.listing(str(base))},
            "adapters": {self.node.paths.name: self.adapter},
        }

    def violations(self) -> list[str]:
        return invariants.violations(self.expectations)

    def record(self, **changes: t.Any) -> None:
        state = pathlib.Path(self.node.paths.state)
        state.write_text(json.dumps({**json.loads(state.read_text()), **changes}))


@pytest.fixture
def case(tmp_path: pathlib.Path) -> Case:
    return Case(tmp_path, "exchange")


@pytest.mark.parametrize("method", METHODS)
def test_violations_of_consistent_node_are_none(tmp_path: pathlib.Path, method: Method) -> None:
    case = Case(tmp_path, method)
    assert case.violations() == []
    case.expectations.update(code=None, again=None)
    case.node.roll_back(method)
    assert case.violations() == []
    case.expectations.update(code=1, message="failed. Active is the one before.")
    assert case.violations() == []


def torn(case: Case) -> None:
    (case.node.served / WEIGHTS).write_bytes(content(1)[WEIGHTS])


def absent(case: Case) -> None:
    shutil.rmtree(case.node.served)


def extra_file(case: Case) -> None:
    (case.node.served / "more").write_text("")


def broken_link(case: Case) -> None:
    absent(case)
    case.node.served.symlink_to("nowhere")
    case.adapter["before"] = None


def link_instead_of_file(case: Case) -> None:
    path = case.node.served / WEIGHTS
    path.rename(case.node.models / "elsewhere")
    path.symlink_to(case.node.models / "elsewhere")


def wrong_file_mode(case: Case) -> None:
    (case.node.served / WEIGHTS).chmod(0o600)


def previous_release_deleted(case: Case) -> None:
    shutil.rmtree(case.node.release(1))


def quarantine_deleted(case: Case) -> None:
    shutil.rmtree(next(case.node.root.glob("adopted-*")))


def quarantine_in_the_trash(case: Case) -> None:
    next(case.node.root.glob("adopted-*")).rename(case.node.root / "trash-adopted")
    case.expectations.update(code=None, again=None)


def success_with_old_release_served(case: Case) -> None:
    shutil.rmtree(case.node.served)
    write_version(case.node.served, 1)


def success_without_stored_release(case: Case) -> None:
    shutil.rmtree(case.node.release(2))


def success_with_unfinished_step(case: Case) -> None:
    case.record(intent={"step": "activate"})


def success_without_recorded_previous_release(case: Case) -> None:
    case.record(previous=None)


def success_without_stored_previous_release(case: Case) -> None:
    case.record(previous=release_of(3))
    case.adapter["active"] = None


def success_with_other_method(case: Case) -> None:
    case.adapter["method"] = "symlink"


def failure_without_active_release(case: Case) -> None:
    case.expectations.update(code=1, message="failed.", again=None)


def state_cannot_be_read(case: Case) -> None:
    pathlib.Path(case.node.paths.state).write_text('{"act')
    case.expectations.update(code=None, again=None)


def receipt_is_empty(case: Case) -> None:
    pathlib.Path(case.node.paths.receipt(release_of(1))).write_text("")
    case.expectations.update(code=None, again=None)


def leftover_in_the_store(case: Case) -> None:
    (case.node.root / "incoming-0").mkdir()


def leftover_among_the_manifests(case: Case) -> None:
    pathlib.Path(case.node.paths.manifest(release_of(2)) + ".new").write_text("")


def leftover_in_staging(case: Case) -> None:
    pathlib.Path(case.node.paths.staged(release_of(3))).mkdir()


def leftover_in_the_models_directory(case: Case) -> None:
    (case.node.models / f".exchange-probe-{case.node.paths.name}").mkdir()
    case.expectations["untouched"] = {}


def store_that_users_cannot_traverse(case: Case) -> None:
    case.node.root.chmod(0o700)


def another_run_changes_something(case: Case) -> None:
    case.expectations["again"] = {"code": 0, "changed": True}


def another_run_fails(case: Case) -> None:
    case.expectations["again"] = {"code": 1, "changed": False}


def neighbour_changed(case: Case) -> None:
    (case.node.models / "neighbour").write_text("changed")


def neighbour_mode_changed(case: Case) -> None:
    (case.node.models / "neighbour").chmod(0o604)


def neighbour_deleted(case: Case) -> None:
    (case.node.models / "neighbour").unlink()


def foreign_directory_in_the_models_directory(case: Case) -> None:
    (case.node.models / f"{case.node.paths.name}.old").mkdir()


def receipt_deleted(case: Case) -> None:
    pathlib.Path(case.node.paths.receipt(release_of(2))).unlink()


def release_with_wrong_content(case: Case) -> None:
    (case.node.release(1) / "tokenizer.json").write_text("{}")
    write_version(case.node.root / "adopted-1", 1)


def release_with_a_hard_link(case: Case) -> None:
    os.link(case.node.release(1) / WEIGHTS, case.node.root / "adopted-link")


def release_that_is_a_file(case: Case) -> None:
    pathlib.Path(case.node.paths.release(release_of(3))).write_text("")


def success_after_a_failed_fsync(case: Case) -> None:
    case.expectations["fsync_failed"] = True


def accepted(case: Case, version: int, serial: int) -> None:
    """Require signatures, where this version is accepted, and serial 7 was before."""
    statement = json.dumps({"digest": manifest_of(version).digest, "serial": serial})
    record = {"serial": serial, "accepted": [{"statement": statement}]}
    pathlib.Path(case.node.paths.accepted).write_text(json.dumps(record))
    case.adapter["serial"] = 7


def other_release_is_accepted(case: Case) -> None:
    accepted(case, 1, 8)


def nothing_is_accepted(case: Case) -> None:
    case.adapter["serial"] = 7


def serial_is_lower(case: Case) -> None:
    accepted(case, 2, 6)


BROKEN: dict[str, list[t.Callable[[Case], None]]] = {
    "I1": [torn, absent, extra_file, broken_link, link_instead_of_file, wrong_file_mode],
    "I2": [previous_release_deleted, quarantine_deleted, quarantine_in_the_trash],
    "I3": [
        success_with_old_release_served,
        success_without_stored_release,
        success_with_unfinished_step,
        success_without_recorded_previous_release,
        success_without_stored_previous_release,
        success_with_other_method,
    ],
    "I4": [failure_without_active_release],
    "I5": [
        state_cannot_be_read,
        receipt_is_empty,
        leftover_in_the_store,
        leftover_among_the_manifests,
        leftover_in_staging,
        leftover_in_the_models_directory,
        store_that_users_cannot_traverse,
        another_run_changes_something,
        another_run_fails,
    ],
    "I6": [neighbour_changed, neighbour_mode_changed, neighbour_deleted, foreign_directory_in_the_models_directory],
    "I8": [receipt_deleted],
    "I9": [release_with_wrong_content, release_with_a_hard_link, release_that_is_a_file],
    "I10": [success_after_a_failed_fsync],
    "I11": [other_release_is_accepted, nothing_is_accepted, serial_is_lower],
}


@pytest.mark.parametrize(
    ("invariant", "breaks"),
    [pytest.param(invariant, breaks, id=breaks.__name__) for invariant, breakers in BROKEN.items() for breaks in breakers],
)
def test_violations_include_broken_invariant(case: Case, invariant: str, breaks: t.Callable[[Case], None]) -> None:
    breaks(case)
    assert invariant in {line.split()[0] for line in case.violations()}


def test_violations_of_release_that_is_accepted_are_none(case: Case) -> None:
    accepted(case, 2, 7)
    assert case.violations() == []


def test_violations_include_held_lock(case: Case) -> None:
    with open(case.node.paths.lock, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert case.violations() == [f"I7 {case.node.paths.name}: the lock is still held"]


def test_violations_ignore_release_damaged_before_unfinished_run(case: Case) -> None:
    (case.node.release(1) / "tokenizer.json").write_text("{}")
    case.adapter["damaged"] = [release_of(1)]
    case.expectations.update(code=None, again=None)
    assert case.violations() == []


def test_program_prints_listing_and_violations(case: Case) -> None:
    """The oracle runs as on a node: one file, without installed packages."""
    command = [sys.executable, "-I", "-S", invariants.__file__]

    def run(*arguments: str, **more: t.Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, **more, check=False)

    listed = run("list", str(case.node.models))
    assert json.loads(listed.stdout) == {str(case.node.models): invariants.listing(str(case.node.models))}
    case.expectations["untouched"] = json.loads(listed.stdout)
    consistent = run(input=json.dumps(case.expectations))
    assert (consistent.returncode, json.loads(consistent.stdout)) == (0, [])
    torn(case)
    broken = run(input=json.dumps(case.expectations))
    assert broken.returncode == 1
    assert [line.split()[0] for line in json.loads(broken.stdout)] == ["I1", "I3"]
