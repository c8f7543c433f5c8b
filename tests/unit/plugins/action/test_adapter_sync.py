# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where adapter_sync fetches files from. Real transfers are in tests/integration."""

from __future__ import annotations

import types
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.action.adapter_sync import ActionModule
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError


def place(**directory: t.Any) -> tuple[str, dict[str, str]]:
    action = ActionModule.__new__(ActionModule)
    described = {"machine": "m", "inodes": [[1, 2]], "mark": None, "shareable": False, **directory}
    arguments = {"source_models_dir": "/home/models", "source_directories": {"a": described} if directory else {}}
    action._task = types.SimpleNamespace(args=arguments)
    return action._place_of("a")


def test_place_of_adapter_is_what_the_source_described() -> None:
    links = {"tokenizer.json": "/data/blobs/1"}
    assert place(path="/data/a", links=links) == ("/data/a", links)


def test_place_of_undescribed_adapter_is_the_directory_of_its_name() -> None:
    assert place() == ("/home/models/a", {})


@pytest.mark.parametrize(
    ("directory", "problem"),
    [
        ({"path": "data/a"}, "a.path is not an absolute path"),
        ({"path": "/data/a", "links": {"tokenizer.json": "blobs/1"}}, "a.links.tokenizer.json is not an absolute path"),
        ({"path": "/data/a", "links": "none"}, "a.links is not a dictionary"),
        ({"path": 5}, "a.path is not an absolute path"),
    ],
)
def test_place_of_another_form_is_refused(directory: dict[str, t.Any], problem: str) -> None:
    with pytest.raises(DeliveryError, match=f"source_directories: cannot be used: {problem}"):
        place(**directory)
