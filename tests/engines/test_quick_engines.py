# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines that install and run quickly answer on the tiny base as their rules say."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.support.paths import CHECKOUT

QUICK = ["transformers", "onnxruntime_genai", "openvino_genai", "mistralrs"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", QUICK)
def test_quick_engine_answers_as_its_rules_say(engine: str, tiny: pathlib.Path) -> None:
    command = [sys.executable, CHECKOUT / "tests" / "engines" / "run.py", "--base", tiny / "base", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| plain " in done.stdout
