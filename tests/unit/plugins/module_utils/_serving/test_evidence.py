# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import Listed
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.desired import SERVED, UNPROVED, Refusal, Served
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.evidence import (
    BEHIND,
    FOREIGN,
    GONE,
    NOT_LOADED,
    Evidence,
    Known,
    evidence,
    strangers,
)

ACTIVE, OLD = "a" * 12, "b" * 12


@pytest.fixture
def store(tmp_path: pathlib.Path) -> str:
    for release in (ACTIVE, OLD):
        (tmp_path / "one" / "releases" / release).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return str(tmp_path)


def served(release: str, store: str, proof: str = SERVED) -> Served:
    root = os.path.join(store, "one", "releases", release)
    return Served(release, "0" * 64, root, ("one",), "vllm", "0.32.0", proof, "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("listed", "below", "recorded", "state"),
    [
        ("one", f"one/releases/{ACTIVE}", ACTIVE, SERVED),
        (f"one@{ACTIVE}", f"one/releases/{ACTIVE}", ACTIVE, SERVED),
        ("one", f"one/releases/{ACTIVE}", OLD, UNPROVED),
        ("one", f"one/releases/{ACTIVE}", None, UNPROVED),
        ("one", f"one/releases/{OLD}", OLD, BEHIND),
        (f"one@{OLD}", f"one/releases/{OLD}", OLD, BEHIND),
        ("one", "elsewhere", ACTIVE, FOREIGN),
        ("one", f"one/releases/{'c' * 12}", ACTIVE, GONE),
        ("two", f"one/releases/{ACTIVE}", ACTIVE, NOT_LOADED),
    ],
)
def test_evidence_has_the_state_that_list_store_and_record_prove(
    store: str, listed: str, below: str, recorded: str | None, state: str
) -> None:
    rows = {listed: Listed(listed, os.path.join(store, below))}
    found = evidence("one", ACTIVE, rows, Known(served(recorded, store) if recorded else None), store)
    assert found.state == state
    assert bool(found.why) == (state != SERVED)


def test_evidence_of_the_public_name_counts_before_that_of_a_release(store: str) -> None:
    root = os.path.join(store, "one", "releases")
    rows = {
        "one": Listed("one", os.path.join(root, OLD)),
        f"one@{ACTIVE}": Listed(f"one@{ACTIVE}", os.path.join(root, ACTIVE)),
    }
    assert evidence("one", ACTIVE, rows, Known(served(ACTIVE, store)), store).state == BEHIND


def test_evidence_of_what_serving_again_corrects_names_the_playbook_and_no_path(store: str) -> None:
    # The installed collection has no directory playbooks.
    root = os.path.join(store, "one", "releases")
    rows = {release: {"one": Listed("one", os.path.join(root, release))} for release in (ACTIVE, OLD)}
    for found in ({}, rows[OLD], rows[ACTIVE]):
        assert evidence("one", ACTIVE, found, Known(), store).why.endswith(" Run the playbook serve.")


def with_gateway(store: str, *listed: str, recorded: str = ACTIVE, refused: Refusal | None = None) -> Evidence:
    """The evidence of a node whose engine has these names; the last one is the adapter's own."""
    roots = {f"one@{release}": os.path.join(store, "one", "releases", release) for release in (ACTIVE, OLD)}
    rows = {name: Listed(name, roots.get(name, roots[f"one@{OLD}"])) for name in listed}
    record = dataclasses.replace(served(recorded, store), names=(f"one@{recorded}",))
    return evidence("one", ACTIVE, rows, Known(record, refused, alias=False), store)


def test_evidence_with_a_gateway_is_that_of_the_release_whatever_the_public_name_has(store: str) -> None:
    found = with_gateway(store, "one", f"one@{OLD}", f"one@{ACTIVE}")
    assert (found.state, found.listed) == (SERVED, f"one@{ACTIVE}")


def test_evidence_with_a_gateway_of_the_public_name_alone_is_not_loaded(store: str) -> None:
    found = with_gateway(store, "one")
    assert found.state == NOT_LOADED
    assert found.why == "The engine has only the name one, but a gateway leads to those of releases. Run the playbook serve."


def test_evidence_with_a_gateway_prefers_what_is_recorded(store: str) -> None:
    older = "a" * 11 + "0"
    os.makedirs(os.path.join(store, "one", "releases", older))
    assert with_gateway(store, f"one@{older}", f"one@{OLD}", recorded=OLD).listed == f"one@{OLD}"


@pytest.mark.parametrize(("release", "named"), [(ACTIVE, True), (OLD, False)])
def test_evidence_of_a_release_that_was_refused_says_why(store: str, release: str, named: bool) -> None:
    refused = Refusal(release, "2026-01-02T00:00:00+00:00", "it answers like another adapter.")
    found = with_gateway(store, f"one@{OLD}", recorded=OLD, refused=refused)
    said = "The engine did not serve it at 2026-01-02T00:00:00+00:00: it answers like another adapter. "
    assert found.state == BEHIND
    assert found.why == (f"Release {OLD} is served, {ACTIVE} is active. {said if named else ''}Run the playbook serve.")


def test_evidence_of_an_unproved_release_says_why(store: str) -> None:
    rows = {"one": Listed("one", os.path.join(store, "one", "releases", ACTIVE))}
    recorded = served(ACTIVE, store, UNPROVED)
    assert evidence("one", ACTIVE, rows, Known(recorded), store).state == UNPROVED


def test_evidence_of_a_list_of_names_is_that_of_the_record(store: str) -> None:
    rows = {"one": Listed("one")}
    assert evidence("one", ACTIVE, rows, Known(served(ACTIVE, store)), store).state == SERVED
    assert evidence("one", ACTIVE, rows, Known(served(OLD, store)), store).state == BEHIND


def test_strangers_are_names_of_others_and_that_of_the_base() -> None:
    rows = [
        Listed("one", "/a"),
        Listed(f"one@{ACTIVE}", "/b"),
        Listed("base", "/c"),
        Listed("guest", "/d"),
        Listed("one@x", "/e"),
    ]
    assert strangers(["one"], rows, "base") == [
        "base from /c has the name of the base, and takes its requests.",
        "guest from /d is not an adapter of this node.",
        "one@x from /e is not an adapter of this node.",
    ]
