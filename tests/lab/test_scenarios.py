# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The molecule scenarios of extensions/molecule."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.lab.host import CONTAINERS
from tests.support.playbooks import CHECKOUT

# There is one lab: one worker runs all its tests.
pytestmark = pytest.mark.xdist_group("lab")

SCENARIOS = sorted(
    (path.parent.name for path in (CHECKOUT / "extensions" / "molecule").glob("*/molecule.yml")),
    # The other scenarios use the environment that it installs.
    key=lambda name: (name != "runtime", name),
)
# Seconds; a scenario takes a minute or two.
_LIMIT = 900


# `default` only creates and destroys the lab.
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "default"])
def test_scenario(scenario: str, lab_is_up: None) -> None:
    programs = pathlib.Path(sys.executable).parent
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    done = subprocess.run(
        [programs / "molecule", "test", "-s", scenario, "--destroy=never"],
        env={**inherited, **CONTAINERS, "PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1"},
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
