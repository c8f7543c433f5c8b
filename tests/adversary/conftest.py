# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests in which a host of the fleet is hostile."""

from __future__ import annotations

import pathlib
import shutil
import textwrap
import typing as t

import pytest

from tests.support.fleet import Fleet
from tests.support.paths import CHECKOUT
from tests.support.playbooks import Background, Run
from tests.unit.plugins.modules.conftest import keys, run_module  # noqa: F401  # pylint: disable=unused-import


@pytest.fixture
def fleet(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Fleet:
    """A fleet to which nothing was delivered yet."""
    if shutil.which("rsync") is None:
        pytest.skip("no rsync on this machine")
    return Fleet(tmp_path, tiny)


@pytest.fixture
def run_elsewhere(fleet: Fleet) -> t.Callable[..., Run]:
    """Run a playbook of somebody's own: without ansible.cfg, so facts become variables."""

    def run(text: str, *arguments: str) -> Run:
        (fleet.root / "own.yml").write_text(textwrap.dedent(text), encoding="utf-8")
        (fleet.root / "empty.cfg").write_text("[defaults]\n", encoding="utf-8")
        environment = {
            "ANSIBLE_CONFIG": str(fleet.root / "empty.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections"),
        }
        chosen = ("-i", str(fleet.write_inventory()), *arguments)
        return Background(str(fleet.root / "own"), *chosen, directory=fleet.root, environment=environment).wait()

    return run
