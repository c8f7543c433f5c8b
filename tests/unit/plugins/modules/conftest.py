# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module's main() in this process."""

from __future__ import annotations

import importlib
import json
import pathlib
import typing as t

import pytest
from ansible.module_utils import basic

Result = t.Dict[str, t.Any]
RunModule = t.Callable[..., Result]


@pytest.fixture
def run_module(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunModule:
    """Return a function that runs a module with options and returns its whole result."""

    def run(name: str, options: dict[str, t.Any], check_mode: bool = False, diff: bool = False) -> Result:
        module = importlib.import_module(f"ansible_collections.lorafleet.delivery.plugins.modules.{name}")
        scratch: pathlib.Path = tmp_path_factory.mktemp("tmpdir")
        internal = {"_ansible_check_mode": check_mode, "_ansible_diff": diff, "_ansible_tmpdir": str(scratch)}
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **internal}}).encode()
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", arguments)
        # ansible-core 2.19 asks for the form of the result; older versions have no such variable.
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            module.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return t.cast("Result", result)

    return run
