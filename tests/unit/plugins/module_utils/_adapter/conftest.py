# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests of describing an adapter."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import Description, describe

from tests.support.describing import Declare, Describe


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "cache" / "entry.json"


@pytest.fixture
def describe_it(adapter: pathlib.Path, declare: Declare, cache: pathlib.Path) -> Describe:
    """Describes the adapter, declared as it is except for the keywords given."""

    def call(write_cache: bool = True, versions: dict[str, str] | None = None, **row: t.Any) -> Description:
        return describe(str(adapter), declare(**row), versions or {}, str(cache), write_cache)

    return call
