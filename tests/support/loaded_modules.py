# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files of the collection a new interpreter loads.

Ansible sends a module's files to a node in a zip file, where Python compiles them anew for each
task. What is loaded without need costs time on every node.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

from tests.support.paths import CHECKOUT

PLUGINS = "ansible_collections.lorafleet.delivery.plugins."


def loaded_by(code: str) -> list[str]:
    """Return the names below plugins/ of all that ``code`` loads: ``module_utils._store.plan``."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")}
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint([*sys.modules])"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [name[len(PLUGINS) :] for name in ast.literal_eval(done.stdout) if name.startswith(PLUGINS)]


def loaded_by_module(name: str) -> list[str]:
    """Return what the module ``name`` loads before it reads its options."""
    return loaded_by(f"import {PLUGINS}modules.{name}")
