# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for all unit tests: adapters that PEFT really trained and saved (see tests/tiny_adapters.py)."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._declared import Declared
from ansible_collections.lorafleet.delivery.tests import tiny_adapters

# What a delivery carries of an adapter directory; the model card stays behind.
TRAVELS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture
def adapter(tiny: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A fresh copy of the plain adapter, to be damaged at will: only the files that travel."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for name in TRAVELS:
        shutil.copy(tiny / "adapter" / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def base_config(tiny: pathlib.Path) -> dict[str, t.Any]:
    """The config.json of the tiny base."""
    config: dict[str, t.Any] = json.loads((tiny / "base" / "config.json").read_text(encoding="utf-8"))
    return config


@pytest.fixture(scope="session")
def declare(base_config: dict[str, t.Any]) -> t.Callable[..., Declared]:
    """Makes what an inventory declares: the plain adapter on the tiny base, but for the keywords given."""

    def make(base_config: dict[str, t.Any] | None = base_config, **row: t.Any) -> Declared:
        plain = {
            "name": "adapter",
            "base": tiny_adapters.BASE_NAME,
            "rank": 16,
            "alpha": 32.0,
            "target_modules": None,
            "peft_config": None,
            "extra_files": None,
            "allow_pickle": False,
        }
        return Declared.from_row({**plain, **row}, {"config": base_config})

    return make
