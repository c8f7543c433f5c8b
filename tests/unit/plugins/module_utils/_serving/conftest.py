# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node whose adapters a fake engine serves."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.support.fake_engine.running import FakeEngine
from tests.support.serving import ServingNode, make_base

Started = t.Tuple[ServingNode, FakeEngine]
Start = t.Callable[..., Started]


@pytest.fixture
def start(tmp_path: pathlib.Path, fake_engine: t.Callable[..., FakeEngine]) -> Start:
    """Return a function that starts vLLM of a version, with a node whose engine it is."""
    base = make_base(tmp_path)

    def run(version: str = "0.32.0", **keys: t.Any) -> Started:
        engine = fake_engine("vllm", base, version, **keys.pop("settings", {}))
        return ServingNode(tmp_path, base, engine.url, **keys), engine

    return run
