# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mutants of the transaction, each of which the crash tests must kill.

A mutant is a registered function that patches the collection's code, with the harness that must
kill it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import stat
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils import _files, _hashing
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._signing import acceptance, serials
from ansible_collections.lorafleet.delivery.plugins.module_utils._store import (
    activate,
    compare,
    permissions,
    plan,
    prediction,
    receipt,
    recovery,
    retention,
    state,
    transaction,
    trash,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.paths import AdapterPaths
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.plan import ActivationOptions, Plan
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import Intent

from tests.crash import disks, faults
from tests.crash.patched_os import PatchedOs
from tests.crash.scenarios import SCENARIOS, Stage, second_run, wrong_content
from tests.support.transactions import Method

Mutate = t.Callable[[pytest.MonkeyPatch], None]
Harness = t.Callable[[pathlib.Path], t.Iterator[list[str]]]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """``harness`` yields the violations after each fault;

    ``invariants`` are those that must be among them.
    """

    mutate: Mutate
    harness: Harness
    invariants: tuple[str, ...]
    needs_disk: bool = False


MUTANTS: dict[str, Mutant] = {}


def mutant(harness: Harness, *invariants: str, needs_disk: bool = False) -> t.Callable[[Mutate], Mutate]:
    """Register a mutant."""

    def enter(mutate: Mutate) -> Mutate:
        MUTANTS[mutate.__name__] = Mutant(mutate, harness, invariants, needs_disk)
        return mutate

    return enter


def _by_fault(fault: str, scenario: str, method: Method) -> Harness:
    return lambda directory: faults.violations(Stage(directory, SCENARIOS[scenario], method), fault)


def _by_power_cut(scenario: str, method: Method, neighbour: bool) -> Harness:
    return lambda directory: disks.violations(directory, "ext4", SCENARIOS[scenario], method, neighbour)


# Activation


@mutant(_by_fault(faults.KILL, "take_over", "exchange"), "I1")
def served_directory_is_removed_first(patch: pytest.MonkeyPatch) -> None:
    def exchange(new: str, served: str) -> None:
        shutil.rmtree(served)
        os.rename(new, served)

    patch.setattr(activate, "exchange", exchange)


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I1")
def two_renames_instead_of_an_exchange(patch: pytest.MonkeyPatch) -> None:
    def exchange(new: str, served: str) -> None:
        os.rename(served, f"{new}-old")
        os.rename(new, served)
        os.rename(f"{new}-old", new)

    patch.setattr(activate, "exchange", exchange)


@mutant(_by_fault(faults.KILL, "next_release", "symlink"), "I1")
def link_is_removed_first(patch: pytest.MonkeyPatch) -> None:
    def rename(source: str, target: str) -> None:
        if os.path.islink(target):
            os.unlink(target)
        os.rename(source, target)

    patch.setattr(activate, "os", PatchedOs(rename=rename))


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I1")
def files_are_moved_into_served_directory(patch: pytest.MonkeyPatch) -> None:
    def exchange(new: str, served: str) -> None:
        for path in sorted(pathlib.Path(new).rglob("*.*")):
            path.rename(pathlib.Path(served, path.relative_to(new)))

    patch.setattr(activate, "exchange", exchange)


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I11")
def serial_is_recorded_after_the_swap(patch: pytest.MonkeyPatch) -> None:
    swap = activate.activate

    def late(plan: Plan, state: t.Any, options: ActivationOptions) -> t.Optional[str]:
        adopted = swap(plan, state, dataclasses.replace(options, before_swap=lambda _plan: None))
        options.before_swap(plan)
        return adopted

    patch.setattr(transaction, "activate", late)


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I11")
def record_has_the_last_release_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(acceptance, "with_accepted", lambda record, new, _stored: serials.with_accepted(record, new, ()))


# Recovery


@mutant(_by_fault(faults.KILL, "take_over", "exchange"), "I2", "I5")
def recovery_is_skipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction, "recover", lambda paths: (state.read_state(paths), None))


@mutant(_by_fault(faults.KILL, "take_over", "exchange"), "I2")
def recovery_deletes_displaced_directory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "dispose", lambda paths, path: trash.remove(path))


@mutant(_by_fault(faults.KILL, "take_over", "exchange"), "I2")
def intent_is_not_recorded(patch: pytest.MonkeyPatch) -> None:
    def begin(paths: AdapterPaths, state: t.Any, step: str, release: str, new: str, method: str) -> Intent:
        return Intent(step, release, os.lstat(new).st_ino, method)

    patch.setattr(activate, "_begin", begin)


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I5")
def trash_is_not_emptied(patch: pytest.MonkeyPatch) -> None:
    for module in (activate, recovery):
        patch.setattr(module, "empty_trash", lambda paths: None)


