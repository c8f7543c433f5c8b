# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adapters that real training tools wrote: the product's verdicts are those of its documentation.

The adapters are in ``tests/fixtures/trainers``, the table is in ``tests/support/compatibility``.
"""

from __future__ import annotations

import pathlib

import pytest

from tests.support.compatibility import MADE, REJECTED, ROWS, TRAINERS, Row
from tests.support.trainers import Verdict, declare, model_verdicts, structure_verdict
from tests.tools.compatibility import PAGE, page

# One process loads all adapters.
pytestmark = pytest.mark.xdist_group("trainers")

LOADED = [row for row in ROWS if row.verdict != REJECTED]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """The verdicts of level model on all adapters that must be delivered."""
    return model_verdicts(
        {row.fixture: (TRAINERS / row.fixture, row.base) for row in LOADED}, tmp_path_factory.mktemp("trainers")
    )


def test_table_has_every_fixture_once() -> None:
    assert sorted({row.fixture.partition("/")[0] for row in ROWS}) == sorted(MADE)
    assert len({row.fixture for row in ROWS}) == len(ROWS)
    assert {path.name for path in TRAINERS.iterdir()} == set(MADE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fixture)
def test_level_structure_gives_documented_verdict(tmp_path: pathlib.Path, row: Row) -> None:
    adapter = TRAINERS / row.fixture
    verdict = structure_verdict(adapter, declare(adapter, row.base), tmp_path)
    assert (verdict.word, row.says in verdict.text) == (row.verdict, True), verdict.text


@pytest.mark.slow
@pytest.mark.parametrize("row", LOADED, ids=lambda row: row.fixture)
def test_level_model_accepts_what_is_delivered(loaded: dict[str, Verdict], row: Row) -> None:
    assert loaded[row.fixture].rejected == ()


def test_page_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "Run make compatibility."
