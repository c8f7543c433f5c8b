# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What --diff shows of two manifests."""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, Manifest, TensorEntry
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest_diff import manifest_diff
from ansible_collections.lorafleet.delivery.plugins.plugin_utils._contact.forms import Data, DictOf

from tests.support.releases import manifest_of

ONE = manifest_of(1)


def changed(config: dict[str, t.Any] | None = None, files: dict[str, str] | None = None, **more: t.Any) -> Manifest:
    """The first version with changed configuration and files. An empty hash leaves a file out."""
    hashes = {entry.path: entry.sha256 for entry in ONE.files} | {"adapter_config.json": "c" * 64} | (files or {})
    entries = tuple(FileEntry(path, 8, sha256) for path, sha256 in sorted(hashes.items()) if sha256)
    return dataclasses.replace(ONE, config={**ONE.config, **(config or {})}, files=entries, **more)


def test_diff_one_side_missing() -> None:
    known = {"release": ONE.release, "rank": 16, "alpha": 32}
    first, last = manifest_diff(None, ONE), manifest_diff(ONE, None)
    assert first["before"] == last["after"] == {}
    assert last["before"] == known
    assert first["after"].items() >= {**known, "tensors": "4 tensors, all new", "tokenizer": "new"}.items()


def test_diff_config_shows_changed_keys() -> None:
    before = changed({"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05, "bias": "none"})
    config = {"target_modules": ["v_proj", "q_proj"], "lora_dropout": 0.1, "use_rslora": True, "bias": "none"}
    after = changed(config, {"adapter_config.json": "d" * 64})
    diff = manifest_diff(before, after)
    assert diff["before"]["config"] == {"lora_dropout": 0.05, "use_rslora": "not set"}
    assert diff["after"]["config"] == {"lora_dropout": 0.1, "use_rslora": True}
    assert diff["before"].keys() - diff["after"].keys() == set()


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
def test_diff_tokenizer_and_chat_template(before: dict[str, str], after: dict[str, str], tokenizer: str, template: str) -> None:
    diff = manifest_diff(changed(files=before), changed(files={"adapter_config.json": "f" * 64, **after}))["after"]
    assert (diff["tokenizer"], diff["chat_template"]) == (tokenizer, template)


def test_diff_complete_names_tensors() -> None:
    first, second, *rest = ONE.tensors
    tensors = (dataclasses.replace(second, dtype="BF16"), *rest, dataclasses.replace(first, name="t9"))
    after = changed(tensors=tensors)
    short, complete = manifest_diff(ONE, after)["after"], manifest_diff(ONE, after, complete=True)["after"]
    assert short["tensors"] == complete["tensors"] == "1 of 4 tensors changed, 1 added, 1 removed"
    assert {key: complete[key] for key in complete.keys() - short.keys()} == {
        "tensors_changed": [second.name],
        "tensors_added": ["t9"],
        "tensors_removed": [first.name],
        "files_changed": ["adapter_config.json"],
    }


def test_diff_long_values_are_cut_unless_complete() -> None:
    pattern = {f"layer.{number}": number for number in range(100)}
    after = changed({"rank_pattern": pattern})
    assert len(manifest_diff(ONE, after)["after"]["config"]["rank_pattern"]) < 200
    assert manifest_diff(ONE, after, complete=True)["after"]["config"] == {"rank_pattern": pattern}


def test_diff_same_release_is_equal() -> None:
    diff = manifest_diff(ONE, ONE)
    assert diff["before"] == diff["after"]


def with_norms(**norms: float | None) -> Manifest:
    """The first version with a module for each keyword, whose two tensors have these norms."""
    tensors = [
        TensorEntry(f"base_model.model.model.layers.0.self_attn.{module}.lora_{matrix}.weight", "F32", (2, 2), "a" * 64, norm)
        for module, norm in norms.items()
        for matrix in "AB"
    ]
    return changed(files={"adapter_config.json": hashlib.sha256(repr(norms).encode()).hexdigest()}, tensors=tuple(tensors))


def test_diff_names_largest_change_of_norm() -> None:
    before, after = with_norms(q_proj=2.0, k_proj=1.0, gone=1.0), with_norms(q_proj=2.2, k_proj=0.5, new=1.0)
    short, complete = manifest_diff(before, after)["after"], manifest_diff(before, after, complete=True)["after"]
    assert short["largest_change_of_norm"] == complete["largest_change_of_norm"] == "-50 % in model.layers.0.self_attn.k_proj"
    assert "norms" not in short
    assert complete["norms"] == {"model.layers.0.self_attn.k_proj": "-50 %", "model.layers.0.self_attn.q_proj": "+10 %"}


def test_diff_small_change_of_norm_is_reported_as_noise() -> None:
    noise = manifest_diff(with_norms(q_proj=2.0), with_norms(q_proj=2.02))["after"]
    assert noise["largest_change_of_norm"] == "less than 5 % anywhere"


# A manifest from before norms were recorded, and a module of zeros.
@pytest.mark.parametrize("norm", [None, 0.0])
def test_diff_without_norm_reports_no_change(norm: float | None) -> None:
    assert "largest_change_of_norm" not in manifest_diff(with_norms(q_proj=norm), with_norms(q_proj=1.0))["after"]


def test_diff_norm_with_infinite_square_is_left_out() -> None:
    diff = manifest_diff(with_norms(q_proj=1e200), with_norms(q_proj=1e200, k_proj=1.0))["after"]
    assert "largest_change_of_norm" not in diff


@pytest.mark.parametrize(
    "config", [{"layers_to_transform": [*range(20_000)]}, {"auto_mapping": {"a": [[[[[[[[1]]]]]]]]}}, {"rank_pattern": {"q": 4}}]
)
def test_diff_complete_of_any_adapter_passes_the_gate_of_the_controller(config: dict[str, t.Any]) -> None:
    def tensors(sha256: str) -> tuple[TensorEntry, ...]:
        # More than an answer may have values.
        return tuple(
            TensorEntry(f"{number}.lora_A.weight", "F32", (1, 1), sha256, norm=float(number + 1)) for number in range(12_000)
        )

    before, after = changed(tensors=tensors("0" * 64)), changed(config, {"new": "1" * 64}, tensors=tensors("1" * 64))
    assert DictOf(DictOf(Data())).read(manifest_diff(before, after), "diff")
    diff = manifest_diff(before, after, complete=True)
    assert {side: DictOf(Data()).read(of_side, side).keys() for side, of_side in diff.items()} == {
        side: of_side.keys() for side, of_side in diff.items()
    }
    assert len(diff["after"]["tensors_changed"]) == 1000
    assert diff["after"]["tensors"] == "12000 of 12000 tensors changed"
