# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is tested of an adapter, and for what its receipt stands."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import (
    Case,
    cases_of,
    keep_receipt,
    said,
    withdraw_receipt,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.state import State, write_state

from tests.support.releases import manifest_of, stage
from tests.support.transactions import Node

NAME = "adapter"
BASE = "tiny/Llama-64"
MANIFEST = manifest_of(1, NAME)
WITH_GOLDEN = dataclasses.replace(
    MANIFEST,
    golden={
        "schema": 1,
        "name": NAME,
        "digest": MANIFEST.digest,
        "prompts": "",
        "base": {},
        "recorded": {},
        "questions": [{"ids": [1, 2], "start": 1, "tokens": [[2]]}],
        "answer": {"on": [[[0.0]]], "off": [[[0.0]]]},
        "noise": {},
        "permitted": PERMITTED,
    },
)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path, NAME)


@pytest.fixture
def case_of(node: Node, tiny: pathlib.Path) -> t.Callable[..., Case]:
    """The case of the adapter on a node that has the base, but for the keywords given. Raises DeliveryError."""

    def make(**params: t.Any) -> Case:
        row = {"name": NAME, "base": BASE, "rank": 16, "alpha": 32}
        plain = {"target_modules": None, "peft_config": None, "extra_files": None, "allow_pickle": False}
        whole = {
            "adapters": [{**row, **plain}],
            "bases": {BASE: {"path": str(tiny / "base")}},
            "manifests": [MANIFEST.to_text()],
            "models_dir": str(node.models),
            "store": str(node.store),
            "level": "available",
            "minimum_level": None,
            "base_binding": "enforce",
            **params,
        }
        cases, problems = cases_of(whole)
        if problems:
            raise DeliveryError(*problems)
        (case,) = cases
        return case

    return make


@pytest.mark.parametrize(
    ("params", "required"),
    [
        ({}, "model"),
        ({"manifests": [WITH_GOLDEN.to_text()]}, "golden"),
        ({"bases": {BASE: {"config": {"model_type": "llama"}}}}, "adapter"),
        ({"bases": {BASE: None}, "level": "structure"}, "structure"),
        ({"level": "structure", "minimum_level": "adapter"}, "adapter"),
        ({"level": "model", "minimum_level": "structure"}, "model"),
    ],
)
def test_the_level_that_is_required(case_of: t.Callable[..., Case], params: dict[str, t.Any], required: str) -> None:
    case = case_of(**params)
    assert case.required == required
    assert case.least == (params.get("minimum_level") or required)
    # Questions are asked where there is something to compare with.
    assert (case.target("directory").questions is not None) == (required == "golden")


def test_what_is_staged_is_tested_until_it_is_in_the_store(node: Node, case_of: t.Callable[..., Case]) -> None:
    assert case_of().directory is None
    stage(node.paths, 1)
    staged = node.paths.staged(MANIFEST.release)
    assert case_of().directory == staged
    os.rename(staged, node.release(1))
    assert case_of().directory == str(node.release(1))


def test_an_active_release_without_its_manifest(node: Node, case_of: t.Callable[..., Case]) -> None:
    stage(node.paths, 1)
    write_state(node.paths, State().activated(MANIFEST.release, "exchange"))
    with pytest.raises(DeliveryError, match=rf"has no manifest of its active release {MANIFEST.release}\. Deploy it again\."):
        case_of(manifests=None)


def test_for_what_a_receipt_stands(case_of: t.Callable[..., Case]) -> None:
    case = case_of(manifests=[WITH_GOLDEN.to_text()])
    assert not case.stands("structure", "here")
    assert case.tells_more("structure", "here")

    found = {"environment": "here", "base": case.base_digest, "golden": case.golden_digest}
    case.receipt = {"level": "golden", **found}
    assert all(case.stands(level, "here") for level in ("structure", "adapter", "model", "golden"))
    # What the files alone show, no environment changes.
    assert [case.stands(level, "another") for level in ("structure", "adapter", "golden")] == [True, False, False]
    assert not case.tells_more("adapter", "here")
    assert case.tells_more("structure", "another")

    case.receipt = {"level": "golden", **found, "golden": "of another recording"}
    assert [case.stands(level, "here") for level in ("model", "golden")] == [True, False]
    # It says golden, for which it does not stand: less that is true is more.
    assert case.tells_more("model", "here")

    case.receipt = {"level": "adapter", **found}
    assert [case.stands(level, "here") for level in ("adapter", "model")] == [True, False]
    assert [case.tells_more(level, "here") for level in ("adapter", "model")] == [False, True]

    case.receipt = {"level": "golden", **found, "base": "another"}
    assert not case.stands("structure", "here")


def test_another_base_or_binding_is_not_what_a_receipt_is_of(case_of: t.Callable[..., Case]) -> None:
    known = [
        case_of(),
        case_of(base_binding="report"),
        case_of(bases={BASE: {"config": {"model_type": "llama"}}}),
        case_of(manifests=[dataclasses.replace(MANIFEST, base={"tensors": 1}).to_text()]),
    ]
    assert len({case.base_digest for case in known}) == 4


def test_a_receipt_says_what_was_found_and_can_be_withdrawn(case_of: t.Callable[..., Case]) -> None:
    case = case_of()
    case.facts.update(level="model", device="cpu", device_name="a CPU", versions={"torch": "2.13.0", "peft": "0.21.2"})
    case.notes.append("something to know")
    assert said(case.receipt) == "not tested"
    keep_receipt(case, "here")
    case = case_of()
    assert said(case.receipt) == "level model cpu a CPU peft 0.21.2 torch 2.13.0"
    assert (case.receipt or {})["notes"] == ["something to know"]
    assert case.stands("model", "here")
    withdraw_receipt(case)
    assert case_of().receipt is None


def test_a_receipt_that_cannot_be_written_or_removed_is_an_error(node: Node, case_of: t.Callable[..., Case]) -> None:
    case = case_of()
    case.facts.update(level="model")
    node.store.write_text("no directory")
    with pytest.raises(DeliveryError, match=r"passed, but its receipt cannot be written: .*Run with become"):
        keep_receipt(case, "here")
    # Left where it is, it would let a release pass that was refuted.
    with pytest.raises(DeliveryError, match=r"failed, but its earlier receipt cannot be removed: .*Run with become"):
        withdraw_receipt(case)
