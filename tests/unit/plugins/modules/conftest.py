# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module's main() in this process."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import typing as t
from unittest import mock

import pytest
from ansible.module_utils import basic
from ansible_collections.lorafleet.delivery.plugins.module_utils import _trust_place
from ansible_collections.lorafleet.delivery.plugins.module_utils._module import DeliveryModule

from tests.support.paths import PLUGINS
from tests.support.signing import Keys, signer_line, write_trust

try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:  # ansible-core 2.18

    @contextlib.contextmanager
    def patch_module_args(args: dict[str, t.Any]) -> t.Iterator[None]:
        text = json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode()
        with mock.patch.object(basic, "_ANSIBLE_ARGS", text):
            yield


Result = t.Dict[str, t.Any]
RunModule = t.Callable[..., Result]

MODULES = {
    path.stem: importlib.import_module(f"ansible_collections.lorafleet.delivery.plugins.modules.{path.stem}")
    for path in sorted((PLUGINS / "modules").glob("*.py"))
}


@pytest.fixture
def run_module(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> t.Iterator[RunModule]:
    """Return a function that runs a module with options and returns the JSON that it prints.

    The result has no ``invocation``, and ``warnings`` only if there are any.
    """
    umask = os.umask(0o022)

    def run(name: str, options: dict[str, t.Any], check_mode: bool = False, diff: bool = False, verbosity: int = 0) -> Result:
        scratch: pathlib.Path = tmp_path_factory.mktemp("tmpdir")
        internal = {
            "_ansible_check_mode": check_mode,
            "_ansible_diff": diff,
            "_ansible_tmpdir": str(scratch),
            "_ansible_verbosity": verbosity,
        }
        warnings: list[str] = []
        # AnsibleModule.warn() prints a warning instead if the controller's code has been imported.
        monkeypatch.setattr(DeliveryModule, "warn", lambda _module, warning: warnings.append(warning))
        capsys.readouterr()
        with patch_module_args({**options, **internal}), pytest.raises(SystemExit) as ended:
            MODULES[name].main()
        result: Result = json.loads(capsys.readouterr().out)
        assert ended.value.code == (1 if result.get("failed") else 0)
        # ansible-core 2.21 returns it only on demand.
        result.pop("invocation", None)
        return {**result, "warnings": warnings} if warnings else result

    yield run
    os.umask(umask)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def trusting(keys: Keys, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node trust alice, and require signatures."""
    monkeypatch.setattr(_trust_place, "PLACE", write_trust(tmp_path / "etc", signer_line("alice", keys.public("alice"))))
