# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest import FileEntry, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._manifest_diff import manifest_diff

from tests.small_releases import manifest_of

ONE = manifest_of(1)


def changed(config: dict[str, t.Any] | None = None, files: dict[str, str] | None = None, **more: t.Any) -> Manifest:
    """The first version with other values in its config and other files; an empty hash leaves a file out."""
    hashes = {entry.path: entry.sha256 for entry in ONE.files} | {"adapter_config.json": "c" * 64} | (files or {})
    entries = tuple(FileEntry(path, 8, sha256) for path, sha256 in sorted(hashes.items()) if sha256)
    return dataclasses.replace(ONE, config={**ONE.config, **(config or {})}, files=entries, **more)


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
