# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module adapter_load_test run by Ansible: packed, sent, and started on a local connection.

What does not depend on that is in ``tests/unit/plugins/modules/test_adapter_load_test.py``.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.support import tiny_adapters
from tests.support.load_test_node import ADAPTERS, LoadTestNode, of_all
from tests.support.paths import CHECKOUT

ANSIBLE = str(pathlib.Path(sys.executable).with_name("ansible"))

Result = dict[str, t.Any]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> LoadTestNode:
    return LoadTestNode(tmp_path, tiny_adapters.cached())


def run(node: LoadTestNode, *flags: str) -> Result:
    """Return the result of the module in an ad-hoc run of ansible."""
    tree = node.tmp_path / "tree"
    command = [ANSIBLE, "localhost", "-i", "localhost,", "-c", "local", "-t", str(tree), *flags]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(
        [*command, "-m", "lorafleet.delivery.adapter_load_test", "-a", json.dumps(node.options())],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (tree / "localhost").exists(), done.stdout + done.stderr
    result = json.loads((tree / "localhost").read_text(encoding="utf-8"))
    assert "module_stderr" not in result, result
    return t.cast("Result", result)


def test_load_test_check_run_and_repeat(node: LoadTestNode) -> None:
    node.stage()
    checked = run(node, "--check")
    assert checked["changed"]
    assert of_all(checked, "level") == ["structure"] * 2
    assert of_all(checked, "limited_by") == ["Not loaded in check mode."] * 2
    assert node.receipts() == [None, None]

    done = run(node)
    assert done["changed"]
    assert of_all(done, "name") == list(ADAPTERS)
    assert of_all(done, "release") == [manifest.release for manifest in node.manifests]
    assert of_all(done, "required_level") == of_all(done, "level") == ["model"] * 2
    assert of_all(done, "from_receipt") == [False] * 2
    assert of_all(done, "device") == ["cpu"] * 2
    assert of_all(done, "limited_by") == ["No golden was recorded for this release."] * 2
    assert all(effect > 0.01 for effect in of_all(done, "effect"))
    assert [len(checks) for checks in of_all(done, "checks")] == [13, 13]
    assert all({"python", "torch", "peft"} <= set(versions) for versions in of_all(done, "versions"))
    assert done["seconds"] > 0
    receipts = node.receipts()
    assert [receipt and receipt["level"] for receipt in receipts] == ["model"] * 2

    for flags in (["--check"], []):
        again = run(node, *flags)
        assert not again["changed"]
        assert again["seconds"] == 0
        assert of_all(again, "from_receipt") == [True] * 2
        assert [{**adapter, "from_receipt": False} for adapter in again["adapters"]] == done["adapters"]
    assert node.receipts() == receipts
