# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest, TensorEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest_diff import manifest_diff

from tests.support.releases import manifest_of

ONE = manifest_of(1)


def changed(config: dict[str, t.Any] | None = None, files: dict[str, str] | None = None, **more: t.Any) -> Manifest:
    """The first version with other values in its config and other files; an empty hash leaves a file out."""
    hashes = {entry.path: entry.sha256 for entry in ONE.files} | {"adapter_config.json": "c" * 64} | (files or {})
    entries = tuple(FileEntry(path, 8, sha256) for path, sha256 in sorted(hashes.items()) if sha256)
    return dataclasses.replace(ONE, config={**ONE.config, **(config or {})}, files=entries, **more)


def test_where_there_is_nothing_on_one_side() -> None:
    known = {"release": ONE.release, "rank": 16, "alpha": 32}
    first, last = manifest_diff(None, ONE), manifest_diff(ONE, None)
    assert first["before"] == last["after"] == {}
    assert last["before"] == known
    assert first["after"].items() >= {**known, "tensors": "4 tensors, all new", "tokenizer": "new"}.items()


def test_the_config_before_and_after() -> None:
    before = changed({"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05, "bias": "none"})
    config = {"target_modules": ["v_proj", "q_proj"], "lora_dropout": 0.1, "use_rslora": True, "bias": "none"}
    after = changed(config, {"adapter_config.json": "d" * 64})
    said = manifest_diff(before, after)
    assert said["before"]["config"] == {"lora_dropout": 0.05, "use_rslora": "not set"}
    assert said["after"]["config"] == {"lora_dropout": 0.1, "use_rslora": True}
    assert said["before"].keys() - said["after"].keys() == set()


@pytest.mark.parametrize(
    ("before", "after", "tokenizer", "template"),
    [
        ({}, {}, "same", "none"),
        ({}, {"tokenizer.json": "d" * 64}, "changed", "none"),
        ({}, {"tokenizer.json": ""}, "removed", "none"),
        ({"tokenizer.json": ""}, {}, "new", "none"),
        ({"tokenizer.json": ""}, {"tokenizer.json": ""}, "none", "none"),
        ({}, {"chat_template.jinja": "d" * 64}, "same", "new"),
        ({"chat_template.jinja": "e" * 64}, {"chat_template.jinja": "d" * 64}, "same", "changed"),
        ({"chat_template.jinja": "d" * 64}, {}, "same", "removed"),
    ],
)
def test_tokenizer_and_template(before: dict[str, str], after: dict[str, str], tokenizer: str, template: str) -> None:
    said = manifest_diff(changed(files=before), changed(files={"adapter_config.json": "f" * 64, **after}))["after"]
    assert (said["tokenizer"], said["chat_template"]) == (tokenizer, template)


def test_tensors_are_counted_and_named_where_all_is_asked_for() -> None:
    first, second, *rest = ONE.tensors
    tensors = (dataclasses.replace(second, dtype="BF16"), *rest, dataclasses.replace(first, name="t9"))
    after = changed(tensors=tensors)
    short, whole = manifest_diff(ONE, after)["after"], manifest_diff(ONE, after, complete=True)["after"]
    assert short["tensors"] == whole["tensors"] == "1 of 4 tensors changed, 1 added, 1 removed"
    assert {key: whole[key] for key in whole.keys() - short.keys()} == {
        "tensors_changed": [second.name],
        "tensors_added": ["t9"],
        "tensors_removed": [first.name],
        "files_changed": ["adapter_config.json"],
    }


def test_long_values_are_cut_but_where_all_is_asked_for() -> None:
    pattern = {f"layer.{number}": number for number in range(100)}
    after = changed({"rank_pattern": pattern})
    assert len(manifest_diff(ONE, after)["after"]["config"]["rank_pattern"]) < 200
    assert manifest_diff(ONE, after, complete=True)["after"]["config"] == {"rank_pattern": pattern}


def test_the_same_release_differs_in_nothing() -> None:
    said = manifest_diff(ONE, ONE)
    assert said["before"] == said["after"]


def with_norms(**norms: float | None) -> Manifest:
    """The first version with a module for each keyword, whose two tensors have these norms."""
    tensors = [
        TensorEntry(f"base_model.model.model.layers.0.self_attn.{module}.lora_{matrix}.weight", "F32", (2, 2), "a" * 64, norm)
        for module, norm in norms.items()
        for matrix in "AB"
    ]
    return changed(files={"adapter_config.json": hashlib.sha256(repr(norms).encode()).hexdigest()}, tensors=tuple(tensors))


def test_the_largest_change_of_norm_is_named_and_the_others_where_all_is_asked_for() -> None:
    before, after = with_norms(q_proj=2.0, k_proj=1.0, gone=1.0), with_norms(q_proj=2.2, k_proj=0.5, new=1.0)
    short, whole = manifest_diff(before, after)["after"], manifest_diff(before, after, complete=True)["after"]
    assert short["largest_change_of_norm"] == whole["largest_change_of_norm"] == "-50 % in model.layers.0.self_attn.k_proj"
    assert "norms" not in short
    assert whole["norms"] == {"model.layers.0.self_attn.k_proj": "-50 %", "model.layers.0.self_attn.q_proj": "+10 %"}


def test_what_is_noise_is_called_that_and_what_was_not_taken_is_not_said() -> None:
    noise = manifest_diff(with_norms(q_proj=2.0), with_norms(q_proj=2.02))["after"]
    assert noise["largest_change_of_norm"] == "less than 5 % anywhere"
    # Manifests of before norms were taken, and modules of zeros.
    for old in (None, 0.0):
        assert "largest_change_of_norm" not in manifest_diff(with_norms(q_proj=old), with_norms(q_proj=1.0))["after"]


def test_norms_whose_squares_are_no_floats_break_nothing() -> None:
    said = manifest_diff(with_norms(q_proj=1e200), with_norms(q_proj=1e200, k_proj=1.0))["after"]
    assert "largest_change_of_norm" not in said
