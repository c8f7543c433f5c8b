# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.assignment import Candidate, engines_of
from ansible_collections.lorafleet.delivery.plugins.module_utils._serving.contract import EngineState

from tests.support.releases import manifest_of

BASES = {"3b": {"path": "/models/3b", "aliases": ["meta/3b"]}, "8b": {"path": "/models/8b"}}
MANIFEST = dataclasses.replace(manifest_of(1), config={"base_model_name_or_path": "meta/3b"})


def engine(root: t.Optional[str], name: str = "base", stated: t.Optional[str] = None) -> Candidate:
    return Candidate(f"engine of {root}", stated, EngineState("1", name, root))


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([engine("/models/8b"), engine("/models/3b")], [1]),
        ([engine("/models/3b"), engine("/models/3b/")], [0, 1]),
        ([engine("meta/3b"), engine("/models/8b")], [0]),
        ([engine(None, "3b"), engine("/models/8b")], [0]),
        ([engine("/models/8b", stated="3b"), engine("/models/3b", stated="8b")], [0]),
        # A single engine that does not tell: its probe compares the answers of the base, too.
        ([engine(None)], [0]),
    ],
)
def test_adapter_belongs_to_the_engines_with_its_base(candidates: list[Candidate], expected: list[int]) -> None:
    assert engines_of(MANIFEST, candidates, BASES) == expected


def test_adapter_whose_base_no_engine_has_is_refused() -> None:
    with pytest.raises(DeliveryError, match="has base meta/3b, which no engine serves: engine of /models/8b has /models/8b"):
        engines_of(MANIFEST, [engine("/models/8b")], BASES)


def test_adapter_of_several_engines_that_do_not_tell_needs_a_statement() -> None:
    with pytest.raises(DeliveryError, match="State base for each engine in engines"):
        engines_of(MANIFEST, [engine(None), engine("/models/8b")], BASES)
