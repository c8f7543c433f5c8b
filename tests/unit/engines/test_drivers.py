# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every driver has what it needs: rules to compare with, and requirements with hashes."""

from __future__ import annotations

import re

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._engines.rules.table import ALIASES

from tests.support.paths import CHECKOUT

DRIVERS = sorted(path.stem for path in (CHECKOUT / "tests" / "engines" / "drivers").glob("*.py"))
REQUIREMENTS = CHECKOUT / "requirements" / "engines"


@pytest.mark.parametrize("engine", DRIVERS)
def test_driver_engine_has_rules(engine: str) -> None:
    assert engine in ALIASES


@pytest.mark.parametrize("engine", DRIVERS)
def test_driver_engine_has_pinned_requirements_with_hashes(engine: str) -> None:
    wanted = re.findall(r"^[\w.\[\]-]+==[\w.]+$", (REQUIREMENTS / f"{engine}.in").read_text(encoding="utf-8"), re.M)
    assert wanted, "the version of the engine is not pinned"
    blocks = re.split(r"\n(?=\S)", (REQUIREMENTS / f"{engine}.txt").read_text(encoding="utf-8"))
    locked = [block for block in blocks if not block.startswith("#")]
    assert locked and all("--hash=sha256:" in block for block in locked)
    for requirement in (re.sub(r"\[.*\]", "", extended) for extended in wanted):
        assert any(block.startswith(f"{requirement} ") for block in locked), f"{requirement} is not locked: nox -s lock"