@mutant(_by_fault(faults.KILL, "first", "exchange"), "I5")
def json_is_written_in_place(patch: pytest.MonkeyPatch) -> None:
    def write_json(path: str, data: t.Any, mode: int = 0o644) -> None:
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
            stream.flush()
            os.fsync(stream.fileno())

    for module in (activate, state, receipt):
        patch.setattr(module, "write_json", write_json)


# The disk


@mutant(_by_fault(faults.EIO, "next_release", "exchange"), "I10")
def failed_fsync_is_ignored(patch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def ignoring(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fsync(descriptor)

    patch.setattr(os, "fsync", ignoring)


def _fsync_only(patch: pytest.MonkeyPatch, wanted: t.Callable[[int], bool]) -> None:
    fsync = os.fsync

    def some(descriptor: int) -> None:
        if wanted(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    # Only in these modules: the neighbour has to go on flushing its own file.
    for module in (permissions, _hashing, _files):
        patch.setattr(module, "os", PatchedOs(fsync=some))


@mutant(_by_power_cut("next_release", "exchange", neighbour=True), "I1", needs_disk=True)
def files_are_not_flushed(patch: pytest.MonkeyPatch) -> None:
    _fsync_only(patch, stat.S_ISDIR)


@mutant(_by_power_cut("next_release", "symlink", neighbour=False), "I3", needs_disk=True)
def directories_are_not_flushed(patch: pytest.MonkeyPatch) -> None:
    _fsync_only(patch, stat.S_ISREG)


@mutant(_by_power_cut("take_over", "exchange", neighbour=False), "I3", needs_disk=True)
def nothing_is_flushed(patch: pytest.MonkeyPatch) -> None:
    _fsync_only(patch, lambda mode: False)


# Verification, lock, retention, errors


@mutant(wrong_content, "I1", "I9")
def content_is_not_hashed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "_content_differences", lambda *_: [])


@mutant(second_run, "I7")
def lock_is_not_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction, "locked", lambda *_: contextlib.nullcontext())


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I2")
def previous_release_is_pruned(patch: pytest.MonkeyPatch) -> None:
    def expired_releases(paths: AdapterPaths, state: t.Any, keep: int, linked: t.Optional[str], target: str) -> list[str]:
        return [name for name in paths.release_names() if name != state.active]

    patch.setattr(plan, "expired_releases", expired_releases)


@mutant(_by_fault(faults.KILL, "roll_back", "exchange"), "I3")
def active_release_is_pruned(patch: pytest.MonkeyPatch) -> None:
    def expired_releases(paths: AdapterPaths, state: t.Any, keep: int, linked: t.Optional[str], target: str) -> list[str]:
        return [name for name in paths.release_names() if name != state.previous]

    patch.setattr(plan, "expired_releases", expired_releases)


@mutant(_by_fault(faults.KILL, "next_release", "exchange"), "I8")
def receipts_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    forget_absent = retention.forget_absent

    def forget_all(paths: AdapterPaths, state: t.Any) -> None:
        forget_absent(paths, state)
        shutil.rmtree(paths.receipts)
        os.mkdir(paths.receipts)

    patch.setattr(activate, "forget_absent", forget_all)


@mutant(_by_fault(faults.KILL, "first", "exchange"), "I6")
def foreign_files_are_deleted(patch: pytest.MonkeyPatch) -> None:
    empty_trash = trash.empty_trash

    def thorough(paths: AdapterPaths) -> None:
        empty_trash(paths)
        for entry in os.scandir(os.path.dirname(paths.root)):
            if not entry.is_dir():
                os.unlink(entry)

    patch.setattr(activate, "empty_trash", thorough)


@mutant(_by_fault(faults.EIO, "next_release", "exchange"), "I4")
def failure_does_not_name_active_release(patch: pytest.MonkeyPatch) -> None:
    def attempt(step: t.Callable[..., t.Optional[str]], plan: Plan, options: ActivationOptions) -> t.Optional[str]:
        try:
            return step(plan, state.read_state(plan.request.paths), options)
        except OSError as exc:
            raise DeliveryError.of(plan.request.paths.name, f"failed: {exc.strerror}.") from exc

    patch.setattr(transaction, "_attempt", attempt)


@mutant(_by_fault(faults.EIO, "first", "symlink"), "no clean error")
def os_errors_are_not_converted(patch: pytest.MonkeyPatch) -> None:
    for module in (prediction, transaction):
        patch.setattr(module, "os_errors", lambda *_: contextlib.nullcontext())
