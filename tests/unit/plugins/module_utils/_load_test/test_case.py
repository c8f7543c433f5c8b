# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases of a load test and the validity of their receipts."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import MadeOf
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._files import write_json
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.comparison import PERMITTED
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.case import Case, find_cases
from ansible_collections.lorafleet.delivery.plugins.module_utils._load_test.options import LoadTestOptions
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
    """Return a function that makes the adapter's case on a node with the base.

    Raises DeliveryError.
    """

    def make(form: str = "as_trained", **params: t.Any) -> Case:
        row = {"name": NAME, "base": BASE, "rank": 16, "alpha": 32, "form": form}
        plain = {"target_modules": None, "peft_config": None, "extra_files": None, "allow_pickle": False}
        options = {
            "adapters": [{**row, **plain}],
            "bases": {BASE: {"path": str(tiny / "base")}},
            "manifests": [MANIFEST.to_text()],
            "models_dir": str(node.models),
            "store": str(node.store),
            "python": "python",
            "device": "cpu",
            "level": "available",
            "minimum_level": None,
            "base_binding": "enforce",
            **params,
        }
        cases, problems = find_cases(LoadTestOptions(**options))
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
def test_find_cases_derives_required_and_minimum_level(
    case_of: t.Callable[..., Case], params: dict[str, t.Any], required: str
) -> None:
    case = case_of(**params)
    assert case.required == required
    assert case.minimum == (params.get("minimum_level") or required)
    # Only level golden has questions.
    assert (case.target("directory").questions is not None) == (required == "golden")


def test_find_cases_folded_adapter_is_compared_with_what_it_was_made_of(node: Node, case_of: t.Callable[..., Case]) -> None:
    made_of = MadeOf("1" * 64, "folded", (2.0,), 0)
    folded = dataclasses.replace(MANIFEST, made_of=made_of)
    case = case_of(manifests=[folded.to_text()], form="folded")
    assert (case.declared.rank, case.declared.alpha) == (16, 16.0)
    # The inventory of an audit may already declare what the next deploy brings.
    stage(node.paths, 1)
    write_json(node.paths.manifest(MANIFEST.release), folded.to_json())
    write_state(node.paths, State().activated(MANIFEST.release, "exchange"))
    assert case_of(manifests=None).declared.alpha == 16.0


@pytest.mark.parametrize(
    ("form", "declared"), [("folded", "as_trained"), ("as_trained", "folded"), ("folded", "folded_same_dtype")]
)
def test_find_cases_other_form_than_declared_is_an_error(case_of: t.Callable[..., Case], form: str, declared: str) -> None:
    made_of = None if form == "as_trained" else MadeOf("1" * 64, form, (2.0,), 0)
    manifest = dataclasses.replace(MANIFEST, made_of=made_of)
    with pytest.raises(DeliveryError, match=f"is described in form {form}; the inventory declares form {declared}"):
        case_of(manifests=[manifest.to_text()], form=declared)


def test_find_cases_prefers_the_store_to_staging(node: Node, case_of: t.Callable[..., Case]) -> None:
    assert case_of().directory is None
    stage(node.paths, 1)
    staged = node.paths.staged(MANIFEST.release)
    assert case_of().directory == staged
    os.rename(staged, node.release(1))
    assert case_of().directory == str(node.release(1))


def test_find_cases_active_release_without_manifest_is_an_error(node: Node, case_of: t.Callable[..., Case]) -> None:
    stage(node.paths, 1)
    write_state(node.paths, State().activated(MANIFEST.release, "exchange"))
    with pytest.raises(DeliveryError, match=rf"has no manifest of its active release {MANIFEST.release}\. Deploy it again\."):
        case_of(manifests=None)


def test_receipt_is_valid_for_its_level_base_environment_and_golden(case_of: t.Callable[..., Case]) -> None:
    case = case_of(manifests=[WITH_GOLDEN.to_text()])
    assert not case.has_valid_receipt("structure", "here")
    assert case.improves_receipt("structure", "here")

    found = {"environment": "here", "base": case.base_digest, "golden": case.golden_digest}
    case = dataclasses.replace(case, receipt={"level": "golden", **found})
    assert all(case.has_valid_receipt(level, "here") for level in ("structure", "adapter", "model", "golden"))
    # Level structure does not depend on the environment.
    assert [case.has_valid_receipt(level, "another") for level in ("structure", "adapter", "golden")] == [True, False, False]
    assert not case.improves_receipt("adapter", "here")
    assert case.improves_receipt("structure", "another")

    case = dataclasses.replace(case, receipt={"level": "golden", **found, "golden": "of another recording"})
    assert [case.has_valid_receipt(level, "here") for level in ("model", "golden")] == [True, False]
    # The receipt claims golden, for which it is invalid: a lower level is an improvement.
    assert case.improves_receipt("model", "here")

    case = dataclasses.replace(case, receipt={"level": "adapter", **found})
    assert [case.has_valid_receipt(level, "here") for level in ("adapter", "model")] == [True, False]
    assert [case.improves_receipt(level, "here") for level in ("adapter", "model")] == [False, True]

    case = dataclasses.replace(case, receipt={"level": "golden", **found, "base": "another"})
    assert not case.has_valid_receipt("structure", "here")


def test_base_digest_depends_on_base_and_binding(case_of: t.Callable[..., Case]) -> None:
    known = [
        case_of(),
        case_of(base_binding="report"),
        case_of(bases={BASE: {"config": {"model_type": "llama"}}}),
        case_of(manifests=[dataclasses.replace(MANIFEST, base={"tensors": 1}).to_text()]),
    ]
    assert len({case.base_digest for case in known}) == 4
