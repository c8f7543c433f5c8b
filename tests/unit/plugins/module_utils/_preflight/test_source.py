# Copyright (c) 2026, The lorafleet.delivery authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight of a training server."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile

import pytest

from tests.support.fleet import contents
from tests.support.preflight import BASE, NOBODY, Site, as_user


@pytest.fixture
def site(tmp_path: pathlib.Path, tiny: pathlib.Path) -> Site:
    return Site(tmp_path, tiny)


def test_check_source_of_ready_server_passes_and_writes_nothing(site: Site) -> None:
    before = contents(site.root)
    found = site.check_source()
    assert found.states() == {
        "Ansible's Python": "ok",
        "rsync": "ok",
        "models directory": "ok",
        f"base {BASE}": "ok",
        "adapter grammar_3b": "ok",
        "adapter grammar_8b": "ok",
    }
    assert contents(site.root) == before


def test_check_source_fails_each_wrong_adapter(site: Site) -> None:
    site.rows[0]["alpha"] = 64.0
    (site.source / "grammar_8b" / "adapter_model.safetensors").write_bytes(b"damaged")
    site.rows.append(site.row("absent", 16))
    found = site.check_source()
    assert found.failed() == {"adapter grammar_3b", "adapter grammar_8b", "adapter absent"}
    wrong, suggestion = found.all("adapter grammar_3b")
    assert suggestion.found.startswith("matches this row instead: - {name: grammar_3b, ")
    assert (wrong.found, wrong.adapter) == (
        "lora_alpha in adapter_config.json: is 32; the inventory declares alpha 64.",
        "grammar_3b",
    )
    assert "does not exist" in found.one("adapter absent").found
    assert all(one.remedy for one in found.checks if one.state == "failed")


def test_check_source_without_models_dir_describes_nothing(site: Site) -> None:
    found = site.check_source(models_dir=str(site.root / "absent"))
    assert found.failed() == {"models directory"}
    assert {one.state for one in found.checks if one.check.startswith("adapter")} == {"unknown"}


def test_check_source_with_wrong_base_still_describes_adapters(site: Site) -> None:
    site.bases[BASE]["path"] = str(site.root / "absent")
    site.rows[1]["rank"] = 8
    found = site.check_source()
    assert found.failed() == {f"base {BASE}", "adapter grammar_8b"}
    passed = found.one("adapter grammar_3b")
    assert (passed.state, passed.found.endswith("not compared with its base")) == ("unknown", True)


def test_check_source_checks_bases_of_no_adapter_too(site: Site) -> None:
    site.bases["another"] = {"path": str(site.root)}
    assert site.check_source().failed() == {"base another"}
    # Its weights are not needed.
    shutil.copy(site.base / "config.json", site.root)
    assert site.check_source().one("base another").state == "ok"


def test_check_source_requires_golden_only_if_asked(site: Site) -> None:
    assert not site.check_source().failed()
    found = site.check_source(require_golden=True)
    assert found.failed() == {"adapter grammar_3b", "adapter grammar_8b"}
    assert found.one("adapter grammar_3b").found == "has no golden."


def test_check_source_with_missing_interpreter_fails(site: Site) -> None:
    assert site.check_source(python="/absent/python").failed() == {"PEFT interpreter"}


def test_check_source_returns_tokenizer_class_of_each_adapter(site: Site) -> None:
    path = site.source / "grammar_3b" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "Special"}), encoding="utf-8")
    assert site.node_params()["tokenizer_classes"]["grammar_3b"] == "Special"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_check_source_by_user_who_may_not_enter_names_the_user(tiny: pathlib.Path) -> None:
    # A directory that every user can reach, unlike pytest's.
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        site = Site(root, tiny)
        site.bases[BASE] = {"config": {}}
        site.source.chmod(0o700)
        found = as_user(NOBODY, site.check_source)
        assert {check for check, state in found.items() if state == "failed"} == {"models directory"}
