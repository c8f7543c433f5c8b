# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of adapter_info; test_describe.py tests the description itself."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.declaration import Declaration
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.describe import describe
from ansible_collections.lorafleet.delivery.plugins.module_utils._adapter.manifest import Manifest
from ansible_collections.lorafleet.delivery.plugins.module_utils._golden.golden import golden_path
from ansible_collections.lorafleet.delivery.plugins.module_utils._store.source import identify_source

from tests.support import tiny_adapters
from tests.support.describing import wait_until_cacheable
from tests.support.loaded_modules import loaded_by_module

from .conftest import Result, RunModule

NAME = "a_lora"


@pytest.fixture
def source(adapter: pathlib.Path) -> pathlib.Path:
    """The models directory of a training server, with an adapter old enough to be cached."""
    shutil.move(adapter, adapter.with_name("models") / NAME)
    models = adapter.with_name("models")
    (models / NAME / "README.md").write_text("not part of it", encoding="utf-8")
    wait_until_cacheable(models / NAME)
    return models


@pytest.fixture
def run(source: pathlib.Path, base_config: Result, run_module: RunModule) -> RunModule:
    """Return a function that runs the module on the training server."""

    def run(check_mode: bool = False, **options: t.Any) -> Result:
        row = {"name": NAME, "base": tiny_adapters.BASE_NAME, "rank": 16, "alpha": 32, **options.pop("row", {})}
        places = {"cache_dir": str(source.with_name("cache")), "golden_dir": str(source.with_name("goldens"))}
        bases = {tiny_adapters.BASE_NAME: {"config": base_config}}
        options = {"adapters": [row], "bases": bases, "models_dir": str(source), **places, **options}
        return run_module("adapter_info", options, check_mode)

    return run


@pytest.fixture
def manifest(source: pathlib.Path, declare: t.Callable[..., Declaration], tmp_path: pathlib.Path) -> Manifest:
    return describe(str(source / NAME), declare(name=NAME), {}, str(tmp_path / "unused"), write_cache=False).manifest


def test_adapter_info_describes_adapter(run: RunModule, source: pathlib.Path, manifest: Manifest) -> None:
    assert run() == {
        "changed": False,
        "manifests": [manifest.to_text()],
        "goldens": {NAME: "none"},
        "excluded": {NAME: [{"path": "README.md", "reason": "documentation"}]},
        "directories": {NAME: {**identify_source(str(source / NAME)), "links": {}}},
        "notes": {NAME: []},
        "cached": [],
        "folded": [],
        "suggested_rows": {},
    }


def test_adapter_info_uses_cache_on_second_run(run: RunModule) -> None:
    first = run()
    assert run() == {**first, "cached": [NAME]}


def test_adapter_info_in_check_mode_writes_no_cache(run: RunModule, source: pathlib.Path, manifest: Manifest) -> None:
    assert run(check_mode=True)["manifests"] == [manifest.to_text()]
    assert not source.with_name("cache").exists()
    run()
    assert run(check_mode=True)["cached"] == [NAME]


def test_adapter_info_of_other_adapter_fails_with_remedy(run: RunModule) -> None:
    subject = f"adapter {NAME}, lora_alpha in adapter_config.json"
    failed = run(row={"alpha": 64})
    problem, suggestion = failed["problems"]
    assert (problem["adapter"], problem["subject"]) == (NAME, subject)
    assert suggestion["problem"].endswith(f"- {{name: {NAME}, base: tiny/Llama-64, rank: 16, alpha: 32}}")
    assert failed == {
        "failed": True,
        "msg": "\n".join(f"{one['subject']}: {one['problem']} {one['remedy']}" for one in (problem, suggestion)),
        "problems": [problem, suggestion],
        "manifests": [],
        "goldens": {},
        "excluded": {},
        "directories": {},
        "notes": {},
        "cached": [],
        "folded": [],
        "suggested_rows": {},
    }


def test_adapter_info_failure_returns_manifests_of_other_adapters(run: RunModule, manifest: Manifest) -> None:
    rows = [{"name": name, "base": tiny_adapters.BASE_NAME, "rank": 16, "alpha": 32} for name in ("missing_lora", NAME)]
    failed = run(adapters=rows)
    assert [problem["adapter"] for problem in failed["problems"]] == ["missing_lora"]
    assert failed["msg"].startswith("adapter missing_lora: ")
    assert failed["manifests"] == [manifest.to_text()]


def test_adapter_info_requires_golden_of_current_release(run: RunModule, source: pathlib.Path, manifest: Manifest) -> None:
    [problem] = run(require_golden=True)["problems"]
    assert problem == {
        "adapter": NAME,
        "subject": f"adapter {NAME}",
        "problem": "has no golden.",
        "remedy": "Record one on the training server with adapter_golden.",
    }
    stale = pathlib.Path(golden_path(str(source.with_name("goldens")), NAME, "0" * 12))
    stale.parent.mkdir(parents=True)
    stale.touch()
    text = f"has a stale golden: it belongs to release {'0' * 12}, not to {manifest.release}."
    found = run()
    assert (found["goldens"], found["manifests"]) == ({NAME: "stale"}, [manifest.to_text()])
    assert found["warnings"] == [f"adapter {NAME}: {text} {problem['remedy']}"]
    assert run(require_golden=True)["problems"] == [{**problem, "problem": text}]


def test_adapter_info_without_interpreter_fails(run: RunModule) -> None:
    failed = run(python="/nowhere/python")
    [problem] = failed["problems"]
    assert (problem["adapter"], problem["subject"], problem["problem"]) == (None, "/nowhere/python", "does not exist.")


def test_adapter_info_suggests_rows_of_undeclared_adapters(run: RunModule, source: pathlib.Path) -> None:
    shutil.copytree(source / NAME, source / "another_lora")
    (source / "notes").mkdir()
    assert run()["suggested_rows"] == {}
    expected = "- name: another_lora\n  base: tiny/Llama-64\n  rank: 16\n  alpha: 32\n"
    assert run(suggest_rows=True)["suggested_rows"] == {"another_lora": expected}


def test_adapter_info_does_not_load_what_folds_until_an_adapter_is_to_be_folded() -> None:
    """It would cost time in each description, although few adapters are delivered folded."""
    assert [name for name in loaded_by_module("adapter_info") if "._source.fold" in name] == []
