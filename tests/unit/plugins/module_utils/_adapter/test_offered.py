# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests of adapters that PEFT saved, changed as a hostile training server could."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import FileEntry, MadeOf, Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.offered import (
    check_offered,
    declared_in,
    manifest_problems,
)
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.permitted_files import MAX_EXTRA, MAX_FILES
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

Declare = c.Callable[..., Declaration]
ZEROS = "0" * 64
WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"


@pytest.fixture
def offered(adapter: pathlib.Path, declare: Declare, tmp_path: pathlib.Path) -> Manifest:
    return describe(str(adapter), declare(), {}, str(tmp_path / "cache")).manifest


def with_files(manifest: Manifest, **sizes: int | None) -> Manifest:
    """The manifest with other sizes of files, or without them. Two underscores are a dot."""
    known = {entry.path: entry for entry in manifest.files}
    for name, size in sizes.items():
        path = name.replace("__", ".")
        known.pop(path, None)
        if size is not None:
            known[path] = FileEntry(path, size, ZEROS)
    return dataclasses.replace(manifest, files=tuple(sorted(known.values())))


def said(manifest: Manifest, declared: Declaration) -> str:
    return "\n".join(map(str, manifest_problems(manifest, declared)))


def test_manifest_of_described_adapter_is_accepted(offered: Manifest, declare: Declare) -> None:
    assert manifest_problems(offered, declare()) == []
    assert manifest_problems(offered, declare(base_config=None)) == []


def test_manifest_with_the_path_of_its_base_is_accepted_where_only_the_host_knows_the_base(
    offered: Manifest, declare: Declare
) -> None:
    """PEFT records the directory that the base was loaded from."""
    offered = dataclasses.replace(offered, config={**offered.config, "base_model_name_or_path": "/data/models/tiny"})
    assert manifest_problems(offered, declare(base_config=None, base_path="/models/tiny")) == []
    assert 'is "/data/models/tiny"; the inventory declares' in said(offered, declare(base_config=None))


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"evil__py": 1}, "has files that are not declared: evil.py."),
        ({"run__sh": 1, "config__json": 1}, "has files that are not declared: config.json, run.sh."),
        ({"training_args__bin": 1}, "has files that are not declared: training_args.bin."),
        ({"tokenizer__PY": 1}, "has files that are not declared: tokenizer.PY."),
        ({"additional_chat_templates/x__py": 1}, "not declared: additional_chat_templates/x.py."),
        ({"adapter_model__bin": 1}, "does not have adapter_config.json and exactly one weights file, but"),
        ({"adapter_model__safetensors": None}, "does not have adapter_config.json and exactly one weights file, but"),
        ({"adapter_config__json": None}, "does not have adapter_config.json and exactly one weights file, but"),
        ({"adapter_model__safetensors": None, "adapter_model__bin": 1}, "a pickle, which its row does not permit."),
        ({"adapter_config__json": (1 << 20) + 1}, "has adapter_config.json of 1.0 MB; at most 1.0 MB are accepted."),
        ({"tokenizer__json": (1 << 26) + 1}, "has tokenizer.json of 67.1 MB; at most 67.1 MB are accepted."),
        ({"adapter_model__safetensors": 10**15}, "has adapter_model.safetensors of 1000000.0 GB for"),
        ({"adapter_model__safetensors": 8}, "has adapter_model.safetensors of 8 B for"),
    ],
)
def test_files_that_no_row_permits_are_refused(
    offered: Manifest, declare: Declare, sizes: dict[str, int | None], problem: str
) -> None:
    assert problem in said(with_files(offered, **sizes), declare())


def test_files_that_the_row_permits_are_accepted(offered: Manifest, declare: Declare) -> None:
    notes = with_files(offered, notes__txt=5)
    assert "notes.txt" in said(notes, declare())
    assert manifest_problems(notes, declare(extra_files=["notes.txt"])) == []
    assert "at most 1.1 GB" in said(with_files(offered, notes__txt=MAX_EXTRA + 1), declare(extra_files=["notes.txt"]))
    code = with_files(offered, notes__py=5)
    assert "notes.py" in said(code, declare(extra_files=["notes.py"]))
    pickle = with_files(offered, adapter_model__safetensors=None, adapter_model__bin=5)
    assert manifest_problems(pickle, declare(allow_pickle=True)) == []
    assert f"has {PICKLE} of" in said(with_files(pickle, adapter_model__bin=1 << 35), declare(allow_pickle=True))


def test_many_files_are_refused(offered: Manifest, declare: Declare) -> None:
    templates = {f"additional_chat_templates/t{number}__jinja": 1 for number in range(MAX_FILES)}
    assert f"has {MAX_FILES + len(offered.files)} files; at most {MAX_FILES} are accepted." in said(
        with_files(offered, **templates), declare()
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"r": 8}, "r in adapter_config.json: is 8; the inventory declares rank 16."),
        ({"lora_alpha": 64}, "lora_alpha in adapter_config.json: is 64; the inventory declares alpha 32."),
        ({"base_model_name_or_path": "other/base"}, 'is "other/base"; the inventory declares'),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save in adapter_config.json"),
    ],
)
def test_configuration_that_the_row_does_not_permit_is_refused(
    offered: Manifest, declare: Declare, change: dict[str, t.Any], problem: str
) -> None:
    assert problem in said(dataclasses.replace(offered, config={**offered.config, **change}), declare())


def test_tensors_that_do_not_fit_the_configuration_are_refused(offered: Manifest, declare: Declare) -> None:
    first, *others = offered.tensors
    assert manifest_problems(dataclasses.replace(offered, tensors=tuple(others)), declare())
    larger = dataclasses.replace(first, shape=(first.shape[0], first.shape[1] * 2))
    assert manifest_problems(dataclasses.replace(offered, tensors=(larger, *others)), declare())
    unknown = dataclasses.replace(first, dtype="F1024")
    assert "of unknown size" in said(dataclasses.replace(offered, tensors=(unknown, *others)), declare())
    huge = dataclasses.replace(first, shape=(1 << 40, 1 << 40))
    assert "of unknown size" in said(dataclasses.replace(offered, tensors=(huge, *others)), declare())


def test_folded_adapter_is_refused_unless_declared(offered: Manifest, declare: Declare) -> None:
    folded = dataclasses.replace(offered, made_of=MadeOf(ZEROS, "folded", (1.0,), 0))
    assert "has the form folded; the inventory declares as_trained." in said(folded, declare())
    config = {**offered.config, "lora_alpha": 16}
    assert manifest_problems(dataclasses.replace(folded, config=config), declare(form="folded")) == []


def test_manifests_of_others_than_the_declared_adapters_are_refused(offered: Manifest, declare: Declare) -> None:
    check_offered([offered], [declare()])
    other = dataclasses.replace(offered, name="cron.d")
    with pytest.raises(DeliveryError, match=r"adapter cron\.d: has a manifest, but is not declared\."):
        check_offered([offered, other], [declare()])
    with pytest.raises(DeliveryError, match="adapter adapter: has two manifests"):
        check_offered([offered, offered], [declare()])


def test_declared_in_knows_nothing_of_a_base_of_another_form() -> None:
    keys = ("target_modules", "peft_config", "extra_files", "subdirectory")
    row = {"name": "a", "base": "b", "rank": 1, "alpha": 1, "allow_pickle": False, **dict.fromkeys(keys)}
    bases: tuple[t.Any, ...] = ({}, {"b": None}, {"b": "x"}, {"b": {"config": None}})
    assert {declared_in([row], one)[0].base_config is None for one in bases} == {True}
