# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serves the demo's adapters on one node with a real vLLM: ``make demo SERVE=yes``.

The engine runs on the CPU, and ends when the delivery has ended.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / ".collections")]

from tests.engines.drivers.vllm import free_port  # noqa: E402
from tests.serving import engine  # noqa: E402
from tests.support.playbooks import PLAYBOOK  # noqa: E402

NODE = "jw2-1"
LIMIT = 1800


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=pathlib.Path, help="directory of the base model")
    base = parser.parse_args().base.resolve()
    engine.end_orderly()
    vllm, port = engine.installed(), free_port()
    print(f"\n== Starting vLLM {vllm.version} on the CPU (about 1 minute)", flush=True)
    with vllm.running(base, CHECKOUT / ".cache" / "demo" / "vllm", port):
        print(f"== Delivering again, with it as the engine of {NODE} (about 2 minutes)", flush=True)
        declared = CHECKOUT / ".cache" / "demo" / "vllm" / "engine.yml"
        declared.write_text(json.dumps({"all": {"hosts": {NODE: {"agent_engine": engine.declared(port)}}}}), encoding="utf-8")
        deploy = [PLAYBOOK, "-i", "inventories/demo", "-i", declared, "playbooks/deploy.yml"]
        return subprocess.run(deploy, cwd=CHECKOUT, check=False, timeout=LIMIT).returncode


if __name__ == "__main__":
    sys.exit(main())
