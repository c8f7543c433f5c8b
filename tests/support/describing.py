# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calling describe() on the plain adapter, for the tests of the description and of its cache."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter import hash_cache
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import Description
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError

Declare = t.Callable[..., Declaration]
Describe = t.Callable[..., Description]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# The files of an adapter as this version of transformers saves one with a tokenizer.
FILES = [CONFIG, WEIGHTS, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


def wait_until_cacheable(directory: pathlib.Path) -> None:
    """Wait a few hundredths of a second, until the files are old enough for a cache entry."""
    newest = max(path.stat().st_ctime_ns for path in directory.iterdir())
    while time.time_ns() <= newest + 2 * hash_cache._CLOCK_TICK_NS:
        pass


def error_of(describe_it: Describe, **row: t.Any) -> str:
    with pytest.raises(DeliveryError) as caught:
        describe_it(**row)
    assert all(problem.full_subject and problem.remedy for problem in caught.value.problems)
    return str(caught.value)
