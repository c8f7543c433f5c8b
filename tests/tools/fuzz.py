# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the tests marked ``fuzz`` with new examples until the time is up: ``fuzz.py [SECONDS]``.

They compare the readers of an adapter's files with the official safetensors library and with
Python's own JSON, and the verdicts on adapters with what PEFT does. A short round of each is part
of the usual tests. Hypothesis keeps a failing
example in .hypothesis and tries it first in later runs.
"""

from __future__ import annotations

import pathlib
import secrets
import subprocess
import sys
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
# Examples of each test in a round.
EXAMPLES = 300


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        seed = secrets.randbelow(1 << 32)
        command = [sys.executable, "-m", "pytest", "-q", "-m", "fuzz", "--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"]
        done = subprocess.run(
            [*command, "tests/unit", "tests/contract"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{done.stdout}{done.stderr}\nfuzz: failed in round {rounds + 1}, seed {seed}")
            return 1
        rounds += 1
    print(f"fuzz: {rounds} rounds of {EXAMPLES} examples of each test, no failures ({done.stdout.strip().splitlines()[-1]})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
