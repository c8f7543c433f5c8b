# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a fake engine: ``python -m tests.support.fake_engine``.

Prints the port of the engine and that of its control when both listen, as JSON. Runs until its
standard input ends, which it does with the test that started it.
"""

import json
import sys

from .server import serve

print(json.dumps(serve()), flush=True)
sys.stdin.read()
